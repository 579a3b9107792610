"""From rows of classic runs to jobs: model, machine, software, precision, batch; and how far predictions are from measurements."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import pytest

from foretrain.errors import RecipeError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_accelerator, load_cluster
from foretrain.software.load import load_software
from foretrain.validate.answers import answer
from foretrain.validate.classic_machines import cluster_of
from foretrain.validate.classic_rows import job_key, job_of, labels_of, measured, precision_of
from foretrain.validate.classic_stacks import software_of
from foretrain.validate.llm_rows import Job, Library, Refusal
from foretrain.validate.runs_file import bundled_runs

RUNS = bundled_runs("classic_runs.csv")
ROWS = [line.cells for line in RUNS.lines]
BASE = {
    "set": "dle", "model": "ResNet-50 v1.5", "dataset_input": "ImageNet 224x224", "accelerator": "V100-SXM2-16GB", "n_accelerators": "8",
    "n_nodes": "1", "node_type": "DGX-1V", "link": "NVLink2 hybrid cube mesh", "framework": "PyTorch", "precision": "amp(fp16)",
    "batch_per_device": "256", "grad_accum": "", "global_batch": "2048", "kind": "train (end-to-end)", "step_time_ms_median": "100",
}  # fmt: skip


def one_node(name: str) -> Cluster:
    return load_cluster(f"{name}:1")


LIBRARY = Library(cluster=one_node, software=load_software)


def job(**changes: str) -> Job:
    found = job_of({**BASE, **changes}, LIBRARY)
    assert isinstance(found, Job), found
    return found


def test_the_bundled_file_is_recognised_and_sound() -> None:
    """1,326 rows, recognised by their header."""
    assert (RUNS.kind, len(ROWS)) == ("classic_runs", 1326)
    assert not any(line.fault for line in RUNS.lines)


def test_nearly_all_rows_become_jobs() -> None:
    """At least 85 of 100, every other with its reason; equal keys make equal jobs."""
    first = {job_key(row): row for row in ROWS}
    without_extra = [row for row in first.values() if "timm" not in row["framework"]]
    found = [job_of(row, LIBRARY) for row in without_extra]
    assert all(one.reason for one in found if isinstance(one, Refusal))
    assert sum(isinstance(one, Job) for one in found) >= 0.95 * len(found)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("K80 (1 GK210 die)", "k80"), ("M60 (1 die)", "m60"), ("Titan X (Maxwell)", "titan-x-maxwell"), ("RTX 8000", "quadro-rtx-8000"),
        ("V100-SXM3-32GB (450W)", "v100-sxm3-32gb-450w"), ("V100-SXM3-32GB", "v100-sxm3-32gb"), ("A100-SXM4-40GB (400W)", "a100-sxm-40gb"),
        ("A100 - PCIe - 80 GB", "a100-pcie-80gb"), ("A100-SXM-80GB (500W)", "a100-sxm-80gb-500w"), ("A100-SXM-80GB CTS", "a100-sxm-80gb"),
        ("H100 80GB HBM3", "h100-sxm"), ("Blackwell GPU (GB200)", "gb200"), ("Blackwell Ultra GPU (B300-SXM-270GB)", "b300-sxm"),
        ("RTX 2080 SUPER MAX-Q", "rtx-2080-super-max-q"), ("RTX 2080 Ti", "rtx-2080-ti"), ("P100-SXM2-16GB", "p100-sxm2"),
    ],
)  # fmt: skip
def test_accelerators_are_told_apart(words: str, key: str) -> None:
    """Dies, generations, forms and power limits by the words that name them."""
    assert cluster_of({**BASE, "accelerator": words, "node_type": "", "link": ""}, one_node)[0].accelerator.key == key


@pytest.mark.parametrize(
    ("changes", "fabric", "per_node", "nodes"),
    [
        ({}, "NVLink 2 hybrid cube mesh", 8, 1),
        ({"node_type": "DGX-2", "accelerator": "V100-SXM3-32GB", "n_accelerators": "16"}, "NVLink 2 through NVSwitch", 16, 1),
        ({"node_type": "", "accelerator": "RTX 2080 Ti", "link": "NVLink bridge", "n_accelerators": "4"}, "NVLink 2 bridges", 4, 1),
        ({"node_type": "", "accelerator": "RTX 2080 Ti", "link": "PCIe", "n_accelerators": "4"}, "PCIe 3", 4, 1),
        ({"node_type": "", "accelerator": "A100-PCIe-80GB", "link": "PCIe |", "n_accelerators": "14"}, "PCIe 4", 14, 1),
        ({"node_type": "", "accelerator": "H100-PCIe-80GB", "link": "PCIe", "n_accelerators": "4"}, "PCIe 5", 4, 1),
        ({"node_type": "", "accelerator": "H100-SXM5-80GB", "link": "NVLINK | 8x NDR 400Gb/s", "n_nodes": "4", "n_accelerators": "32"},
         "NVLink 4", 8, 4),
        ({"node_type": "", "accelerator": "Blackwell GPU (GB200)", "link": "NVLINK Gen5 |", "n_nodes": "8", "n_accelerators": "32"},
         "NVLink 5", 32, 1),
    ],
)  # fmt: skip
def test_nodes_have_the_links_of_their_rows(changes: Mapping[str, str], fabric: str, per_node: int, nodes: int) -> None:
    """Cube mesh, switch, bridge, slot by generation; the trays of a rack share its links."""
    cluster, _ = cluster_of({**BASE, **changes}, one_node)
    assert cluster.node.scale_up.name.startswith(fabric)
    assert (cluster.node.accelerators, cluster.nodes) == (per_node, nodes)
    assert cluster.node.scale_up.domain >= per_node


def test_the_network_for_training_is_read_without_those_for_storage_and_management() -> None:
    """Four HDR ports a node, not the hundred-gigabit Ethernet named first."""
    words = "NVLINK | Management: 1x ConnectX-6 Ethernet 100Gb/Sec, Compute: 4x ConnectX-6 IB HDR 200Gb/Sec"
    cluster, _ = cluster_of({**BASE, "accelerator": "A100-SXM-80GB", "node_type": "", "link": words, "n_nodes": "2",
                             "n_accelerators": "16"}, one_node)  # fmt: skip
    assert cluster.node.network_bytes_per_s == pytest.approx(4 * 200e9 / 8)


@pytest.mark.parametrize(
    ("framework", "kind", "name"),
    [
        ("Torch7 cuDNN 5.1.05", "fwd+bwd only (no update, no input)", "torch7-cudnn"),
        ("Torch7 cuDNN None", "fwd+bwd only (no update, no input)", "im2col"),
        ("Caffe-CLGreenTea", "fwd+bwd only (no update, no input)", "opencl-dnn"),
        ("Nervana-neon-fp32", "fwd+bwd only (no update, no input)", "neon"),
        ("MXNet 1.2.0rc1 cuDNN 7.0.5", "train", "mxnet"),
        ("NGC MxNet", "train", "ngc-mxnet"),
        ("TensorFlow b1e174e tf_cnn_benchmarks 9165a70", "train (100 steps after 10 warm-up, mean of 5 runs)", "tensorflow-1"),
        ("TF1.15/2.3 tf_cnn_benchmarks replicated +XLA?", "train", "ngc-tensorflow"),
        ("PyTorch NGC DeepLearningExamples (22.10-era suite v1)", "train (log of benchmark run)", "ngc-pytorch"),
        ("PyTorch 1.12 timm (nhwc)", "train step (fwd+bwd+SGD update, no input)", "pytorch-1.12"),
        ("NGC MXNet 21.05 , NGC PyTorch 21.05", "MLPerf training result", "mlperf"),
        ("MindSpore", "train", "mindspore"), ("OneFlow", "train", "oneflow"), ("PaddlePaddle", "train", "paddlepaddle"),
    ],
)  # fmt: skip
def test_frameworks_have_profiles(framework: str, kind: str, name: str) -> None:
    """By framework and kind of run; without input no time goes into loading it."""
    software, _ = software_of({"framework": framework, "kind": kind, "set": ""}, load_software)
    assert software.key == name
    assert (software.host.step_s == 0.0) or "no input" not in kind


@pytest.mark.parametrize(
    ("changes", "name", "image_size"),
    [
        ({"model": "VGG-A"}, "vgg-11", 224),
        ({"model": "ResNet-50", "framework": "TensorFlow"}, "resnet-50-v1", 224),
        ({"model": "ResNet-152", "framework": "Torch7 cuDNN 5.1.05"}, "resnet-152", 224),
        ({"model": "Inception-v1"}, "googlenet", 224),
        ({"model": "Inception-v3", "dataset_input": "ImageNet 299x299 synthetic"}, "inception-v3", 299),
        ({"model": "se-resnext101-32x4d", "dataset_input": "ImageNet"}, "se-resnext-101-32x4d", 224),
    ],
)
def test_models_by_the_names_of_the_papers(changes: Mapping[str, str], name: str, image_size: int) -> None:
    """And the stride of version 1 or 1.5 by who wrote the script."""
    found = job(**changes)
    assert (found.model.key, found.model.image_size) == (name, image_size)


def test_precisions_and_what_an_accelerator_makes_of_them() -> None:
    """TF32 is fp32 before Ampere; fp16 is storage where the math is not faster."""
    a100, v100, pascal = (load_accelerator(name) for name in ("a100-sxm-80gb", "v100-sxm2-16gb", "gtx-1080-ti"))
    assert precision_of("tf32/fp32?", a100)[0] == "tf32"
    assert precision_of("tf32", v100)[0] == "fp32"
    assert precision_of("mixed (fp16/bf16/fp8)", a100)[0] == "fp16"
    name, storing, said = precision_of("fp16", pascal)
    assert (name, storing.peak_flop_per_s["fp16"]) == ("fp16", pascal.peak_flop_per_s["fp32"])
    assert said
    with pytest.raises(RecipeError, match="unknown"):
        precision_of("posit", a100)


@pytest.mark.parametrize(
    ("cells", "micro", "total", "steps"),
    [
        ({}, 256, 2048, 1.0),
        ({"grad_accum": "4", "global_batch": "8192"}, 256, 8192, 1.0),
        ({"batch_per_device": "40", "grad_accum": "2", "global_batch": "320"}, 20, 320, 1.0),
        ({"batch_per_device": "312", "grad_accum": "32", "global_batch": "90112"}, 312, 79872, 90112 / 79872),
        ({"batch_per_device": "", "global_batch": "512"}, 64, 512, 1.0),
    ],
)  # fmt: skip
def test_batches_add_up(cells: Mapping[str, str], micro: int, total: int, steps: float) -> None:
    """Accumulation multiplies the batch or cuts it, whichever gives the global batch; where neither does, time is scaled and it is said."""
    found = job(**cells)
    assert (found.plan.micro_batch, found.recipe.global_batch) == (micro, total)
    assert found.steps == pytest.approx(steps)
    assert (steps == 1.0) or any("scaled" in note for note in found.assumed)


def test_forward_and_backward_alone_leave_the_optimizer_out() -> None:
    """The kind of the run says what was timed."""
    assert job(kind="fwd+bwd only (no update, no input)").without == ("optimizer",)
    assert job().without == ()


def test_rows_that_say_too_little_have_reasons() -> None:
    """No batch, no accelerator, an unknown model."""
    cases = (
        ({"batch_per_device": "", "global_batch": ""}, "batch is not given"), ({"accelerator": ""}, "accelerator"),
        ({"model": "Capsule Net"}, "not in this release's library"), ({"framework": "abacus"}, "no software profile"),
    )  # fmt: skip
    for cells, words in cases:
        found = job_of({**BASE, **cells}, LIBRARY)
        assert isinstance(found, Refusal)
        assert words in found.reason


def test_a_missing_step_time_follows_from_the_throughput() -> None:
    """Samples of a step over samples per second."""
    assert measured({**BASE, "step_time_ms_median": "", "throughput_median": "4096"}).step_time_s == pytest.approx(0.5)
    assert measured(BASE).step_time_s == pytest.approx(0.1)


def test_the_source_is_the_repository() -> None:
    """Without its commit."""
    assert labels_of({**BASE, "source_example": "NVIDIA/DeepLearningExamples@b9178e8a:README.md"}).source == "NVIDIA/DeepLearningExamples"


def test_a_sample_of_runs_is_predicted() -> None:
    """Every fortieth row, eleven frameworks and a dozen accelerators from K80 to GB200: within 20 % at the median."""
    sample = [row for row in ROWS[::40] if "timm" not in row["framework"]]
    errors = []
    for row in sample:
        reply = answer(row, "classic_runs")
        assert reply.step_time_s is not None, reply.reason
        errors.append(abs(reply.step_time_s / (measured(row).step_time_s or 1.0) - 1.0))
    assert len(errors) > 25
    assert statistics.median(errors) < 0.20
