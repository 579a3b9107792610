"""Measurements on disk: appended, replaced by key, and whole again after a fault."""

import pytest

from foretrain.errors import ForetrainError
from foretrain.validate.records import Record, append_record, of_kind, read_records


def _step(key, value):
    return Record(kind="step", key=key, data={"step_s": {"median": value, "q1": value, "q3": value, "repeats": 3}})


def test_the_last_record_of_a_key_counts(tmp_path):
    path = tmp_path / "deep" / "runs.jsonl"
    for record in (_step("a", 1.0), _step("b", 2.0), _step("a", 3.0)):
        append_record(path, record)
    assert [(one.key, one.spread("step_s").median) for one in of_kind(read_records(path), "step")] == [("a", 3.0), ("b", 2.0)]


def test_a_torn_line_is_left_out_and_overwritten(tmp_path):
    path = tmp_path / "runs.jsonl"
    append_record(path, _step("a", 1.0))
    path.write_text(path.read_text() + '{"kind": "step", "ke')
    assert [one.key for one in read_records(path)] == ["a"]
    append_record(path, _step("b", 2.0))
    assert [one.key for one in read_records(path)] == ["a", "b"]


@pytest.mark.parametrize("text", ['{"kind": "step"}\n{"kind": "stamp", "key": "x"}\n', '{"kind": "stp", "key": "a"}\n', "no json\n\n"])
def test_what_is_no_record_is_named_by_its_line(tmp_path, text):
    path = tmp_path / "runs.jsonl"
    path.write_text(text)
    with pytest.raises(ForetrainError, match="line 1"):
        read_records(path)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ForetrainError, match="cannot write"):
        append_record(tmp_path / "file" / "runs.jsonl", _step("a", 1.0))
