"""Optimizer rules against torch's own."""

import numpy as np
import pytest

from foretrain.validate.training.second_optimizers import ADAPTIVE_RATE, RATE, RULES


@pytest.mark.parametrize("name", sorted(RULES))
def test_rules_move_as_torch_does(name):
    """Ten steps down a quadratic bowl, in fp64."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    kinds = {
        "sgd": lambda one: torch.optim.SGD(one, lr=RATE),
        "momentum": lambda one: torch.optim.SGD(one, lr=RATE, momentum=0.9),
        "adam": lambda one: torch.optim.Adam(one, lr=ADAPTIVE_RATE),
        "adamw": lambda one: torch.optim.AdamW(one, lr=ADAPTIVE_RATE),
    }
    start, slopes = np.linspace(-1, 2, 7), np.linspace(1, 3, 7)
    theirs = torch.tensor(start, requires_grad=True)
    optimizer = kinds[name]([theirs])
    ours, kept = start, (np.zeros(7),) * RULES[name].slots
    for step in range(1, 11):
        ours, kept = RULES[name].moved(ours, ours * slopes, kept, step)
        theirs.grad = (theirs * torch.tensor(slopes)).detach()
        optimizer.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-9)
    assert not np.allclose(ours, start, rtol=1e-5)
