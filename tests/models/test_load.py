"""Loading models: names, paths, inheritance, and every way a file can be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from foretrain.errors import ModelError, ProfileError, UnknownNameError
from foretrain.models.load import load_model
from foretrain.models.schema import ModelFile

Writer = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    """Return a function that writes a profile and gives its path."""

    def writer(text: str, name: str = "mine.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return writer


def test_a_name_and_a_sequence_length_load() -> None:
    """The library's model at the length that was asked for."""
    model = load_model("llama3-8b", seq_len=4096)
    assert (model.key, model.seq_len, model.depth) == ("llama3-8b", 4096, 32)


def test_an_unknown_name_offers_the_nearest() -> None:
    """A slip of the keyboard costs one line."""
    with pytest.raises(UnknownNameError, match="did you mean 'llama3-8b'"):
        load_model("lama3-8b")


def test_a_profile_may_change_one_dimension_of_another(write: Writer) -> None:
    """Half the layers of Llama 3 8B: half the parameters between the embeddings."""
    base = load_model("llama3-8b")
    half = load_model(write("name: half\nbase: llama3-8b\nlayers: 16\n"))
    assert base.parameters - half.parameters == 16 * base.layers[0][0].parameters
    assert half.name == "half"


def test_a_path_object_and_a_whole_profile_load(write: Writer) -> None:
    """A file needs no base; JSON is YAML."""
    whole = {
        "name": "tiny", "layers": 2, "hidden": 64, "heads": 4, "vocab": 100, "seq_len": 16, "positions": "none", "norm": "rmsnorm",
        "activation": "relu", "gated": False, "bias": False, "tied": True, "dropout": False,
    }  # fmt: skip
    assert load_model(Path(write(json.dumps(whole), "tiny.json"))).parameters == 2 * (12 * 64**2 + 2 * 64) + 100 * 64 + 64


def test_every_fault_of_a_file_is_said_at_once(write: Writer) -> None:
    """File, line, key, value, expectation, for each."""
    path = write("name: wrong\nbase: gpt2\nlayers: -3\nhiden: 64\nvocab: lots\nnorm: layer\n")
    with pytest.raises(ProfileError) as caught:
        load_model(path)
    faults = caught.value.faults
    assert len(faults) == 4
    assert f"{path}:3: layers: -3 is out of range; give a whole number from 1 to 100,000" in faults
    assert f"{path}:4: hiden: unknown key; did you mean 'hidden', 'ffn_hidden'?" in faults
    assert any("vocab: 'lots' is no whole number" in fault for fault in faults)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nbase: gpt2\nheads: 7\n", "heads=7 does not divide hidden=768; use a divisor (6 or 8)"),
        ("name: x\nbase: gpt5\n", "no model is called 'gpt5'; did you mean"),
        ("name: x\n", "layers: is missing"),
        ("name: x\nbase: gpt2\nsource: rumour\n", "source 'rumour' is not in the table"),
        ("name: x\nbase: gpt2\ntied: perhaps\n", "tied: 'perhaps'"),
        ("- a list\n", "holds a list"),
        ("layers: [1\n", "is no YAML"),
    ],
)
def test_a_mistake_in_a_file_is_answered_with_the_remedy(write: Writer, text: str, said: str) -> None:
    """Each in at most three lines that begin with the file."""
    path = write(text)
    with pytest.raises(ProfileError) as caught:
        load_model(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(path)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """Not mistaken for a library name."""
    with pytest.raises(ProfileError, match="no such file"):
        load_model(str(tmp_path / "none.yaml"))


def test_an_impossible_length_is_a_model_error() -> None:
    """The file is right; the request is not."""
    with pytest.raises(ModelError, match="seq_len -1"):
        load_model("gpt2", seq_len=-1)


def test_the_schema_for_editors_lists_every_dimension() -> None:
    """Editors complete profiles from it."""
    schema = ModelFile.model_json_schema()
    assert {"layers", "hidden", "heads", "vocab", "seq_len", "published"} <= schema["properties"].keys()
