"""Profiles of recorded steps: closed forms on a trace written by hand, and torch's own traces of a network whose ops are known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foretrain.errors import UsageError
from foretrain.sim.plan import Plan
from foretrain.validate.comparing.measured import measured_pieces
from foretrain.validate.comparing.profile import StepProfile, measured_profile
from foretrain.validate.comparing.steps import choose
from foretrain.validate.comparing.trace_file import read_trace
from tests.validate.comparing.jobs import predicted
from tests.validate.comparing.traces import GEMM, NCCL, device_step, kernel, launch, op, written

US = 1e-6
JOB = predicted(Plan(dp=2))


def profile(path: Path, **plan: int) -> StepProfile:
    """Return the profile of the chosen step of a trace."""
    trace = read_trace(path)
    return measured_profile(trace, choose(trace).step, predicted(Plan(**plan)))


def test_a_device_step_written_by_hand(tmp_path: Path) -> None:
    """Each figure of the trace's description comes out: 170 µs from the first op of the host to the last kernel."""
    found = profile(written(tmp_path, *device_step()), dp=2)
    assert found.step_s == pytest.approx(170 * US)
    seconds = {name: value / US for name, value in found.breakdown.items() if value}
    # Before the first kernel 10 µs and before gelu 10 µs the host; before the second product 5 µs of the device itself.
    assert seconds == pytest.approx({"math": 70, "memory": 20, "data_parallel": 40, "optimizer": 15, "overhead": 5, "host": 20})
    assert found.hidden == pytest.approx({"data_parallel": 20 * US})
    assert {name: (round(share.seconds / US), share.launches) for name, share in found.groups.items()} == {
        "matmul": (70, 2), "all_reduce": (60, 1), "pointwise": (20, 1), "optimizer": (15, 1),
    }  # fmt: skip
    assert {name: value / US for name, value in found.phases.items()} == pytest.approx(
        {"forward": 50, "backward": 40, "communication": 60, "optimizer": 15}
    )
    assert found.groups["all_reduce"].size_bytes == 4000
    assert found.launches == 5
    assert not found.host_bound


def test_a_host_that_cannot_keep_ahead(tmp_path: Path) -> None:
    """Kernels of 2 µs launched every 10 µs: the device waits for its host for most of the step."""
    events = [one for n in range(10) for one in (op("aten::gelu", 10 * n, 3), launch(10 * n + 1, n), kernel(GEMM, 10 * n + 4, 2, n))]
    found = profile(written(tmp_path, *events))
    assert found.host_bound
    assert found.host_share == pytest.approx((96 - 20) / 96)


def test_copies_to_the_device_are_the_hosts(tmp_path: Path) -> None:
    """Inputs that come over PCIe are what the simulator counts as waiting for the host; a copy within the device is memory-bound."""
    copies = [
        {**kernel("Memcpy HtoD (Pageable -> Device)", 0, 5, 1), "cat": "gpu_memcpy"},
        {**kernel("Memcpy DtoD (Device -> Device)", 5, 3, 2), "cat": "gpu_memcpy"},
    ]
    found = profile(written(tmp_path, *copies))
    assert found.breakdown["host"] == pytest.approx(5 * US)
    assert found.breakdown["memory"] == pytest.approx(3 * US)


def test_an_op_of_another_library_is_known_by_its_kernel(tmp_path: Path) -> None:
    """A GEMM that an unknown op launches is a product all the same, and kernels nobody recorded a launch of go by their names."""
    events = [op("mine::fast", 0, 5), launch(1, 1), kernel(GEMM, 2, 8, 1), kernel("flash_fwd_kernel", 10, 8)]
    assert set(profile(written(tmp_path, *events)).groups) == {"matmul", "attention"}


