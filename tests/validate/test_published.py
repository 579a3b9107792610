"""`validate published` end to end on a handful of rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from foretrain.errors import OutputError
from foretrain.validate.llm_labels import layout_kind
from foretrain.validate.published import COLUMNS, format_summary, validate_published
from foretrain.validate.runs_file import read_runs

IDS = (
    "megatron-sc21-0003", "torchtitan-0001", "internevo-0001", "nemo2407-0001", "nemo2407-0013",
    "vtrain-multi-0002", "maxtext-0001", "fsdp-vldb-0001",
)  # fmt: skip
LINES = {line.cells["id"]: line.cells for line in read_runs(None).lines}


def write_runs(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def predictions(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_row_appears_in_order_with_a_prediction_or_a_reason(tmp_path: Path) -> None:
    """Step time and memory on lines of their own; a refusal has its reason and no figure."""
    runs = write_runs(tmp_path / "runs.csv", [LINES[name] for name in IDS])
    done: list[tuple[int, int]] = []
    summary = validate_published(runs, tmp_path / "out", progress=lambda count, total: done.append((count, total)))
    lines = predictions(tmp_path / "out")
    assert tuple(lines[0]) == COLUMNS
    assert list(dict.fromkeys(line["id"] for line in lines)) == list(IDS)
    assert [int(line["row"]) for line in lines] == sorted(int(line["row"]) for line in lines)
    assert [line["quantity"] for line in lines if line["id"] == "torchtitan-0001"] == ["step_time_s", "memory_bytes"]
    for line in lines:
        assert bool(line["predicted"]) != bool(line["reason"])
        if line["error_pct"]:
            expected = 100 * (float(line["predicted"]) / float(line["measured"]) - 1)
            assert float(line["error_pct"]) == pytest.approx(expected, abs=0.01)
    assert (summary["rows"], summary["rows_simulated"]) == (8, 7)
    assert done[-1] == (8, 8)


def test_predictions_are_of_the_right_size(tmp_path: Path) -> None:
    """A factor of two at most on runs of five frameworks: units, layout and machine are read right."""
    runs = write_runs(tmp_path / "runs.csv", [LINES[name] for name in IDS])
    validate_published(runs, tmp_path / "out")
    for line in predictions(tmp_path / "out"):
        if line["error_pct"] and line["quantity"] == "step_time_s":
            assert 0.5 < float(line["predicted"]) / float(line["measured"]) < 2.0, line["id"]


def test_the_three_files_are_written_and_agree(tmp_path: Path) -> None:
    """summary.json is what is returned; the picture is a PNG; a run without a measurement is predicted, not scored."""
    runs = write_runs(tmp_path / "runs.csv", [LINES[name] for name in IDS])
    summary = validate_published(runs, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["errors.png", "predictions.csv", "summary.json"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    assert (tmp_path / "out" / "errors.png").read_bytes().startswith(b"\x89PNG")
    figures = summary["quantities"]["step_time_s"]["by_source"]["fsdp-vldb"]
    assert (figures["configurations"], figures["n"], figures["coverage"]) == (1, 0, 1.0)
    assert max(len(line) for line in format_summary(summary).splitlines()) <= 80


def test_faulty_rows_keep_their_place_and_their_reason(tmp_path: Path) -> None:
    """A number that is none, and a line cut short, beside a good one."""
    good = LINES["internevo-0001"]
    runs = write_runs(tmp_path / "runs.csv", [{**good, "measured_step_time_s": "fast"}, good])
    with runs.open("a") as file:
        file.write("cut,short\n")
    validate_published(runs, tmp_path / "out")
    first, second, third = predictions(tmp_path / "out")
    assert "measured_step_time_s is 'fast'" in first["reason"]
    assert second["predicted"]
    assert not second["reason"]
    assert "2 cells" in third["reason"]


def test_a_file_of_refusals_has_a_summary_and_a_picture(tmp_path: Path) -> None:
    """Nothing predicted is an answer, too."""
    runs = write_runs(tmp_path / "runs.csv", [LINES["nemo2407-0013"]])
    assert validate_published(runs, tmp_path / "out")["rows_simulated"] == 0
    assert (tmp_path / "out" / "errors.png").exists()


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """Before anything is simulated."""
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="cannot write into"):
        validate_published(write_runs(tmp_path / "runs.csv", [LINES["internevo-0001"]]), tmp_path / "out")


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ({"tp": "8", "pp": "8"}, "3d"),
        ({"tp": "1", "pp": "8"}, "pp"),
        ({"tp": "8", "pp": "1", "zero_or_fsdp": "FSDP2 (ZeRO-3) shard=8"}, "tp+fsdp"),
        ({"tp": "8", "pp": "1"}, "tp"),
        ({"tp": "1", "pp": "1", "zero_or_fsdp": "FSDP FULL_SHARD"}, "fsdp"),
        ({"tp": "1", "pp": "1", "zero_or_fsdp": "HSDP (shard in node, replicate across)"}, "fsdp"),
        ({"tp": "1", "pp": "1", "zero_or_fsdp": "ZeRO-1 in groups of 8"}, "zero1"),
        ({"tp": "1", "pp": "1", "zero_or_fsdp": "DDP"}, "dp"),
        ({"tp": "1", "pp": "1", "cp": "4"}, "cp"),
        ({"tp": "", "pp": "1"}, "unknown"),
    ],
)
def test_layouts_have_kinds(cells: dict[str, str], kind: str) -> None:
    """By what divides the model."""
    assert layout_kind(cells) == kind
