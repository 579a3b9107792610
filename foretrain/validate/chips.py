"""Which accelerator of the library a published name means: by the words of the two names, and by the power that was measured."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from foretrain.errors import ProfileError, nearest
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.load import list_accelerators, load_accelerator
from foretrain.units import parse, show

SLACK = 1.05
"""Measured over rated power up to which a part may still be meant: meters and controllers overshoot by a few percent."""
EXTRA = 0.5
"""What a word of the library's name costs that the published one lacks, in words that both have."""
_FORM = re.compile(r"sxm\d?|pcie|nvl")
_SIZE = re.compile(r"\d+gb")
_WATTS = re.compile(r"\d+w")
_WORD = re.compile(r"[a-z0-9.]+")
GIGABYTE = parse("1 GB", "B")


class Said(NamedTuple):
    """The words of a published name."""

    plain: frozenset[str]
    joined: frozenset[str]


def accelerator_named(words: str, drawn_w: float = 0.0) -> tuple[Accelerator, tuple[str, ...]]:
    """Return the accelerator that `words` name and that can draw `drawn_w`, and what had to be assumed.

    Raises:
        ProfileError: where the library holds none of that name.
    """
    said = _said(words)
    fitting = [key for key in list_accelerators() if _fits(said, frozenset(_words(key)))]
    if not fitting:
        raise ProfileError(f"no accelerator of the library is called {words!r}{nearest(words, list_accelerators())}")
    chips = [load_accelerator(key) for key in fitting]
    able = [chip for chip in chips if drawn_w <= SLACK * chip.power.limit_w]
    if not able:
        most = max(chips, key=lambda chip: chip.power.limit_w)
        return most, (f"{most.name}, though {show(drawn_w, 'W')} were measured above its limit of {show(most.power.limit_w, 'W')}",)
    best = max(able, key=lambda chip: _preference(said, chip))
    return best, (best.name,) if _key(best) - _same(said, _key(best)) else ()


def _preference(said: Said, chip: Accelerator) -> tuple[float, bool, float, float]:
    """Return what is compared: words in common less words of its own, then the usual form, the larger memory, the lower limit."""
    key = _key(chip)
    same, size = _same(said, key), f"{chip.memory_bytes / GIGABYTE:.0f}gb"
    score = len(same | ({size} & said.joined)) - EXTRA * len(key - same)
    return score, "sxm" in chip.key, chip.memory_bytes, -chip.power.limit_w


def _words(name: str) -> list[str]:
    return _WORD.findall(name.lower().replace("pci-e", "pcie"))


def _key(chip: Accelerator) -> frozenset[str]:
    return frozenset(_words(chip.key))


def _said(name: str) -> Said:
    """Return the words of a name: plain, and with neighbours joined as well, for Gaudi 2 is gaudi2 and 80 GB is 80GB."""
    words = _words(name)
    return Said(plain=frozenset(words), joined=frozenset((*words, *(one + two for one, two in pairwise(words)))))


def _same(said: Said, key: frozenset[str]) -> frozenset[str]:
    """Return the words of a library name that were said; sockets that one side does not number are the same."""
    sockets = {word for word in said.joined if word.startswith("sxm")}
    alike = {word for word in key if word.startswith("sxm") and sockets and "sxm" in (word, *sockets)}
    return (key & said.joined) | alike


def _fits(said: Said, key: frozenset[str]) -> bool:
    """Tell whether a library name is the chip that was said, and contradicts neither its form nor its memory."""
    same, core = _same(said, key), {word for word in key if not _qualifies(word)}
    if not core & said.joined or not (core <= said.joined or {word for word in said.plain if not _qualifies(word)} <= core):
        return False
    stated = [kind for kind in (_FORM, _SIZE) if any(kind.fullmatch(word) for word in said.joined)]
    return all(word in same for word in key if any(kind.fullmatch(word) for kind in stated))


def _qualifies(word: str) -> bool:
    """Tell whether a word says which version of a chip is meant, not which chip."""
    return any(kind.fullmatch(word) for kind in (_FORM, _SIZE, _WATTS))
