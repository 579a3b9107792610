"""From the words for accelerator and links to a cluster of the library."""

from __future__ import annotations

import pytest

from foretrain.errors import ProfileError
from foretrain.hardware.cluster import Cluster
from foretrain.hardware.load import load_cluster
from foretrain.validate.cells import Row
from foretrain.validate.machines import CHIPS, chip_of, cluster_of


def load(name: str) -> Cluster:
    return load_cluster(f"{name}:1")


def row(accelerator: str, link: str, *, total: int = 64, per_node: str = "8", date: str = "2024-01") -> Row:
    return {
        "accelerator": accelerator, "inter_node_link": link, "n_accelerators": str(total), "accel_per_node": per_node, "date": date,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("accelerator", "link", "node", "gbit"),
    [
        ("A100-80GB-SXM (Selene)", "8x HDR InfiniBand 200Gb/s per node", "dgx-a100-80gb", 1600),
        ("A100-80GB-SXM", "1600 Gbps RoCE", "hgx-a100-80gb-roce-1600", 1600),
        ("A100-80GB-SXM", "4x100 Gb/s RoCE per node", "hgx-a100-80gb-roce-400", 400),
        ("A100-80GB-SXM", "400 Gbps per node", "hgx-a100-80gb-roce-400", 400),
        ("A100-80GB-SXM", "RoCE 2 Tb/s per node", "hgx-a100-80gb-roce-1600", 2000),
        ("A100-80GB-SXM", "4x Omni-Path 100 Gb/s per node", "jean-zay-a100", 400),
        ("A100-80GB-SXM", "8x HDR InfiniBand 200 Gb/s per node (NDm A100 v4)", "azure-nd-a100-v4", 1600),
        ("A100-40GB-SXM", "EFA 400 Gbps", "aws-p4d", 400),
        ("A100-40GB-SXM", "1600 Gbps RoCE", "hgx-a100-40gb", 1600),
        ("A100-SXM (memory size not stated)", "800 Gbps per node (config)", "dgx-a100-80gb", 800),
        ("H100-80GB-SXM (DGX H100)", "InfiniBand NDR 8x400G per node", "dgx-h100", 3200),
        ("H100-80GB-SXM", "GCP A3 (GPUDirect-TCPX, 4x200 Gb/s)", "hgx-h100", 800),
        ("H100-80GB-SXM", "32x 100 Gb/s EFA", "aws-p5", 3200),
        ("H100-96GB HBM2e (500W cap)", "RDMA 400 Gb/s per GPU", "hgx-h100-96gb-hbm2e", 3200),
        ("H200-141GB-SXM", "RDMA CX-7 400 Gb/s per GPU", "dgx-h200", 3200),
    ],
)
def test_a_machine_is_found_by_its_words(accelerator: str, link: str, node: str, gbit: float) -> None:
    """The node of the library with that technology and nearest bandwidth, its NICs as the row states them."""
    cluster, _ = cluster_of(row(accelerator, link), load)
    assert cluster.name == f"{node}:8"
    assert cluster.accelerators == cluster.scale_out.domain == 64
    assert cluster.node.network_bytes_per_s == pytest.approx(gbit * 1e9 / 8)
    assert cluster.scale_out.bandwidth_bytes_per_s == pytest.approx(gbit * 1e9 / 8)


def test_every_node_that_a_chip_names_is_in_the_library() -> None:
    """And carries the accelerator of the chip's usual node, at whatever memory size."""
    for chip in CHIPS:
        kinds = {load(name).accelerator.key.split("-")[0] for name in chip.nodes}
        assert len(kinds) == 1, chip


def test_a_silent_network_is_an_assumption_only_between_nodes() -> None:
    """One node has no network to guess."""
    assert any("does not state" in note for note in cluster_of(row("H100-80GB-SXM", "not stated"), load)[1])
    assert cluster_of(row("H100-80GB-SXM", "not stated", total=8), load)[1] == ()


def test_smaller_nodes_keep_their_share_of_the_network() -> None:
    """Four A100 of a node of eight: half the NICs, a scale-up domain of four."""
    cluster, _ = cluster_of(row("A100-40GB-SXM", "", total=16, per_node="4"), load)
    assert (cluster.nodes, cluster.node.accelerators, cluster.node.nics, cluster.domain) == (4, 4, 4, 4)
    assert cluster.node.network_bytes_per_s == pytest.approx(100e9)


def test_a_sites_node_takes_the_memory_size_of_the_row() -> None:
    """Jean Zay's node is in the library with 32 GB; a row with 16 GB gets the smaller chip on the same network."""
    cluster, _ = cluster_of(row("V100-16GB-SXM2", "4x Omni-Path 100 Gb/s per node (JeanZay)", per_node="4"), load)
    assert cluster.name == "jean-zay-v100:16"
    assert cluster.accelerator.key == "v100-sxm2-16gb"


@pytest.mark.parametrize(("link", "domain"), [("ICI (single slice)", 512), ("DCN between 2 slices", 256), ("DCN between 4 slices", 128)])
def test_tpu_slices_are_scale_up_domains(link: str, domain: int) -> None:
    """The torus joins a slice, the data-centre network the slices."""
    cluster, assumed = cluster_of(row("TPU v4", link, total=512, per_node="4"), load)
    assert (cluster.domain, cluster.accelerators, assumed) == (domain, 512, ())


def test_an_export_chip_has_its_own_nvlink() -> None:
    """H800: 400 GB/s both ways."""
    cluster, assumed = cluster_of(row("H800-80GB-SXM", "8x400G InfiniBand"), load)
    assert cluster.node.scale_up.bandwidth_bytes_per_s == 200e9
    assert any("H800" in note for note in assumed)


def test_an_a100_of_early_2020_has_forty_gigabytes() -> None:
    """The larger one was announced in November 2020."""
    assert chip_of("A100 (DGX-A100)", "2020-08").nodes[0] == "dgx-a100-40gb"
    assert chip_of("A100 (DGX-A100)", "2021-04").nodes[0] == "dgx-a100-80gb"


@pytest.mark.parametrize(
    ("words", "accelerator", "node"),
    [
        ("Gaudi2-96GB", "gaudi2", "gaudi2-8"),
        ("TPU v6e (Trillium)", "tpu-v6e", "tpu-v6e-host"),
        ("V100-32GB-SXM3 (DGX-2)", "v100-sxm3-32gb", "dgx-2"),
        ("A100-PCIe-40GB", "a100-pcie-40gb", "pcie-8x-a100-40gb"),
        ("H100 NVL", "h100-nvl-94gb", "pcie-8x-h100-nvl"),
        ("MI300X", "mi300x", "mi300x-8"),
    ],
)
def test_any_accelerator_of_the_library_is_found_by_its_name(words: str, accelerator: str, node: str) -> None:
    """In a node that its maker or a builder sells, where there is one."""
    cluster, _ = cluster_of(row(words, "", total=8), load)
    assert (cluster.accelerator.key, chip_of(words).nodes[0]) == (accelerator, node)


@pytest.mark.parametrize("words", ["WSE-2", "A100 NVL", "", "MI250-128GB (4 per node)"])
def test_what_the_library_lacks_is_refused(words: str) -> None:
    """Rather than taken for its neighbour; a module of two dies is not one accelerator."""
    with pytest.raises(ProfileError, match=r"no accelerator of the library|module of two dies"):
        chip_of(words)
