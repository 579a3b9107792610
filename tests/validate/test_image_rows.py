"""From rows of image-model runs to jobs; what memory format and precision do to a prediction; accuracy on a sample."""

from __future__ import annotations

import statistics
from importlib.util import find_spec

import pytest

from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.sim.simulate import simulate
from foretrain.software.load import load_software
from foretrain.validate import image_rows
from foretrain.validate.image_rows import job_key, job_of, labels_of, measured
from foretrain.validate.llm_rows import Job, Library, Refusal
from foretrain.validate.runs_file import bundled_runs

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="architectures of timm are traced")

RUNS = bundled_runs("image_model_runs.csv")
ROWS = {(line.cells["model"], line.cells["memory_format"]): line.cells for line in RUNS.lines}
SAMPLE = ("resnet50d", "vgg16", "mobilenetv2_100", "vit_small_patch16_224", "resnext50_32x4d", "regnety_032", "densenet169")


def one_node(name: str) -> Cluster:
    return load_cluster(f"{name}:1")


LIBRARY = Library(cluster=one_node, software=load_software)


def job(model: str, memory_format: str = "nchw", **changes: str) -> Job:
    found = job_of({**ROWS[model, memory_format], **changes}, LIBRARY)
    assert isinstance(found, Job), found
    return found


def step_s(one: Job) -> float:
    return simulate(one.model, one.cluster, one.plan, one.recipe, software=one.software).step_s


def test_the_bundled_file_is_recognised_and_sound() -> None:
    """793 rows, recognised by their header; no two of them ask the same."""
    assert (RUNS.kind, len(RUNS.lines)) == ("image_model_runs", 793)
    assert not any(line.fault for line in RUNS.lines)
    assert len({job_key(line.cells) for line in RUNS.lines}) == 793


def test_a_row_is_one_accelerator_in_mixed_precision_without_input() -> None:
    """Batch, image size and format of the row."""
    found = job("resnet50d", "nhwc")
    row = ROWS["resnet50d", "nhwc"]
    assert (found.plan.ranks, found.plan.micro_batch, found.model.image_size) == (1, int(row["batch"]), int(row["image_size"]))
    assert (found.recipe.precision, found.software.key, found.software.channels_last) == ("fp16", "pytorch-1.12", True)
    assert found.software.host.step_s == 0.0
    assert labels_of(row).layout == "nhwc"
    assert measured(row).step_time_s == pytest.approx(float(row["step_time_ms"]) / 1e3)


@pytest.mark.parametrize("model", ["resnet50d", "vgg16"])
def test_channels_last_is_quicker_for_convolutions_as_measured(model: str) -> None:
    """Matrix units take channels last; first, every convolution is transposed."""
    last, first = (ROWS[model, memory_format] for memory_format in ("nhwc", "nchw"))
    assert last["batch"] == first["batch"]
    assert float(last["step_time_ms"]) < float(first["step_time_ms"])
    assert step_s(job(model, "nhwc")) < step_s(job(model, "nchw"))


def test_the_memory_format_leaves_a_network_without_convolutions_alone() -> None:
    """A vision transformer has one, that cuts the image into patches: within 3 %."""
    assert step_s(job("vit_small_patch16_224", "nhwc")) == pytest.approx(step_s(job("vit_small_patch16_224", "nchw")), rel=0.03)


def test_single_precision_is_slower() -> None:
    """Than mixed, at the same batch."""
    assert step_s(job("resnet50d", precision="fp32")) > 1.3 * step_s(job("resnet50d"))


def test_an_unknown_architecture_has_its_reason() -> None:
    """With the nearest that timm has."""
    found = job_of({**ROWS["resnet50d", "nchw"], "model": "resnet50_of_tomorrow"}, LIBRARY)
    assert isinstance(found, Refusal)
    assert "resnet50_of_tomorrow" in found.reason
    assert "\n" not in found.reason


def test_old_names_of_architectures_are_known() -> None:
    """Those that timm has renamed or dropped since the runs."""
    assert all((name, "nchw") in ROWS for name in image_rows.RENAMED)


def test_a_sample_of_runs_is_predicted() -> None:
    """Convolutions, depthwise convolutions, attention: within 20 % at the median, both formats."""
    errors = [
        abs(step_s(job(*key)) / (measured(row).step_time_s or 1.0) - 1.0) for key, row in ROWS.items() if key[0] in SAMPLE
    ]
    assert len(errors) == 2 * len(SAMPLE)
    assert statistics.median(errors) < 0.20
