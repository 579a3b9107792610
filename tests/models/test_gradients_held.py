"""What backward holds beside what forward has saved, against what torch's profiler sees allocated."""

from __future__ import annotations

from typing import Any

import pytest

import foretrain as ft
from foretrain.models.ops import Layout

torch = pytest.importorskip("torch")
ROWS, WIDTH, CLASSES = 64, 16, 8192


def loss(outputs: Any) -> Any:
    return torch.nn.functional.cross_entropy(outputs, torch.zeros(len(outputs), dtype=torch.int64, device=outputs.device))


def highest_bytes(step: Any) -> int:
    """Return the most that a step holds of what it allocates itself."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = [one for one in seen.profiler.kineto_results.events() if one.name() == "[memory]"]
    held = highest = 0
    for one in sorted(events, key=lambda event: event.start_ns()):
        held += one.nbytes()
        highest = max(highest, held)
    return highest


def test_the_gradients_of_a_loss_are_held_beside_its_logits() -> None:
    """At the top, log-probabilities and the gradients of either side of the softmax: three times the logits."""
    head = torch.nn.Linear(WIDTH, CLASSES, bias=False)
    inputs = torch.randn(ROWS, WIDTH)
    weights = 4 * head.weight.numel()
    loss(head(inputs)).backward()
    head.weight.grad = None
    measured = highest_bytes(lambda: loss(head(inputs)).backward())
    ops = [op for block, _ in ft.from_module(head, inputs, loss=loss).blocks() for op in block.ops]
    layout = Layout(micro_batch=ROWS, element_bytes=4.0)
    predicted = sum(op.saved_bytes(layout) for op in ops) + max(op.beside_bytes(layout) for op in ops)
    logits = 4 * ROWS * CLASSES
    assert predicted == pytest.approx(3 * logits, rel=0.01)
    assert measured == pytest.approx(3 * logits, abs=max(0.1 * logits, weights))
