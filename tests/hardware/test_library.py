"""The hardware library: every file loads, every figure has a source, and the figures agree with each other."""

from __future__ import annotations

import time

import pytest

from foretrain.hardware import load, read
from foretrain.hardware.load import list_accelerators, list_clusters, list_nodes, load_accelerator, load_cluster, load_node
from foretrain.inherit import KINDS

NAMES = {"accelerator": list_accelerators(), "node": list_nodes(), "cluster": list_clusters()}
ALL = [(kind, name) for kind, names in NAMES.items() for name in names]


def test_the_library_holds_what_the_guide_promises() -> None:
    """V100, A100, H100, H200, B200 and TPU v4, v5e, v5p, with their nodes."""
    wanted = (
        "v100-sxm2-16gb v100-sxm2-32gb a100-sxm-40gb a100-sxm-80gb h100-sxm h100-sxm-96gb-hbm2e h200-sxm b200-sxm tpu-v4 tpu-v5e tpu-v5p"
    )
    nodes = (
        "dgx-1v-16gb dgx-1v-32gb dgx-a100-40gb dgx-a100-80gb dgx-h100 dgx-h200 dgx-b200 aws-p4d aws-p4de aws-p5 jean-zay-a100 "
        "jean-zay-v100 "
        "hgx-a100-80gb-roce-1600 hgx-a100-80gb-roce-400 hgx-a100-40gb hgx-h100 hgx-h100-96gb-hbm2e tpu-v4-host tpu-v5e-host tpu-v5p-host"
    )
    assert set(wanted.split()) <= set(list_accelerators())
    assert set(nodes.split()) <= set(list_nodes())
    assert not set(list_nodes()) & set(list_clusters()), "a spec must mean one thing"


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_every_figure_has_a_source_of_a_known_kind(kind: str, name: str) -> None:
    """No number of the library stands without a title that says where it is from."""
    figures = load.provenance(kind, name)
    assert len(figures) > 20
    assert all(figure.title and figure.kind in KINDS for figure in figures)


@pytest.mark.parametrize("name", list_accelerators())
def test_an_accelerator_is_named_by_its_key(name: str) -> None:
    """Software profiles choose kernels by prefixes of the key, so it is the library name."""
    chip = load_accelerator(name)
    assert chip.key == name
    assert chip.power.idle_w + chip.power.busy_w < chip.power.limit_w
    assert set(chip.matmul.sustained) <= set(chip.peak_flop_per_s)
    assert set(chip.peak_flop_per_s) == set(chip.power.math_j_per_flop)


@pytest.mark.parametrize("name", list_nodes())
def test_a_node_makes_a_cluster_of_any_size(name: str) -> None:
    """NODE:COUNT takes network and facility from the node's profile."""
    cluster = load_cluster(f"{name}:4")
    node = load_node(name)
    assert cluster.name == f"{name}:4"
    assert cluster.node == node
    assert cluster.accelerators == 4 * node.accelerators
    assert cluster.scale_out.bandwidth_bytes_per_s == pytest.approx(node.nics * node.nic_bytes_per_s)
    assert node.scale_up.domain >= node.accelerators


@pytest.mark.parametrize(
    ("spec", "accelerators", "domain"),
    [
        ("dgx-a100-80gb:128", 1024, 8),
        ("jean-zay-bloom", 384, 8),
        ("jean-zay-v100:2", 8, 4),
        ("tpu-v4-pod", 4096, 4096),
        ("tpu-v5e-pod", 256, 256),
        ("selene:2", 16, 8),
    ],
)
def test_clusters_have_the_size_that_their_sources_give(spec: str, accelerators: int, domain: int) -> None:
    """Counts of accelerators, and how far the scale-up fabric reaches."""
    cluster = load_cluster(spec)
    assert (cluster.accelerators, cluster.domain) == (accelerators, domain)


def test_data_sheet_figures_arrive_in_si() -> None:
    """NVIDIA's A100 80 GB data sheet, and the energy of a bit times eight."""
    chip = load_accelerator("a100-sxm-80gb")
    assert chip.peak_flop_per_s["bf16"] == 312e12
    assert chip.memory_bytes == 80e9
    assert chip.memory_bytes_per_s == 2.039e12
    assert chip.power.memory_j_per_byte == pytest.approx(13.11e-12 * 8)


SELDOM_AT_LIMIT = ("h20-96gb", "a100-sxm-80gb-500w", "gaudi2")
"""Accelerators whose limit products do not reach; nor do those of TPUs and CPUs, whose limits are of the package or not published."""


@pytest.mark.parametrize(
    "name", [name for name in list_accelerators() if not name.startswith(("tpu", "cpu")) and name not in SELDOM_AT_LIMIT]
)
def test_a_large_product_draws_about_the_limit(name: str) -> None:
    """Idle, busy, math at the sustained rate and the tenth of the memory bandwidth that products of 8,192 take: 85 to 115 %."""
    chip = load_accelerator(name)
    dtype = next(dtype for dtype in ("bf16", "fp16", "fp32") if dtype in chip.peak_flop_per_s)
    math_w = chip.peak_flop_per_s[dtype] * chip.matmul.sustained[dtype] * chip.power.math_j_per_flop[dtype]
    memory_w = 0.1 * chip.memory_bytes_per_s * chip.power.memory_j_per_byte
    assert 0.85 < (chip.power.idle_w + chip.power.busy_w + math_w + memory_w) / chip.power.limit_w < 1.15


def test_assumed_names_estimates_and_memory_and_nothing_else() -> None:
    """The prediction tells its reader which figures nobody measured."""
    cluster = load_cluster("dgx-a100-80gb:2")
    assert "node.accelerator.power.busy_w" in cluster.assumed
    assert "node.accelerator.memory_bytes" not in cluster.assumed
    assert "power.busy_w" in cluster.accelerator.assumed
    assert "host_w" in cluster.node.assumed
    assert "scale_out.efficiency" in cluster.assumed
    assert "facility.pue" not in cluster.assumed


def test_every_assumed_path_is_a_field() -> None:
    """What is named as assumed can be set by that very name."""
    for name in (*list_clusters(), "dgx-b200:2"):
        cluster = load_cluster(name)
        for path in cluster.assumed:
            at: object = cluster
            for key in path.split("."):
                at = at[key] if isinstance(at, dict) else getattr(at, key)


def test_a_cluster_loads_in_milliseconds() -> None:
    """A whole simulation has 0.8 s; its profiles may take little of it."""
    load_cluster("dgx-h100:2")
    read.forget()
    start = time.perf_counter()
    load_cluster("dgx-a100-80gb:16")
    assert time.perf_counter() - start < 0.2
