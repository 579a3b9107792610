"""What the rows of published language-model runs are called and grouped by."""

from __future__ import annotations

from foretrain.errors import ForetrainError
from foretrain.validate.cells import Row, text, whole
from foretrain.validate.labels import Labels


def labels_of(row: Row) -> Labels:
    """Return the names of a row in reports."""
    return Labels(
        id=text(row, "id") or "|".join(text(row, name) for name in ("source_key", "model", "n_accelerators", "global_batch_seqs")),
        source=text(row, "source_key"),
        accelerator=text(row, "accelerator"),
        framework=text(row, "framework"),
        layout=layout_kind(row),
        subset=text(row, "subset"),
        complete=text(row, "complete") == "y",
        config_key=text(row, "config_key"),
    )


def layout_kind(row: Row) -> str:
    """Return the class of a layout: dp, zero1, fsdp, tp, tp+fsdp, pp, 3d (tp and pp), cp, or unknown."""
    try:
        tp, pp, cp = (whole(row, name) for name in ("tp", "pp", "cp"))
    except ForetrainError:
        return "unknown"
    if tp is None or pp is None:
        return "unknown"
    words = text(row, "zero_or_fsdp").upper().replace("-", "")
    sharded = "FSDP" in words or "HSDP" in words or "ZERO3" in words
    if (cp or 1) > 1:
        return "cp"
    if pp > 1:
        return "3d" if tp > 1 else "pp"
    if tp > 1:
        return "tp+fsdp" if sharded else "tp"
    return "fsdp" if sharded else "zero1" if "ZERO1" in words or "DISTRIBUTED" in words else "dp"
