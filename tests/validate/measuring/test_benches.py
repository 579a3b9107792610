"""Every bench runs, does what its record says, and is planned in a sensible order."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.errors import UsageError
from foretrain.validate.measuring import bench_attention, bench_convolution, bench_launch, bench_matmul, bench_optimizer, bench_stream
from foretrain.validate.measuring.bench import Bench, Lab, Machine, merged, scattered
from foretrain.validate.measuring.kinds import KINDS, measured_in, ordered
from foretrain.validate.measuring.stream_ops import OPS
from foretrain.validate.measuring.timer import Limit

torch = pytest.importorskip("torch")
CPU, GPU, GPUS = Machine(device="cpu", ranks=2), Machine(device="cuda"), Machine(device="cuda", ranks=8)


@pytest.fixture
def lab():
    """Return a room where a bench takes no time to speak of."""
    found = Lab(device="cpu")
    found.limit = Limit(most_s=0.0)
    return found


@pytest.mark.parametrize(("machine", "least"), [(CPU, 300), (GPU, 600), (GPUS, 600)])
def test_plans_name_each_bench_once_and_have_enough(machine, least):
    benches = ordered(machine, 100.0)
    assert len({one.key for one in benches}) == len(benches) >= least
    assert all(one.held_bytes < 20e9 for one in benches)


@pytest.mark.parametrize(("machine", "absent"), [(CPU, {"host_copy"}), (GPU, {"collective", "send", "overlap"}), (GPUS, set())])
def test_the_first_tenth_of_a_plan_has_something_of_every_kind(machine, absent):
    benches = ordered(machine, 100.0)
    early = {one.name for one in benches[: len(benches) // 10]}
    assert early >= set(KINDS) - absent - {"send"}


def test_power_takes_its_share_of_a_budget_at_most():
    assert [one.shape["what"] for one in ordered(GPU, 30.0, {"power"})] == ["idle"]
    assert len(ordered(GPU, 100.0, {"power"})) == 6


def test_an_unknown_kind_is_named():
    with pytest.raises(UsageError, match="did you mean 'matmul'"):
        ordered(CPU, 1.0, {"matmull"})


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(), unique=True, max_size=70))
def test_scattered_keeps_every_item(items):
    assert sorted(scattered(items)) == sorted(items)


def test_scattered_begins_with_first_middle_and_quarters():
    assert scattered(list(range(8))) == [0, 4, 2, 6, 1, 5, 3, 7]
    assert merged([1, 2, 3], [10, 2], []) == [1, 10, 2, 3]


@pytest.mark.parametrize("layout", ["nt", "nn", "tn"])
@pytest.mark.parametrize("batch", [1, 3])
def test_products_have_the_shape_and_flops_that_they_say(lab, layout, batch):
    """2·m·n·k, and an m × n result, however the operands lie."""
    bench = bench_matmul._bench("fp32", (4, 5, 6), layout, batch, busy=1)
    assert bench.flop == 2 * 4 * 5 * 6 * batch
    assert tuple(bench_matmul.product(bench, lab)().shape) == ((4, 5) if batch == 1 else (batch, 4, 5))
    assert measured_in(lab, bench)["seconds"]["median"] > 0


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_memory_bound_ops_run(lab, op, dtype):
    bench = bench_stream._bench(op, 2**14, dtype, busy=1)
    assert bench.shape["elements"] % OPS[op].unit == 0
    assert measured_in(lab, bench)["seconds"]["median"] > 0


def test_ops_allocate_their_results(lab):
    """As in training; gradients that are added up are the exception."""
    for op, known in OPS.items():
        call = known.make(torch, lab, known.unit * 2, "fp32")
        first, second = (one if isinstance(one, torch.Tensor) else one[0] for one in (call(), call()))
        assert (first.data_ptr() == second.data_ptr()) == (op == "accumulate"), op


@pytest.mark.parametrize("name", [name for name in bench_optimizer.PASSES if name != "adamw_fused"])
def test_optimizers_run(lab, name):
    bench = bench_optimizer._bench(name, 64, 4, CPU)
    assert bench.bytes == 4 * 64 * bench_optimizer.PASSES[name]
    assert measured_in(lab, bench)["seconds"]["median"] > 0


@pytest.mark.parametrize("what", bench_launch.WHATS)
def test_launches_are_per_op(lab, what):
    """A tiny op takes the host well under a millisecond, a chain of 64 would not be."""
    seconds = measured_in(lab, Bench(name="launch", dtype="fp32", shape={"what": what, "chain": 64}))["seconds"]["median"]
    assert 0 < seconds < 1e-3


@pytest.mark.parametrize("layer", [(1, 4, 8, 1, 8, 3, 1), (2, 4, 4, 4, 8, 3, 2), (1, 3, 8, 1, 8, 4, 4), (1, 3, 8, 1, 16, 7, 2)])
@pytest.mark.parametrize("direction", bench_convolution.DIRECTIONS)
def test_convolutions_run_as_torch_sizes_them(lab, layer, direction):
    bench = bench_convolution._bench("fp32", layer, direction, busy=1)
    samples, ins, outs, groups, side, kernel, stride = layer
    padding = 0 if kernel == stride else kernel // 2
    made = torch.nn.Conv2d(ins, outs, kernel, stride, padding, groups=groups)(torch.zeros(samples, ins, side, side))
    assert list(made.shape[2:]) == bench.shape["out_size"]
    assert bench.flop == 2 * made.numel() * ins // groups * kernel**2
    assert measured_in(lab, bench)["seconds"]["median"] > 0


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_runs(lab, causal, backward):
    bench = bench_attention._bench("fp32", (2, 16, 8), causal, backward, busy=1)
    assert bench.flop == (10 if backward else 4) * 2 * 16 * 16 * 8
    assert measured_in(lab, bench)["seconds"]["median"] > 0


def test_keys_tell_shapes_apart():
    bench = Bench(name="attention", dtype="bf16", shape={"heads": 2, "kernel": [3, 3], "causal": True})
    assert bench.key == "attention/bf16/heads=2,kernel=3x3,causal=yes"
    assert replace(bench, shape={**bench.shape, "causal": False}).key != bench.key
