"""`foretrain list hardware`: accelerators, nodes and clusters of the library as tables."""

from __future__ import annotations

from collections.abc import Sequence

from foretrain.charts.words import money
from foretrain.cli_output import columns, cut, ink, say
from foretrain.hardware.accelerator import Accelerator
from foretrain.hardware.load import (
    list_accelerators,
    list_clusters,
    list_nodes,
    load_accelerator,
    load_cluster,
    load_node,
)
from foretrain.hardware.node import Node
from foretrain.units import parse, show

GIGABIT = parse("1 Gbit/s", "B/s")


def say_hardware() -> None:
    """Print the tables, with a mark at accelerators whose shown figures are from memory or estimated."""
    tables = {"accelerators": _accelerators(), "nodes": _nodes(), "clusters": _clusters()}
    paint = ink()
    say("\n\n".join(f"{paint.strong(f'{name} ({len(rows) - 1})')}\n{cut(columns(rows))}" for name, rows in tables.items()))
    say("\n* a figure in this line is from memory or estimated (foretrain show NAME says which)")


def _accelerators() -> list[tuple[str, ...]]:
    head = ("  name", "memory", "bandwidth", "fp32", "16 bit", "fp8", "limit")
    return [head, *(_accelerator_row(load_accelerator(name)) for name in list_accelerators())]


def _accelerator_row(one: Accelerator) -> tuple[str, ...]:
    peaks = one.peak_flop_per_s
    half = "bf16" if "bf16" in peaks else "fp16"
    shown = ("memory_bytes", "memory_bytes_per_s", "power.limit_w", *(f"peak_flop_per_s.{name}" for name in ("fp32", half, "fp8")))
    return (
        ("* " if set(shown) & set(one.assumed) else "  ") + one.key,
        show(one.memory_bytes, "B"), show(one.memory_bytes_per_s, "B/s"),
        *(show(peaks[name], "FLOP/s") if name in peaks else "-" for name in ("fp32", half, "fp8")),
        show(one.power.limit_w, "W"),
    )  # fmt: skip


def _nodes() -> list[tuple[str, ...]]:
    head = ("  name", "accelerators", "joined by", "NICs", "USD/h")
    return [head, *(_node_row(name, load_node(name)) for name in list_nodes())]


def _node_row(name: str, node: Node) -> tuple[str, ...]:
    rate = node.nic_bytes_per_s / GIGABIT
    return (
        f"  {name}", f"{node.accelerators} × {node.accelerator.key}", node.scale_up.name, f"{node.nics} × {rate:g} Gbit/s",
        money(node.usd_per_hour),
    )  # fmt: skip


def _clusters() -> Sequence[tuple[str, ...]]:
    rows = [("  name", "nodes", "accelerators", "network", "PUE")]
    for name in list_clusters():
        cluster = load_cluster(name)
        kind = f"{cluster.accelerators:,} × {cluster.accelerator.key}"
        rows.append((f"  {name}", f"{cluster.nodes:,}", kind, cluster.scale_out.name, f"{cluster.facility.pue:g}"))
    return rows
