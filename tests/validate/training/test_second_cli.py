"""The second opinions on the command line."""

import importlib.util
import json

import pytest

from foretrain.cli import main

SMALL = ("--model", "mlp:width=16,depth=1,classes=4", "--device", "cpu", "--seconds", "0.02")


def trainer(*options):
    with pytest.raises(SystemExit) as ended:
        main(["validate", "trainer", *options])
    return ended.value.code


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--framework", "jaks"), "jax"),
        (("--framework", "jax", "--energy"), "--energy is of the torch trainer"),
        (("--framework", "jax", "--compile"), "jax compiles every step"),
        (("--framework", "jax", "--plan", "pp=2"), "pp=2 is not run by jax"),
        (("--framework", "tensorflow", "--plan", "tp=2"), "MirroredStrategy"),
        (("--framework", "tensorflow", "--software", "xla"), "--software"),
    ],
)
def test_what_another_framework_does_not_run_is_status_2(options, words, tmp_path, capsys):
    assert trainer(*SMALL, *options, "--out", str(tmp_path / "out.jsonl")) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_a_case_on_jax_is_printed_and_kept(tmp_path, capsys):
    """A second start finds it in the file."""
    options = (*SMALL, "--framework", "jax", "--plan", "dp=2,micro_batch=4", "--json", "--out", str(tmp_path / "out.jsonl"))
    assert trainer(*options) == 0
    (first,) = json.loads(capsys.readouterr().out)
    assert (first["backend"], first["world_size"], first["parameters"]) == ("jax", 2, 16 * 16 + 16 + 2 * (16 * 16 + 16) + 16 * 4 + 4)
    assert trainer(*options) == 0
    assert json.loads(capsys.readouterr().out) == [first]
