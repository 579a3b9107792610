"""Files of published runs: the one that comes along, and bad ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretrain.errors import UsageError
from foretrain.validate.runs_file import LLM_COLUMNS, read_runs

HEADER = ",".join(sorted(LLM_COLUMNS))


def test_the_file_that_comes_with_the_package_is_read_whole() -> None:
    """1,650 published steps, none malformed."""
    runs = read_runs(None)
    assert (runs.kind, len(runs.lines)) == ("llm_runs", 1650)
    assert not any(line.fault for line in runs.lines)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("\n", "empty"),
        (HEADER + "\n", "no runs"),
        ("name,age\nada,36\n", "none that is understood.*understood: llm_runs.csv"),
        (HEADER.replace("tp,", "") + "\n1\n", "lacks the column tp"),
    ],
)
def test_a_file_that_is_no_table_of_runs_is_refused(tmp_path: Path, content: str, words: str) -> None:
    """Each with what is wrong and what is understood."""
    path = tmp_path / "runs.csv"
    path.write_text(content)
    with pytest.raises(UsageError, match=words):
        read_runs(path)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    """No traceback for a wrong path or a picture."""
    with pytest.raises(UsageError, match="cannot read"):
        read_runs(tmp_path / "none.csv")
    binary = tmp_path / "picture.png"
    binary.write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a text file"):
        read_runs(binary)


def test_a_line_of_the_wrong_length_keeps_its_place(tmp_path: Path) -> None:
    """It is listed with its fault, between its neighbours."""
    path = tmp_path / "runs.csv"
    good = ",".join("1" for _ in LLM_COLUMNS)
    path.write_text(f"{HEADER}\n{good}\n1,2,3\n{good}\n")
    assert [bool(line.fault) for line in read_runs(path).lines] == [False, True, False]


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    """Spreadsheets write one."""
    path = tmp_path / "runs.csv"
    path.write_text(f"{HEADER}\n{','.join('1' for _ in LLM_COLUMNS)}\n", encoding="utf-8-sig")
    assert read_runs(path).kind == "llm_runs"
