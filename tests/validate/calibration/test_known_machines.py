"""Measurements of a machine that is known: its numbers come back where they are told, and stay the base's where they are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.stages import Calibrated, calibrated
from foretrain.validate.calibration.steps import Step
from foretrain.validate.records import Record
from tests.validate.calibration.synthetic import (
    CPU,
    GPU,
    attentions,
    case,
    convolutions,
    kernel_records,
    launch_records,
    message_records,
    power_records,
    products,
    step_record,
    streams,
    timed,
)

GPU_CHANGES = {
    "accelerator.memory.efficiency": 0.88, "accelerator.matmul.sustained.bf16": 1.3, "accelerator.matmul.depth_fill": 0.6,
    "accelerator.convolution.matrix.forward": 0.7, "accelerator.attention.flash2.forward": 1.5,
    "accelerator.attention.flash2.backward": 1.4,
    "scale_up.efficiency": 0.8, "scale_up.base_latency_s": 1.6, "scale_up.step_latency_s": 0.7, "accelerator.power.idle_w": 1.3,
    "accelerator.power.math_j_per_flop.bf16": 0.7, "accelerator.power.memory_j_per_byte": 0.85, "software.host.launch_s": 1.4,
    "software.host.launch_gap_s": 0.6, "accelerator.kernel_floor_s": 1.2,
}  # fmt: skip
CPU_CHANGES = {
    "accelerator.memory.efficiency": 0.75, "accelerator.matmul.sustained.fp32": 0.8, "accelerator.attention.flash2.forward": 0.6,
    "scale_up.efficiency": 0.7, "software.host.launch_s": 1.5,
}  # fmt: skip
PLAIN = ("add", "mul", "relu", "layer_norm")
OUTLIER = 3.0
ENERGIES = ("accelerator.power.math_j_per_flop.bf16", "accelerator.power.memory_j_per_byte")


def changed(base: Machine, factors: Mapping[str, float]) -> Machine:
    """Return a machine with some numbers times a factor."""
    return base.set({path: base.number(path) * factor for path, factor in factors.items()})


def gpu_records() -> list[Record]:
    """Return what measuring the changed GPU machine gives."""
    truth = changed(GPU, GPU_CHANGES)
    shapes = [*products("bf16"), *streams("bf16", PLAIN), *streams("fp32", PLAIN), *attentions("bf16"), *convolutions("bf16", ["forward"])]
    return [*kernel_records(truth, shapes), *launch_records(truth), *message_records(truth, (2, 4, 8)), *power_records(truth)]


def cpu_records() -> list[Record]:
    """Return what measuring the changed processor gives."""
    truth = changed(CPU, CPU_CHANGES)
    shapes = [*products("fp32"), *streams("fp32", PLAIN), *attentions("fp32")]
    return [*kernel_records(truth, shapes), *launch_records(truth), *message_records(truth, (2,))]


def noisy(records: Sequence[Record], *, outliers: int) -> list[Record]:
    """Return records whose seconds are off by 2 % and, of a few, by a factor; the order that decides is that of a seed."""
    draws = np.random.default_rng(7)
    kernels = [index for index, one in enumerate(records) if one.data["bench"] in ("matmul", "stream", "attention")]
    factors = np.exp(draws.normal(0.0, 0.02, len(records)))
    factors[draws.choice(kernels, outliers, replace=False)] *= OUTLIER
    return [
        record if record.data["bench"] == "power" else timed(record, record.data["seconds"]["median"] * float(factor))
        for record, factor in zip(records, factors, strict=True)
    ]


def identified(found: Calibrated) -> set[str]:
    """Return the numbers that a calibration says it knows."""
    return {one.path for stage in found.stages for one in stage.fitted if one.identified}


@pytest.fixture(scope="module")
def gpu() -> Calibrated:
    """Return the calibration of the GPU machine, from exact measurements."""
    return calibrated(GPU, gpu_records())


@pytest.mark.parametrize("path", GPU_CHANGES)
def test_a_number_of_a_known_gpu_comes_back(gpu: Calibrated, path: str) -> None:
    """To 2 %, from a base that is 12 to 60 % off."""
    assert gpu.machine.number(path) == pytest.approx(GPU.number(path) * GPU_CHANGES[path], rel=0.02)


@pytest.mark.parametrize("path", CPU_CHANGES)
def test_a_number_of_a_known_processor_comes_back(path: str) -> None:
    """Its host is its own device, so that each measurement has both in it."""
    found = calibrated(CPU, cpu_records())
    assert found.machine.number(path) == pytest.approx(CPU.number(path) * CPU_CHANGES[path], rel=0.02)


def test_what_nothing_tells_is_named_and_stays_what_the_base_says(gpu: Calibrated) -> None:
    """Convolutions were measured forward only, on the matrix units only."""
    assert set(gpu.left) >= {"accelerator.convolution.matrix.data", "accelerator.convolution.vector.weight"}
    assert not identified(gpu) & set(gpu.left)
    for path in gpu.left:
        assert gpu.machine.number(path) == GPU.number(path)


def test_every_stage_fits_what_it_saw_and_predicts_what_was_held_out(gpu: Calibrated) -> None:
    """Without noise, the tables and curves are exact on what they saw, and the curves alone nearly so on the rest."""
    assert [stage.name for stage in gpu.stages] == ["stream", "matmul", "convolution", "attention", "collective", "power"]
    for stage in gpu.stages:
        if stage.name != "stream":  # a curve through medians of like sizes
            assert np.abs(stage.after).max() < 0.01
        assert np.median(np.abs(stage.after)) < 0.25 * np.median(np.abs(stage.before))
        if stage.name != "power":
            assert np.median(np.abs(stage.held_out)) < 0.02


@pytest.mark.parametrize("outliers", [0, 6])
def test_noise_and_gross_outliers_move_little(outliers: int) -> None:
    """Measurements off by 2 %, and some by a factor of three, leave rates within 5 %."""
    found = calibrated(GPU, noisy(gpu_records(), outliers=outliers))
    for path in set(GPU_CHANGES) - {"accelerator.matmul.depth_fill", "software.host.launch_gap_s", *ENERGIES}:
        assert found.machine.number(path) == pytest.approx(GPU.number(path) * GPU_CHANGES[path], rel=0.05), path
    told = {one.path: one for stage in found.stages for one in stage.fitted}
    for path in ("accelerator.matmul.depth_fill", *ENERGIES):  # told less, and that is said
        off = np.log(found.machine.number(path) / (GPU.number(path) * GPU_CHANGES[path]))
        assert abs(off) < 0.05 + told[path].uncertainty, path


def test_steps_tell_the_host_what_microbenchmarks_did_not() -> None:
    """Short steps of small products wait for the host; its time per op comes back from four of them."""
    truth = changed(GPU, {"software.host.launch_s": 1.5})
    cases = [case(f"mlp:width={width},depth={depth},classes=64", batch=64, precision="bf16")
             for width, depth in ((64, 4), (128, 8), (256, 16), (4096, 4))]  # fmt: skip
    records = [replace(step_record(truth, one), key=f"{index}") for index, one in enumerate(cases)]
    found = calibrated(GPU, records)
    assert found.machine.number("software.host.launch_s") == pytest.approx(truth.number("software.host.launch_s"), rel=0.02)
    assert np.abs(found.stages[-1].after).max() < 0.01
    assert np.isnan(found.stages[-1].held_out).all()  # too few to hold some out


@dataclass(frozen=True)
class Closed:
    """A step in closed form, which stands for what the simulator says of one."""

    ops: float
    products_s: float
    streams_s: float
    calls: float

    def __call__(self, machine: Machine) -> Any:
        """Return a prediction: time of the host, of kernels and of calls of collectives, one after the other."""
        software = machine.software
        device_s = self.products_s / software.matmul_scale + self.streams_s / software.stream_scale
        host_s = self.ops * software.host.launch_s + self.calls * software.host.collective_s + software.host.step_s
        return SimpleNamespace(step_s=device_s + host_s)


def closed_steps(truth: Machine) -> list[Step]:
    """Return 24 steps that a seed draws, as long as a machine takes."""
    draws, found = np.random.default_rng(5), []
    for index in range(24):
        ops, products_s, streams_s, calls = draws.uniform(0.0, [2000.0, 0.05, 0.03, 100.0])
        one = Closed(ops, products_s, streams_s, calls)
        found.append(Step(key=str(index), seconds=one(truth).step_s, predict=one, group=""))
    return found


def test_many_steps_are_held_out_by_folds() -> None:
    """With eight steps and more, a quarter of them is predicted from the rest; what steps cannot tell is left."""
    changes = {"software.host.launch_s": 2.0, "software.host.collective_s": 1.5, "software.stream_scale": 0.8}
    found = calibrated(CPU, [], closed_steps(changed(CPU, changes)))
    stage = found.stages[-1]
    assert np.median(np.abs(stage.before)) > 0.05
    assert np.abs(stage.after).max() < 0.01
    assert np.median(np.abs(stage.held_out)) < 0.01
    for path, factor in changes.items():
        assert found.machine.number(path) == pytest.approx(CPU.number(path) * factor, rel=0.05), path
    assert {"accelerator.overlap_loss", "software.collective_scale", "software.host.microbatch_s"} <= set(found.left)


def test_seven_steps_move_little_and_are_not_held_out() -> None:
    """Too few for folds: there is no held-out error rather than a wrong one."""
    steps = closed_steps(changed(CPU, {"software.host.launch_s": 2.0}))[:7]
    found = calibrated(CPU, [], steps)
    assert np.isnan(found.stages[-1].held_out).all()
    assert np.abs(found.stages[-1].after).max() < 0.02
