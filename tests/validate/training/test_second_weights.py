"""The networks of the second opinions are those of the torch trainer: same names, sizes and losses."""

import math

import numpy as np
import pytest

from foretrain.validate.case import net_of
from foretrain.validate.training.second_nets import loss_of
from foretrain.validate.training.second_weights import batch_of, drawn, parameters_of, weights_of

NETS = (
    "mlp:width=16,depth=3,classes=7",
    "gpt:layers=2,hidden=16,heads=4,seq=8,vocab=11",
    "resnet:depth=18,image=32,classes=5",
    "resnet:depth=50,image=32,classes=5",
)


@pytest.mark.parametrize(("depth", "parameters"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032)])
def test_resnets_have_the_published_counts(depth, parameters):
    """Those of torchvision's documentation, for the 1000 classes of ImageNet."""
    assert parameters_of(net_of(f"resnet:depth={depth},classes=1000")) == parameters


def test_gpt_2_has_the_parameters_of_its_closed_form():
    """12 L h² + 13 L h for the blocks, (V + s) h for the tables, 2 h for the last norm, V h for the output layer."""
    layers, hidden, seq, vocab = 12, 768, 1024, 50257
    closed = 12 * layers * hidden**2 + 13 * layers * hidden + (vocab + seq) * hidden + 2 * hidden + vocab * hidden
    assert parameters_of(net_of(f"gpt:layers={layers},hidden={hidden},heads=12,seq={seq},vocab={vocab}")) == closed


@pytest.mark.parametrize("text", NETS)
def test_weights_are_those_of_the_torch_modules(text):
    pytest.importorskip("torch", reason="torch is not installed")
    from foretrain.validate.training.nets import build

    ours = {name: math.prod(one.shape) for name, one in weights_of(net_of(text)).items()}
    assert ours == {name: one.numel() for name, one in build(net_of(text)).module.named_parameters()}


@pytest.mark.parametrize("text", NETS)
def test_losses_and_gradients_are_those_of_the_torch_modules(text):
    """The networks over torch's own functions, from the same weights and samples, against torch's modules, all in fp64."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from foretrain.validate.training.nets import build

    net = net_of(text)
    weights = {name: torch.tensor(one, dtype=torch.float64, requires_grad=True) for name, one in drawn(weights_of(net), 0).items()}
    inputs, labels = (torch.tensor(np.asarray(one)) for one in batch_of(net, 4, 0))
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    ours = loss_of(net, TorchOps())(weights, inputs, labels.long())
    ours.backward()
    built = build(net)
    built.module.double()
    with torch.no_grad():
        for name, one in built.module.named_parameters():
            one.copy_(_torch_order(weights[name], name))
    theirs = built.loss(built.module(inputs.permute(0, 3, 1, 2) if inputs.ndim == 4 else inputs), labels.long())
    theirs.backward()
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-12)
    for name, one in built.module.named_parameters():
        torch.testing.assert_close(_torch_order(weights[name].grad, name), one.grad, rtol=1e-6, atol=1e-9)


def _torch_order(value, name):
    """Matrices are (out, in) there, kernels (out, in, rows, columns), tables as here."""
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1)
    return value.T if value.ndim == 2 and not name.startswith("stem.tokens") and "positions" not in name else value


class TorchOps:
    """The ops of the networks, by torch's functions."""

    def enter(self, values):
        return values

    leave = enter

    def relu(self, values):
        return values.relu()

    def gelu(self, values):
        from torch.nn import functional

        return functional.gelu(values)

    def layer_norm(self, values, scale, shift):
        from torch.nn import functional

        return functional.layer_norm(values, scale.shape, scale, shift)

    def batch_norm(self, values, scale, shift):
        from torch.nn import functional

        return functional.batch_norm(values.permute(0, 3, 1, 2), None, None, scale, shift, training=True).permute(0, 2, 3, 1)

    def convolution(self, values, kernel, *, stride):
        from torch.nn import functional

        found = functional.conv2d(values.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), stride=stride, padding=kernel.shape[0] // 2)
        return found.permute(0, 2, 3, 1)

    def max_pool(self, values, *, size, stride):
        from torch.nn import functional

        return functional.max_pool2d(values.permute(0, 3, 1, 2), size, stride, size // 2).permute(0, 2, 3, 1)

    def mean_pool(self, values):
        return values.mean((1, 2))

    def rows(self, table, ids):
        return table[ids]

    def attention(self, queries, keys, values, *, width):
        from torch.nn import functional

        heads = (one.unflatten(-1, (-1, width)).transpose(1, 2) for one in (queries, keys, values))
        return functional.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).flatten(2)

    def cross_entropy(self, logits, labels):
        from torch.nn import functional

        return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())
