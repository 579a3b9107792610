"""Reading a file of published runs: recognised by its header, every line kept, faulty ones with the reason."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from foretrain.errors import UsageError, shortened
from foretrain.yamlfile import read_at_most

LLM_COLUMNS = frozenset({
    "id", "source", "source_key", "date", "model", "arch_family", "n_layers", "hidden", "ffn_hidden", "n_heads", "n_kv_heads", "vocab",
    "seq_len", "params_B", "accelerator", "n_accelerators", "accel_per_node", "intra_node_link", "inter_node_link", "precision",
    "optimizer", "dp", "tp", "pp", "vpp", "cp", "ep", "zero_or_fsdp", "sequence_parallel", "recompute", "recompute_class",
    "global_batch_seqs", "micro_batch_seqs", "measured_step_time_s", "measured_tokens_per_s_per_accel", "measured_memory_GB",
    "framework", "complete", "subset", "config_key", "notes", "execution",
})  # fmt: skip
"""Columns of published language-model steps that a prediction or the summary reads."""

NETWORK_COLUMNS = frozenset({
    "id", "system", "n_ranks", "n_hosts", "link", "metric", "collective", "size_B", "busbw_GBps", "algbw_GBps", "time_us",
})  # fmt: skip
"""Columns of measured bus bandwidths by size."""
COLLECTIVE_COLUMNS = frozenset({"source", "machine", "collective", "gpus", "nodes", "bytes", "time_us"})
"""Columns of measured times of single collectives."""

CLOCK_COLUMNS = frozenset({"model", "accelerator", "stage", "instruction", "sm_clock_MHz", "time_s", "energy_j", "source"})
"""Columns of measured time and energy of pipeline stages by clock."""

CLASSIC_COLUMNS = frozenset({
    "config_group", "model", "dataset_input", "accelerator", "n_accelerators", "n_nodes", "node_type", "link", "framework", "precision",
    "batch_per_device", "grad_accum", "global_batch", "kind", "step_time_ms_median", "source_example",
})  # fmt: skip
"""Columns of published steps of convolutional networks, BERT and recommenders."""

IMAGE_COLUMNS = frozenset({
    "model", "accelerator", "precision", "memory_format", "framework", "batch", "image_size", "step_time_ms",
})  # fmt: skip
"""Columns of published steps of image models on one accelerator."""

LIMIT_COLUMNS = frozenset({"gpu", "dataset", "network", "batch_size", "optimizer", "power_limit", "time_per_epoch", "average_power"})
"""Columns of measured time and power by power limit."""

POWER_COLUMNS = frozenset({
    "benchmark", "system", "accelerator", "n_nodes", "acc_per_node", "global_batch", "mean_node_power_W", "idle_node_power_W",
})  # fmt: skip
"""Columns of the measured wall power of nodes that train."""

KINDS = {
    "llm_runs": LLM_COLUMNS,
    "network": NETWORK_COLUMNS,
    "collectives": COLLECTIVE_COLUMNS,
    "clock_energy_runs": CLOCK_COLUMNS,
    "classic_runs": CLASSIC_COLUMNS,
    "image_model_runs": IMAGE_COLUMNS,
    "power_limit_runs": LIMIT_COLUMNS,
    "power_runs": POWER_COLUMNS,
}
"""Kinds of file that are understood, by the columns each must have."""

BUNDLED = "llm_runs.csv"
LARGEST_BYTES = 2**26


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the file: its cells by column, and what is wrong with it, empty where nothing is."""

    cells: dict[str, str]
    fault: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsFile:
    """A recognised file with its lines in order."""

    name: str
    kind: str
    lines: tuple[Line, ...]


def read_runs(path: Path | None) -> RunsFile:
    """Return the runs of `path`, or of the file that comes with the package.

    Raises:
        UsageError: where the file is missing, empty, not text, or none of the kinds that are understood.
    """
    if path is None:
        return bundled_runs(BUNDLED)
    return _runs(path.name, _text(path))


def bundled_runs(name: str) -> RunsFile:
    """Return the runs of a file that comes with the package, by its name."""
    return _runs(name, (resources.files("foretrain.validate.data") / name).read_text(encoding="utf-8-sig"))


def _runs(name: str, content: str) -> RunsFile:
    try:
        rows = list(csv.reader(io.StringIO(content, newline="")))
    except csv.Error as error:
        raise UsageError(f"{name} is no CSV file: {error}") from error
    if not rows or not any(cell.strip() for cell in rows[0]):
        raise UsageError(f"{name} is empty; give a CSV file with a header and runs")
    header = [cell.strip() for cell in rows[0]]
    kind = _kind(name, header)
    lines = tuple(_line(header, cells) for cells in rows[1:] if cells)
    if not lines:
        raise UsageError(f"{name} has a header but no runs")
    return RunsFile(name=name, kind=kind, lines=lines)


def _text(path: Path) -> str:
    try:
        return read_at_most(path, LARGEST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file in UTF-8 (byte {error.start}); give a CSV file") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; give a CSV file of runs") from error


def _kind(name: str, header: list[str]) -> str:
    """Return the kind whose columns the header has."""
    present = set(header)
    for kind, columns in KINDS.items():
        missing = sorted(columns - present)
        if not missing:
            return kind
        if len(missing) * 2 < len(columns):
            raise UsageError(f"{name} looks like {kind}, but lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}")
    understood = ", ".join(f"{kind}.csv ({', '.join(sorted(columns)[:2])} ...)" for kind, columns in KINDS.items())
    raise UsageError(f"the header of {name} is none that is understood ({shortened(', '.join(header[:4]))} ...); understood: {understood}")


def _line(header: list[str], cells: list[str]) -> Line:
    fault = "" if len(cells) == len(header) else f"the line has {len(cells)} cells, the header {len(header)}"
    return Line(cells=dict(zip(header, cells, strict=False)), fault=fault)