RECORD = """
import sys, torch
from torch.profiler import ProfilerActivity, profile, schedule

torch.set_num_threads(1)
net = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 10))
optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, foreach=False)
with profile(activities=[ProfilerActivity.CPU], schedule=schedule(wait=0, warmup=1, active=2, repeat=1)) as profiler:
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(net(torch.randn(8, 32)), torch.zeros(8, dtype=torch.int64))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        profiler.step()
profiler.export_chrome_trace(sys.argv[1])
"""


WORDS = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3) | st.lists(st.integers(0, 3), max_size=2)
ANY_EVENT = st.fixed_dictionaries(
    {"ph": st.sampled_from("XMiCsf"), "ts": st.floats(0, 100)},
    optional={
        "cat": st.sampled_from(["cpu_op", "kernel", "user_annotation", "cuda_runtime", "gpu_memcpy", "ac2g"]),
        "name": st.sampled_from(["aten::mm", GEMM, NCCL, "ProfilerStep#1", "Optimizer.step#S.step", "gloo:all_reduce", "cudaLaunchKernel"]),
        "pid": WORDS, "tid": WORDS, "dur": st.floats(0, 50),
        "args": WORDS | st.dictionaries(st.sampled_from(["correlation", "In msg nelems", "Collective name", "dtype", "Group size"]), WORDS),
    },
)  # fmt: skip


@settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ANY_EVENT, max_size=12), st.dictionaries(st.sampled_from(["distributedInfo", "deviceProperties"]), WORDS))
def test_whatever_is_in_a_trace_its_classes_sum_to_the_step(tmp_path: Path, events: list[dict[str, Any]], head: dict[str, Any]) -> None:
    """It is refused, or every instant of the step is in one class; there is no third."""
    try:
        trace = read_trace(written(tmp_path, *events, **head))
        step = choose(trace).step
    except UsageError:
        return
    found = measured_profile(trace, step, JOB)
    assert sum(found.breakdown.values()) == pytest.approx(found.step_s)
    assert all(seconds >= -1e-12 for seconds in (*found.breakdown.values(), *found.hidden.values()))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return torch's own trace of two steps of Linear, GELU, LayerNorm, Linear under SGD with momentum, made in a process of its own."""
    pytest.importorskip("torch")
    path = tmp_path_factory.mktemp("recorded") / "mlp.json"
    subprocess.run([sys.executable, "-c", RECORD, str(path)], check=True, capture_output=True, timeout=120)
    return path


def test_torchs_own_trace_has_the_ops_of_the_network(recorded: Path) -> None:
    """Two linear layers: 2 products forward, and backward 2 for the weights and 1 for the data, as the first needs none."""
    trace = read_trace(recorded)
    chosen = choose(trace)
    assert chosen.steps == 2
    found = profile(recorded)
    assert {name: found.groups[name].launches for name in ("matmul", "norm", "loss", "reduction")} == {
        "matmul": 5, "norm": 2, "loss": 4, "reduction": 2,
    }  # fmt: skip
    assert found.names["aten::addmm"].launches == 2
    assert found.names["aten::mm"].launches == 3
    # Momentum of 6 tensors: mul_ and add_ of the buffer, add_ of the weight.
    assert found.groups["optimizer"].launches == 6 * 3
    assert sum(found.breakdown.values()) == pytest.approx(found.step_s)
    assert found.step_s == pytest.approx(chosen.step.seconds)
    assert found.breakdown["math"] == pytest.approx(found.groups["matmul"].seconds)


def test_ops_of_a_host_never_run_twice_at_once(recorded: Path) -> None:
    """One thread: what the ops took themselves, together with the host's own part, is the step."""
    trace = read_trace(recorded)
    step = choose(trace).step
    pieces = measured_pieces(trace, step, Plan())
    busy = sum(one.end_s - one.start_s for one in pieces)
    found = profile(recorded)
    assert busy <= step.seconds * (1 + 1e-9)
    assert busy == pytest.approx(sum(s for name, s in found.breakdown.items() if name != "host") + sum(
        one.end_s - one.start_s for one in pieces if one.kind == "host"
    ))  # fmt: skip
