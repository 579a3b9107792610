"""What a calibration writes is what it found: tables price what was measured, and profiles loaded again predict alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from foretrain.cli import run
from foretrain.hardware.load import load_cluster
from foretrain.sim.cost import Pricer
from foretrain.software.load import load_software
from foretrain.validate.calibrate import Written, calibrate
from foretrain.validate.calibration import kernels, network
from foretrain.validate.calibration.bases import Bases
from foretrain.validate.calibration.machine import Machine
from foretrain.validate.calibration.stages import calibrated
from foretrain.validate.predict_case import predict
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
    micro,
    power_records,
    products,
    stamp,
    streams,
    timed,
)

BASES = {"cuda": Bases(cluster="dgx-h100", software="pytorch-loop"), "cpu": Bases(cluster="cpu-cores", software="pytorch-cpu")}


def odd(records: Sequence[Record]) -> list[Record]:
    """Return records whose seconds no curve explains: each is off by up to a half, as a seed draws it."""
    factors = np.exp(np.random.default_rng(3).uniform(-0.4, 0.4, len(records)))
    return [timed(record, record.data["seconds"]["median"] * float(factor)) for record, factor in zip(records, factors, strict=True)]


def measured(device: str) -> list[Record]:
    """Return measurements of a machine of every kind."""
    base, dtype = (GPU, "bf16") if device == "cuda" else (CPU, "fp32")
    shapes = [*products(dtype), *attentions(dtype), *convolutions(dtype, ["forward", "weight"])]
    ranks = (2, 4, 8) if device == "cuda" else (2,)
    loads = power_records(base) if device == "cuda" else []
    exact = [*kernel_records(base, streams(dtype)), *launch_records(base)]
    overlap = micro("overlap", dtype, 1e-3, {"what": "all_reduce"}, loss=0.17)
    return [stamp(device), *odd([*kernel_records(base, shapes), *message_records(base, ranks)]), *exact, *loads, overlap]


@pytest.fixture(scope="module", params=["cuda", "cpu"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Written]:
    """Return a device and what a calibration of it left."""
    device = str(request.param)
    return device, calibrate(measured(device), BASES[device], tmp_path_factory.mktemp(device))


def loaded(one: Written) -> Machine:
    """Return the machine of the files."""
    return Machine(cluster=load_cluster(str(one.cluster)), software=load_software(str(one.software)))


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_what_was_measured_is_what_is_priced(device: str) -> None:
    """However odd: products, convolutions, attention and messages to a few per mille, each of them."""
    records = measured(device)
    machine = calibrated(GPU if device == "cuda" else CPU, records).machine
    points = [point for point in kernels.points_of(records) if point.bench != "stream"]
    host = machine.software.host
    above_floor = [point for point in points if point.seconds > 2 * (machine.accelerator.kernel_floor_s + host.launch_gap_s)]
    assert len(above_floor) > 0.8 * len(points)
    # A shape that repeats another in all but an octave has a little of its neighbour's correction.
    assert np.abs(kernels.errors_of(machine, above_floor)).max() < 0.02
    assert np.abs(network.errors_of(machine, network.messages_of(records))).max() < 0.02


def test_shapes_alike_have_the_middle_of_their_seconds() -> None:
    """Layouts of one product are one row."""
    shape = {"batch": 1, "m": 4096, "n": 4096, "k": 4096}
    layouts = {"nn": 2e-4, "nt": 3e-4, "tn": 9e-4}
    records = [micro("matmul", "bf16", seconds, {**shape, "layout": layout}) for layout, seconds in layouts.items()]
    machine = calibrated(GPU, records).machine
    assert machine.accelerator.measured is not None
    (row,) = machine.accelerator.measured.products["bf16"]
    assert row[-1] == pytest.approx(3e-4 - machine.software.host.launch_gap_s, rel=1e-3)


def test_measured_products_are_priced_at_the_pace_of_another_software() -> None:
    """The table is the accelerator's; what a software adds or takes stays on top of it."""
    machine = calibrated(GPU, measured("cuda")).machine
    slower = machine.set({"software.matmul_scale": 0.5})
    points = [point for point in kernels.points_of(measured("cuda")) if point.bench == "matmul"]
    for point in points[:3]:
        math_s = [Pricer(one.accelerator, one.software, "bf16").work(point.kernel).math_s for one in (machine, slower)]
        assert math_s[1] == pytest.approx(2 * math_s[0], rel=1e-6)


