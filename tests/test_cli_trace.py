"""`foretrain trace`: modules by the name of a factory, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foretrain.cli import run

pytest.importorskip("torch")

SOURCE = '''
import torch
from torch import nn

NUMBER = 3

def mlp():
    return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 10))

def tagger():
    return nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 4))

def looks_at_values():
    return nn.Linear(int(torch.ones(3).sum().item()), 2)

def fails():
    raise ValueError("no luck")

def text():
    return "hello"
'''


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the name of a module beside the user."""
    (tmp_path / "factories_of_a_test.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "factories_of_a_test"


def test_a_module_becomes_a_profile_that_simulates(factories: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Traced, written, and predicted from the file."""
    assert run(["trace", f"{factories}:mlp", "--input", "4x16", "--out", "mlp.yaml"]) == 0
    assert "1,738" in capsys.readouterr().out
    assert run(["simulate", "--model", "./mlp.yaml", "--cluster", "dgx-a100-80gb:1", "--global-batch", "64"]) == 0


def test_json(factories: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Integer inputs, and the facts as JSON."""
    assert run(["trace", f"{factories}:tagger", "--input", "2x5", "--input-dtype", "int64", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["parameters"], data["seq_len"], data["ops"]) == (836, 5, {"embedding": 1, "linear": 1})


def test_a_factory_that_looks_at_values_is_built_as_it_is(factories: str) -> None:
    """Building without memory is tried first, and given up where it does not work."""
    assert run(["trace", f"{factories}:looks_at_values", "--input", "2x3"]) == 0


MISTAKES = {
    "no colon": (("{}", "--input", "2x3"), "package.module:factory"),
    "no module": (("{}s:mlp", "--input", "2x3"), "no module"),
    "no factory": (("{}:mpl", "--input", "2x3"), "'mlp'"),
    "no callable": (("{}:NUMBER", "--input", "2x3"), "builds nothing"),
    "no torch module": (("{}:text", "--input", "2x3"), "returned 'hello'"),
    "factory fails": (("{}:fails", "--input", "2x3"), "no luck"),
    "no input": (("{}:mlp",), "no --input"),
    "no shape": (("{}:mlp", "--input", "2xa"), "is no shape"),
    "zero samples": (("{}:mlp", "--input", "0x16"), "is no shape"),
    "absurd shape": (("{}:mlp", "--input", "9" * 500), "is no shape"),
    "wrong shape": (("{}:mlp", "--input", "2x17"), "Sequential.0 failed in forward on inputs of 2×17"),
    "unknown dtype": (("{}:mlp", "--input", "2x16", "--input-dtype", "int46"), "int64"),
    "wrong dtype": (("{}:tagger", "--input", "2x5"), "Sequential.0 failed"),
    "too many dtypes": (("{}:mlp", "--input", "2x16", "--input-dtype", "int64", "--input-dtype", "int64"), "one for each"),
    "no profile": (("{}:mlp", "--input", "2x16", "--out", "mlp.txt"), ".yaml"),
    "no folder": (("{}:mlp", "--input", "2x16", "--out", "nowhere/mlp.yaml"), "cannot be written"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes_are_said_in_a_line(factories: str, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, one to three lines, with what was expected."""
    arguments, expected = MISTAKES[kind]
    assert run(["trace", *(one.replace("{}", factories) for one in arguments)]) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert 1 <= len(said.splitlines()) <= 3
