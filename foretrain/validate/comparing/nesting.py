"""Events of one thread as a tree: who called what, and how long each worked itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from foretrain.validate.comparing.trace_file import Event


class Call(NamedTuple):
    """An event with those around it, the outermost first, and the stretches in which nothing inside it ran."""

    event: Event
    around: tuple[Event, ...]
    own: tuple[tuple[float, float], ...]


def calls(events: Iterable[Event]) -> Iterator[Call]:
    """Yield every event of some threads as a call, in the order they end in each thread."""
    threads: dict[tuple[str, str], list[Event]] = defaultdict(list)
    for event in events:
        threads[event.lane].append(event)
    for found in threads.values():
        yield from _of_thread(sorted(found, key=lambda event: (event.start_s, -event.end_s)))


def _of_thread(events: list[Event]) -> Iterator[Call]:
    """Yield the calls of a thread whose events are in the order they began, the longer first where two begin together."""
    open_: list[Event] = []
    own: list[list[tuple[float, float]]] = []
    since: list[float] = []
    for event in (*events, None):
        while open_ and (event is None or open_[-1].end_s <= event.start_s):
            ended = open_.pop()
            stretches, from_s = own.pop(), since.pop()
            if ended.end_s > from_s:
                stretches.append((from_s, ended.end_s))
            if open_:
                since[-1] = max(since[-1], ended.end_s, from_s)
            yield Call(ended, tuple(open_), tuple(stretches))
        if event is None:
            return
        if open_ and event.start_s > since[-1]:
            own[-1].append((since[-1], event.start_s))
            since[-1] = event.start_s
        open_.append(event)
        own.append([])
        since.append(event.start_s)
