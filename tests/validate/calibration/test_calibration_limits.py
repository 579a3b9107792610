"""Where measurements are few, one-sided, beyond what is physical, or of things that were skipped."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foretrain.errors import OutputError, UsageError
from foretrain.validate.calibrate import calibrate, finite, pace, ranks_of
from foretrain.validate.calibration.bases import Bases, bases_of, machine_of
from foretrain.validate.calibration.robust import Knob, fit
from foretrain.validate.calibration.stages import calibrated
from foretrain.validate.records import Record
from tests.validate.calibration.synthetic import GPU, kernel_records, micro, power_records, products, stamp, streams, timed

PEAK = "accelerator.matmul.sustained.bf16"
BASES = Bases(cluster="dgx-h100", software="pytorch-loop")


def skipped(record: Record) -> Record:
    """Return a microbenchmark that did not fit."""
    data = {name: value for name, value in record.data.items() if name != "seconds"}
    return replace(record, data={**data, "skipped": "it needs 9 GB of memory, and 1 GB are free"})


def times(records: list[Record], factor: float) -> list[Record]:
    """Return records that took so many times as long."""
    return [timed(record, record.data["seconds"]["median"] * factor) for record in records]


def test_a_number_at_its_bound_is_flagged() -> None:
    """Products above the peak: no rate of sustained over peak explains them, and that is said."""
    found = calibrated(GPU, times(kernel_records(GPU, products("bf16")), 0.3))
    told = {one.path: one for stage in found.stages for one in stage.fitted}
    assert told[PEAK].at_bound
    assert told[PEAK].value == pytest.approx(1.15, rel=1e-3)
    assert not any(one.at_bound for path, one in told.items() if not one.identified)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_measurements_are_fitted_and_have_no_held_out_error(count: int) -> None:
    """One product is one number at most; of the others nothing is made up."""
    found = calibrated(GPU, times(kernel_records(GPU, products("bf16")), 1.2)[:count])
    assert np.isnan(found.stages[0].held_out).all()
    assert np.abs(found.stages[0].after).max() < 0.01
    assert found.machine.number(PEAK) == pytest.approx(GPU.number(PEAK) / 1.2, rel=0.1)


def test_a_fold_that_is_all_of_a_kind_is_held_out_all_the_same() -> None:
    """Every fourth record is the only one of its dtype, direction or size: its fold is predicted by the curves alone."""
    bf16, fp16 = kernel_records(GPU, products("bf16")), kernel_records(GPU, products("fp16"))
    mixed = [one for index in range(4) for one in (*bf16[3 * index : 3 * index + 3], fp16[index])]
    stage = calibrated(GPU, mixed).stages[0]
    assert len(stage.held_out) == 16
    assert np.isfinite(stage.held_out).all()
    only_layer_norm = kernel_records(GPU, streams("bf16", ["layer_norm"]))
    one_size = kernel_records(GPU, streams("bf16", ["add"]))[:1]
    assert calibrated(GPU, [*only_layer_norm, *one_size]).machine.accelerator.measured.streams == ()  # type: ignore[union-attr]


def test_classes_without_elementwise_kernels_change_nothing() -> None:
    """How much slower a norm is cannot be said without what it is compared with."""
    found = calibrated(GPU, kernel_records(GPU, streams("bf16", ["layer_norm"])))
    assert found.stages == ()
    assert found.machine.number("accelerator.memory.efficiency") == GPU.number("accelerator.memory.efficiency")


def test_what_was_skipped_is_no_measurement() -> None:
    """A file of nothing but skipped benches leaves the base."""
    records = [stamp("cuda"), *map(skipped, kernel_records(GPU, products("bf16"))), *map(skipped, power_records(GPU)[:1])]
    records += [skipped(micro("collective", "fp32", 1.0, {"op": "all_reduce", "bytes": 4096, "ranks": 2}))]
    found = calibrated(GPU, [one if "watts" not in one.data else _without_watts(one) for one in records])
    assert found.machine == GPU
    assert found.stages == ()
    assert pace(found) is None
    assert found.notes == ("no power was measured: energies are those of the base",)


def _without_watts(record: Record) -> Record:
    return replace(record, data={name: value for name, value in record.data.items() if name != "watts"})


def test_a_step_that_failed_is_no_measurement() -> None:
    """A trainer records why a case failed in the place of its time."""
    failed = Record(kind="step", key="failed", data={"case": {"name": "failed"}, "skipped": "out of memory"})
    assert calibrated(GPU, [failed]).stages == ()


def test_benches_that_a_calibration_does_not_know_are_left_alone() -> None:
    """Records of a later version."""
    found = calibrated(GPU, [micro("host_copy", "fp32", 1e-3, {"bytes": 1}), micro("later", "fp32", 1e-3, {"what": "ever"})])
    assert found.machine == GPU


def test_nothing_to_calibrate_from_is_refused(tmp_path: Path) -> None:
    """A stamp alone is no measurement."""
    with pytest.raises(UsageError, match="nothing to calibrate from"):
        calibrate([stamp("cuda")], BASES, tmp_path)


def test_a_power_limit_that_was_reached_is_no_energy() -> None:
    """A load at the limit says that it would draw more, not how much; below the limit, a prediction beyond it is an error."""
    path = "accelerator.power.math_j_per_flop.bf16"
    limit_w = GPU.accelerator.power.limit_w
    held = [_at(record, limit_w) for record in power_records(GPU.set({path: 4 * GPU.number(path)}))]
    assert calibrated(GPU, held).machine.number(path) >= 0.9 * GPU.number(path)
    truth = GPU.set({path: 0.5 * GPU.number(path)})
    drawn = power_records(truth)
    assert max(record.data["watts"] for record in drawn) < limit_w
    assert calibrated(GPU.set({path: 2 * GPU.number(path)}), drawn).machine.number(path) == pytest.approx(truth.number(path), rel=0.1)


def _at(record: Record, limit_w: float) -> Record:
    return replace(record, data={**record.data, "watts": min(record.data["watts"], limit_w)})


def test_an_unknown_device_needs_a_cluster() -> None:
    """The message names the option, and what is near."""
    with pytest.raises(UsageError, match="--cluster"):
        bases_of({"device": "cuda", "device_name": "Fictional Z9000"})
    assert bases_of({"device": "cuda", "device_name": "Fictional Z9000"}, "dgx-h100").cluster == "dgx-h100"
    assert bases_of({"device": "cuda", "device_name": "NVIDIA H100 80GB HBM3"}).software == "pytorch-loop"
    assert bases_of({"device": "cpu", "device_name": "any"}) == Bases(cluster="cpu-cores", software="pytorch-cpu")


def test_a_machine_has_as_many_accelerators_as_were_measured_together() -> None:
    """Of collectives and of steps."""
    message = micro("collective", "fp32", 1e-3, {"op": "all_reduce", "bytes": 4096, "ranks": 4})
    assert ranks_of([message, Record(kind="step", key="s", data={"world_size": 6})], "cpu") == 6
    assert (ranks_of([], "cpu"), ranks_of([], "cuda")) == (2, 1)
    assert machine_of(BASES, 6).cluster.node.accelerators == 6


def test_numbers_go_by_their_paths() -> None:
    """Reading what was set, and no other number moves."""
    paths = (PEAK, "software.host.launch_s", "scale_up.efficiency", "accelerator.attention.flash2.forward", "scale_out.efficiency")
    for path in paths:
        changed = GPU.set({path: GPU.number(path) * 1.5})
        assert changed.number(path) == pytest.approx(GPU.number(path) * 1.5)
        assert changed.set({path: GPU.number(path)}) == GPU
    assert not GPU.has("accelerator.no.such")
    with pytest.raises(UsageError, match="accelerator, scale_up"):
        GPU.part("gpu")


def test_a_number_that_the_machine_lacks_and_one_that_nothing_moves() -> None:
    """The first is left out, the second is not identified and stays."""
    knobs = (Knob(path="accelerator.no.such", low=0.1, high=1.0), Knob(path="software.host.step_s", low=1e-6, high=1.0))
    machine, became = fit(GPU, knobs, lambda _: np.array([0.1, 0.2]))
    assert machine == GPU
    assert [(one.path, one.identified, one.sensitivity) for one in became] == [("software.host.step_s", False, 0.0)]
    assert fit(GPU, knobs[:1], lambda _: np.array([0.1])) == (GPU, ())


def test_a_measurement_that_no_machine_can_predict_does_not_stop_a_fit() -> None:
    """Beside nine that tell a number, one without an error changes nothing."""

    def errors(machine: object) -> np.ndarray:
        off = np.log(machine.number(PEAK) / 0.7)  # type: ignore[attr-defined]
        return np.array([*[off] * 9, np.nan])

    machine, _ = fit(GPU, (Knob(path=PEAK, low=0.02, high=1.15, width=0.4),), errors)
    assert machine.number(PEAK) == pytest.approx(0.7, rel=1e-3)


def test_missing_scipy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it."""
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(UsageError, match=r"foretrain\[calibrate\]"):
        calibrated(GPU, kernel_records(GPU, products("bf16")))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(OutputError, match="--out"):
        calibrate([stamp("cuda"), *kernel_records(GPU, products("bf16"))], BASES, tmp_path / "taken")


def test_what_is_no_number_is_null_in_json() -> None:
    """JSON has no word for it."""
    assert finite({"a": [1.0, float("nan")], "b": (None, "x")}) == {"a": [1.0, None], "b": [None, "x"]}
