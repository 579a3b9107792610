"""The networks are those of the papers and torchvision, and what is trained is what the simulator traces."""

from __future__ import annotations

import pytest

import foretrain as ft
from foretrain.errors import ForetrainError
from foretrain.sim.recipe import Recipe
from foretrain.validate.case import Net, net_of, plan_of

torch = pytest.importorskip("torch")
build = pytest.importorskip("foretrain.validate.training.nets").build

SMALL = ("mlp:width=32,depth=4,classes=8", "gpt:layers=4,hidden=32,heads=4,seq=16,vocab=64", "resnet:image=32,classes=10")


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("resnet:depth=18,classes=1000", 11_689_512),  # torchvision.models.resnet18
        ("resnet:depth=34,classes=1000", 21_797_672),
        ("resnet:depth=50,classes=1000", 25_557_032),
        ("mlp:width=8,depth=3,classes=4", 7 * (8 * 8 + 8) + 8 * 4 + 4),
        # 12 h² + 13 h a layer, two norms' worth at the end, and the tables
        ("gpt:layers=2,hidden=16,heads=2,seq=8,vocab=32", 2 * (12 * 16**2 + 13 * 16) + 2 * 16 + 8 * 16 + 2 * 32 * 16),
    ],
)
def test_parameters_are_those_of_the_architecture(text, parameters):
    assert sum(one.numel() for one in build(net_of(text)).module.parameters()) == parameters


@pytest.mark.parametrize("text", SMALL)
def test_every_network_trains_and_traces_with_one_call(text):
    built = build(net_of(text), seed=3)
    inputs, targets = built.draw(4, torch.Generator().manual_seed(0))
    loss = built.loss(built.module(inputs), targets)
    loss.backward()
    assert all(one.grad is not None for one in built.module.parameters())
    model = ft.from_module(built.module, inputs, loss=built.loss)
    assert model.parameters == sum(one.numel() for one in built.module.parameters())
    assert sum(count for _, count in model.layers) == {"mlp": 4, "gpt": 4, "resnet": 8}[net_of(text).kind]


@pytest.mark.parametrize("plan", ["dp=2,zero=3", "tp=2", "pp=2,micro_batch=2"])
def test_the_simulator_takes_the_trainers_plans(plan):
    built = build(net_of(SMALL[1]))
    inputs, _ = built.draw(2, torch.Generator())
    model = ft.from_module(built.module, inputs, loss=built.loss)
    prediction = ft.simulate(model, ft.load_cluster("dgx-a100-80gb:1"), plan_of(plan), Recipe(global_batch=8, precision="bf16"))
    assert prediction.step_s > 0


def test_weights_follow_from_the_seed():
    one, same, other = (build(net_of(SMALL[0]), seed=seed).module.head.weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_factory_of_the_users_is_trained():
    built = build(Net(kind="module", factory="torch.nn:Identity", sample_shape=(3,)))
    inputs, targets = built.draw(2, torch.Generator().manual_seed(0))
    assert built.loss(built.module(inputs), targets).item() == pytest.approx(inputs.square().mean().item())


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (net_of("gpt:hidden=100,heads=3"), "heads=3"),
        (net_of("resnet:depth=20"), "18, 34, 50"),
        (net_of("resnet:image=16"), "at least 32"),
        (Net(kind="module", factory="torch.nn:Identity"), "3x224x224"),
        (Net(kind="module", factory="torch.nn:Identity", sample_shape=(3,), sample_dtype="float31"), "float32"),
    ],
)
def test_sizes_that_no_network_has_are_named(net, words):
    with pytest.raises(ForetrainError, match=words):
        build(net)
