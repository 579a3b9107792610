"""The networks of the second opinions, over torch's own functions, against the torch trainer's modules."""

from types import SimpleNamespace

import numpy as np
import pytest

from foretrain.validate.case import net_of
from foretrain.validate.training.second_nets import loss_of
from foretrain.validate.training.second_weights import batch_of, drawn, weights_of

torch = pytest.importorskip("torch", reason="torch is not installed")
functional = torch.nn.functional

NETS = (
    "mlp:width=16,depth=3,classes=7",
    "gpt:layers=2,hidden=16,heads=4,seq=8,vocab=11",
    "resnet:depth=18,image=32,classes=5",
    "resnet:depth=50,image=32,classes=5",
)


@pytest.mark.parametrize("text", NETS)
def test_losses_and_gradients_are_those_of_the_torch_modules(text):
    """From the same weights and samples, in fp64."""
    from foretrain.validate.training.nets import build  # noqa: PLC0415  # it needs torch

    net = net_of(text)
    weights = {name: torch.tensor(one, dtype=torch.float64, requires_grad=True) for name, one in drawn(weights_of(net), 0).items()}
    inputs, labels = (torch.tensor(np.asarray(one)) for one in batch_of(net, 4, 0))
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    ours = loss_of(net, OPS)(weights, inputs, labels.long())
    ours.backward()
    built = build(net)
    built.module.double()
    with torch.no_grad():
        for name, one in built.module.named_parameters():
            one.copy_(torch_order(weights[name], name))
    theirs = built.loss(built.module(channels_first(inputs) if inputs.ndim == 4 else inputs), labels.long())
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    for name, one in built.module.named_parameters():
        torch.testing.assert_close(torch_order(weights[name].grad, name), one.grad, rtol=1e-6, atol=1e-9)


def torch_order(value, name):
    """Matrices are (out, in) there, kernels (out, in, rows, columns), tables as here."""
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1)
    return value.T if value.ndim == 2 and not name.startswith("stem.tokens") and "positions" not in name else value


def channels_first(images):
    return images.permute(0, 3, 1, 2)


def channels_last(images):
    return images.permute(0, 2, 3, 1)


def layer_norm(values, scale, shift):
    return functional.layer_norm(values, scale.shape, scale, shift)


def batch_norm(values, scale, shift):
    return channels_last(functional.batch_norm(channels_first(values), None, None, scale, shift, training=True))


def convolution(values, kernel, *, stride):
    found = functional.conv2d(channels_first(values), kernel.permute(3, 2, 0, 1), stride=stride, padding=kernel.shape[0] // 2)
    return channels_last(found)


def max_pool(values, *, size, stride):
    return channels_last(functional.max_pool2d(channels_first(values), size, stride, size // 2))


def attention(queries, keys, values, *, width):
    heads = (one.unflatten(-1, (-1, width)).transpose(1, 2) for one in (queries, keys, values))
    return functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)


OPS = SimpleNamespace(
    enter=lambda values: values,
    leave=lambda values: values,
    relu=functional.relu,
    gelu=functional.gelu,
    layer_norm=layer_norm,
    batch_norm=batch_norm,
    convolution=convolution,
    max_pool=max_pool,
    mean_pool=lambda values: values.mean((1, 2)),
    rows=lambda table, ids: table[ids],
    attention=attention,
    cross_entropy=lambda logits, labels: functional.cross_entropy(logits.flatten(0, -2), labels.flatten()),
)
