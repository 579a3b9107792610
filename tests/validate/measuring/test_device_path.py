"""The path of a CUDA device, walked on a CPU: torch's own functions stand in, with a device whose clock is counted in calls."""

import contextlib
import sys
from types import SimpleNamespace

import pytest

from foretrain.validate.measuring import bench_convolution, bench_copy, bench_launch, bench_matmul, bench_optimizer, bench_power
from foretrain.validate.measuring.bench import Bench, Lab, Machine
from foretrain.validate.measuring.kinds import measured_in
from foretrain.validate.measuring.timer import EventClock, Limit, QueuedClock, timed

torch = pytest.importorskip("torch")
overrides = pytest.importorskip("torch.overrides")
GPU = Machine(device="cuda")


class _OnHost(overrides.TorchFunctionMode):
    """Makes on the host what is asked for on the device."""

    def __torch_function__(self, function, _types, args=(), kwargs=None):
        given = {name: value for name, value in (kwargs or {}).items() if name not in {"device", "pin_memory"}}
        return function(*args, **given)


class _Device:
    """Counts the work it was given: a call takes a millisecond of its time."""

    def __init__(self):
        self.now_ms, self.spins = 0.0, []

    def event(self, **_):
        event = SimpleNamespace(at=0.0, synchronize=lambda: None)
        event.record = lambda: setattr(event, "at", self.now_ms)
        event.elapsed_time = lambda end: end.at - event.at
        return event

    def work(self):
        self.now_ms += 1.0


@pytest.fixture
def device(monkeypatch):
    """Return the device that stands in for a GPU."""
    found = _Device()
    graph = SimpleNamespace(replay=found.work)
    stream = SimpleNamespace(wait_stream=lambda _: None)
    fakes = {
        "Event": found.event, "synchronize": lambda: None, "_sleep": found.spins.append, "CUDAGraph": lambda: graph,
        "Stream": lambda: stream,
        "current_stream": lambda: stream, "stream": lambda _: contextlib.nullcontext(), "graph": lambda _: contextlib.nullcontext(),
    }  # fmt: skip
    for name, value in fakes.items():
        monkeypatch.setattr(torch.cuda, name, value)
    with _OnHost():
        yield found


@pytest.mark.parametrize("clock", [QueuedClock(), EventClock()])
def test_device_clocks_give_the_device_s_seconds_per_call(device, clock):
    timing = timed(device.work, clock=clock, limit=Limit(least=4))
    assert timing.seconds.median == pytest.approx(1e-3)
    assert timing.wall_s.median < 1e-3
    assert set(timing.data()) == {"seconds", "cpu_s", "host_s"}


def test_a_queue_is_given_a_head_start(device):
    timed(device.work, clock=QueuedClock(), limit=Limit(least=4))
    assert device.spins
    assert min(device.spins) >= 50e-6 * 2e9


@pytest.mark.parametrize(
    "bench",
    [
        *bench_launch.plan(GPU),
        *[one for one in bench_copy.plan(GPU) if one.shape["bytes"] < 2**21],
        *[bench_matmul._bench(dtype, (32, 16, 8), layout) for dtype in ("tf32", "fp32", "bf16", "fp16") for layout in ("nt", "tn")],
        *[bench_convolution._bench("tf32", (1, 4, 4, 1, 8, 3, 1), direction) for direction in bench_convolution.DIRECTIONS],
        *[bench_optimizer._bench(name, 64, 4, GPU) for name in bench_optimizer.PASSES],
    ],
    ids=lambda bench: bench.key,
)
def test_benches_of_a_gpu_run(device, bench):
    """Numbers mean nothing here: the device's clock moves only by what counts it."""
    lab = Lab(device="cuda")
    lab.limit = Limit(most_s=0.0)
    assert measured_in(lab, bench)["seconds"]["repeats"] >= 1
    assert torch.get_float32_matmul_precision() == "highest"
    assert device.now_ms >= 0


@pytest.mark.parametrize(("what", "dtype", "sizes"), [("idle", "fp32", ()), ("matmul", "bf16", (32, 32, 32)), ("memory", "fp32", (1024,))])
def test_power_is_joules_over_the_window(device, monkeypatch, what, dtype, sizes):
    """A counter that says 3 J from one reading to the next."""
    totals = iter(range(0, 10**9, 3000))
    library = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda _: next(totals),
    )
    monkeypatch.setitem(sys.modules, "pynvml", library)
    for name in ("WINDOW_S", "WARM_S", "REST_S"):
        monkeypatch.setattr(bench_power, name, 0.02)
    monkeypatch.setattr(bench_power, "open_meter", _short(bench_power.open_meter))
    found = measured_in(Lab(device="cuda"), Bench(name="power", dtype=dtype, shape={"what": what, "sizes": list(sizes)}))
    assert found["energy"]["source"] == "nvml-energy"
    assert found["watts"] == pytest.approx(3.0 / found["energy"]["window_s"])
    assert found["energy"]["joules_per_step"] * found["calls"] == pytest.approx(3.0)
    assert device.now_ms == 0


def _short(open_meter):
    """Let windows be shorter than counters can resolve: this one counts exactly."""

    def opened(device):
        meter = open_meter(device)
        meter.least_window_s = 0.0
        return meter

    return opened