def test_profiles_loaded_again_predict_alike(written: tuple[str, Written]) -> None:
    """Kernels, messages and a step, to a millionth."""
    device, one = written
    found, again = one.found.machine, loaded(one)
    points = kernels.points_of(measured(device))
    assert kernels.priced_s(again, points) == pytest.approx(kernels.priced_s(found, points), rel=2e-6)
    assert again.accelerator.measured == found.accelerator.measured
    step = case("mlp:width=256,depth=3,classes=64", "dp=2")
    ours, theirs = (predict(step, at.cluster, at.software) for at in (found, again))
    assert theirs.step_s == pytest.approx(ours.step_s, rel=1e-6)
    assert theirs.energy_j == pytest.approx(ours.energy_j, rel=1e-5)
    assert theirs.peak_memory_bytes == pytest.approx(ours.peak_memory_bytes, rel=1e-6)


def test_profiles_name_where_they_come_from(written: tuple[str, Written]) -> None:
    """Parent, date, device, versions and residuals, in both files, and each figure names that source."""
    device, one = written
    for path, parent in ((one.cluster, BASES[device].cluster), (one.software, BASES[device].software)):
        data: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert parent in (data.get("base"), data.get("node", {}).get("base"))
        source = data["sources"]["calibration"]
        assert (source["kind"], source["date"], source["versions"]) == ("fit", "2024-05-06", {"torch": "2.5.0"})
        assert source["device"] == ("NVIDIA H100 80GB HBM3" if device == "cuda" else "some processor")
        assert {"matmul", "attention", "stream", "collective"} <= set(source["residuals"])
        assert all("held out" in text or "fitted" in text for text in source["residuals"].values())


def test_profiles_can_be_shown_and_simulated(written: tuple[str, Written], capsys: pytest.CaptureFixture[str]) -> None:
    """`foretrain show` prints both, and `simulate` predicts with them."""
    _, one = written
    assert run(["show", str(one.cluster)]) == 0
    assert run(["show", str(one.software)]) == 0
    assert "calibrat" in capsys.readouterr().out
    job = ["--model", "gpt2", "--dp", "2", "--global-batch", "2", "--seq-len", "128", "--precision", "fp32"]
    assert run(["simulate", "--cluster", str(one.cluster), "--software", str(one.software), *job]) == 0
    assert "step time" in capsys.readouterr().out


def test_a_calibrated_profile_is_a_base_itself(written: tuple[str, Written], tmp_path: Path) -> None:
    """Measured again, it is changed no further."""
    device, one = written
    again = calibrate(measured(device), Bases(cluster=str(one.cluster), software=str(one.software)), tmp_path)
    points = kernels.points_of(measured(device))
    first, second = (kernels.priced_s(at, points) for at in (one.found.machine, loaded(again)))
    assert np.abs(np.log(second / first)).max() < 0.02


def test_the_report_says_what_the_files_say(written: tuple[str, Written]) -> None:
    """Text, data and picture lie beside the profiles; the text has every stage and every number left at the base."""
    _, one = written
    text = one.report.read_text(encoding="utf-8")
    for stage in one.found.stages:
        assert f"| {stage.name} | {len(stage.keys)} |" in text
    for path in one.found.left:
        assert f"`{path}`" in text
    assert one.report.with_suffix(".json").exists()
    assert one.report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
