"""What published descriptions of networks say."""

from __future__ import annotations

import pytest

from foretrain.validate.links import GBIT, parse_link, says_nothing


@pytest.mark.parametrize(
    ("words", "technology", "nics", "gbit"),
    [
        ("8x HDR InfiniBand 200Gb/s per node", "infiniband", 8, 1600),
        ("8x HDR InfiniBand per node", "infiniband", 8, 1600),
        ("InfiniBand NDR 8x400G per node", "infiniband", 8, 3200),
        ("4x InfiniBand HDR HCA per node, 2 switches", "infiniband", 4, 800),
        ("8x200G RoCE/RDMA per node, 3-tier CLOS (Tomahawk4)", "roce", 8, 1600),
        ("1600 Gbps RoCE", "roce", None, 1600),
        ("RoCE 2 Tb/s per node", "roce", None, 2000),
        ("4x100 Gb/s RoCE per node", "roce", 4, 400),
        ("RDMA CX-7 400 Gb/s per GPU", "roce", 8, 3200),
        ("GCP A3 (GPUDirect-TCPX, 4x200 Gb/s)", "roce", 4, 800),
        ("400 Gbps per node", None, None, 400),
        ("4x Omni-Path 100 Gb/s per node", "omni-path", 4, 400),
        ("EFA 3200 Gbps", "efa", None, 3200),
        ("EFA v2, 32x100 Gb/s", "efa", 32, 3200),
        ("8x HDR, 1600 Gbps per node", "infiniband", 8, 1600),
        ("HDR InfiniBand, one NIC per GPU", "infiniband", 8, 1600),
        ("25 GB/s per GPU", None, 8, 1600),
        ("4 NICs of 200 Gb/s", None, 4, 800),
        ("100GbE", "roce", None, 100),
    ],
)
def test_a_description_gives_technology_nics_and_bandwidth(words: str, technology: str | None, nics: int | None, gbit: float) -> None:
    """Counts, ports, generations and totals, of a node with eight accelerators."""
    link = parse_link(words, accelerators=8)
    assert (link.technology, link.nics) == (technology, nics)
    assert link.node_bytes_per_s == pytest.approx(gbit * GBIT)


@pytest.mark.parametrize(
    "words", ["", "not stated", "not stated (H100 cluster)", "none (1 node)", "n/a", "InfiniBand (DGX)", "ICI (single slice)"]
)
def test_words_without_a_figure_give_no_bandwidth(words: str) -> None:
    """The library's own figure then stands."""
    assert parse_link(words, accelerators=8).node_bytes_per_s is None


def test_slices_are_counted() -> None:
    """TPU slices that the data-centre network joins."""
    assert parse_link("DCN between 32 slices", accelerators=4).slices == 32
    assert parse_link("ICI (single slice)", accelerators=4).slices == 1


def test_a_single_node_needs_no_network() -> None:
    """Silence about the network is a guess only where there is one."""
    assert says_nothing("not stated")
    assert not says_nothing("none (1 node)")


@pytest.mark.parametrize("per_node", [4, 8, 16])
def test_a_figure_per_gpu_scales_with_the_node(per_node: int) -> None:
    """400 Gb/s per GPU is as many NICs as GPUs."""
    link = parse_link("RDMA 400 Gb/s per GPU", accelerators=per_node)
    assert (link.nics, link.node_bytes_per_s) == (per_node, per_node * 50e9)
