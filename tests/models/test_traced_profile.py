"""Traced models as files: written, read without torch, and refused where they are wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import foretrain as ft
from foretrain.errors import ModelError, ProfileError
from foretrain.models.matmul import Linear
from foretrain.models.model import Block, Model
from foretrain.models.moves import Amount, Moves, Pass
from foretrain.models.opdata import STEPS, step_data, step_of
from foretrain.models.ops import Boundary, Layout
from foretrain.models.product import Product, Size
from foretrain.models.recurrent import Recurrent
from foretrain.models.traced import model_data
from foretrain.models.transformer import build, transformer_from_dimensions

MOVES = Moves(
    name="norm", forward_pass=Pass(2, Amount(10, 3, 0, 1)), backward_pass=Pass(1, Amount(20)), saved=Amount(0, 4), parameters=8,
    fused_forward=Pass(1, Amount(5)), fused_backward=Pass(), fused_saved=Amount(1.5), split="sequence",
)  # fmt: skip
LAYER = Block(
    name="layer",
    input_elements=64,
    steps=(
        MOVES,
        Linear(name="up", tokens=4, in_features=16, out_features=64, bias=True, cut="column"),
        Boundary(name="leave", kind="leave", elements=64),
        Product(name="scores", batch=Size(0, 2), m=Size(4), n=Size(4), k=Size(8), right_grad=False, saved=Amount(3)),
        Recurrent(name="cells", cell="gru", steps=4, in_features=16, hidden=8),
    ),
)
MODEL = Model(
    name="hand", key="hand", seq_len=4, prologue=(), layers=((LAYER, 3), (replace(LAYER, name="other", input_elements=32), 1)),
    epilogue=(Block(name="head", steps=(MOVES,), input_elements=64),), tied_parameters=2, tensor_dims={"MLP width": 64},
    uncut={"pipeline": "a reason"},
)  # fmt: skip


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_model_comes_back_as_it_was_written(tmp_path: Path, suffix: str) -> None:
    """Equal in every field, and each block is written once."""
    path = tmp_path / f"hand{suffix}"
    ft.save_model(MODEL, path)
    assert ft.load_model(path) == MODEL
    assert len(yaml.safe_load(path.read_text())["blocks"]) == 3


def test_a_builders_model_can_be_written_as_well(tmp_path: Path) -> None:
    """Every op that a builder makes has a word."""
    spec = transformer_from_dimensions("llama", name="small", layers=2, hidden=32, heads=4, vocab=64, seq_len=16)
    built = build(spec)
    ft.save_model(built, tmp_path / "small.yaml")
    back = ft.load_model(tmp_path / "small.yaml")
    assert replace(back, hidden=built.hidden, rebuild=built.rebuild) == built


@pytest.mark.parametrize("step", LAYER.steps, ids=lambda step: step.name)
def test_ops_go_through_plain_data(step: Any) -> None:
    """JSON and back is the same op; what is as usual is left out."""
    data = json.loads(json.dumps(step_data(step)))
    assert step_of(data) == step
    assert data.keys() <= {"op", *type(step).__slots__}


def test_a_traced_profile_needs_no_torch(tmp_path: Path) -> None:
    """Loaded, shown and simulated by an interpreter that refuses to import torch."""
    ft.save_model(MODEL, tmp_path / "hand.yaml")
    code = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ImportError('torch is blocked')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from foretrain.cli import run\n"
        f"path = {str(tmp_path / 'hand.yaml')!r}\n"
        "assert run(['show', path]) == 0\n"
        "sys.exit(run(['simulate', '--model', path, '--cluster', 'dgx-a100-80gb:1', '--global-batch', '8', '--json']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_torch_is_said() -> None:
    """Tracing without the extra names it."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import foretrain as ft\n"
        "try: ft.from_module(None, None)\n"
        "except ft.ForetrainError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'foretrain[torch]'" in done.stdout


def with_op(**changes: Any) -> dict[str, Any]:
    data = model_data(MODEL)
    data["blocks"][0]["ops"][1] |= changes
    return data


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown op": (with_op(op="liner"), "linear"),
    "unknown field": (with_op(token=3), "tokens"),
    "negative": (with_op(tokens=-3), "from 0 to"),
    "no number": (with_op(tokens="4"), "from 0 to"),
    "infinite": (with_op(tokens=float("inf")), "from 0 to"),
    "unknown word": (with_op(cut="colum"), "column"),
    "no truth": (with_op(bias="yes"), "true or false"),
    "missing block": ({**model_data(MODEL), "layers": [[7, 1]]}, "block 7"),
    "no count": ({**model_data(MODEL), "layers": [[0, 0]]}, "count from 1"),
    "no layers": ({**model_data(MODEL), "layers": []}, "layers"),
    "no blocks": ({**model_data(MODEL), "blocks": [3]}, "a block has a"),
    "no ops": ({**model_data(MODEL), "blocks": [{"name": "x", "ops": [3]}]}, "no op"),
    "unknown key": ({**model_data(MODEL), "layer": 1}, "layers"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_mistakes_in_a_profile_are_said(tmp_path: Path, kind: str) -> None:
    """The file, the block, the op, the field, and what it may be."""
    data, expected = WRONG[kind]
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(data))
    with pytest.raises(ProfileError, match=expected):
        ft.load_model(path)


def test_an_op_without_a_word_is_refused() -> None:
    """An op of somebody's own cannot be written."""

    class Own(Moves):  # type: ignore[misc]
        pass

    with pytest.raises(ModelError, match="no op that a profile holds"):
        step_data(Own(name="own"))


def test_every_word_is_a_class_of_its_own() -> None:
    """Words and classes are one to one."""
    assert len(set(STEPS.values())) == len(STEPS)


def test_moves_follow_samples_and_precision() -> None:
    """Elements scale with their size, octets do not; what is there once does not grow with the samples."""
    layout = Layout(micro_batch=3, element_bytes=2.0)
    assert MOVES.forward(layout)[0].moved_bytes == 3 * (10 * 2 + 3) + 1
    assert MOVES.saved_bytes(layout) == 3 * 4
    fused = replace(layout, fused=frozenset({"pointwise"}))
    assert (MOVES.forward(fused)[0].moved_bytes, MOVES.backward(fused)) == (3 * 5 * 2, ())
    assert replace(MOVES, split="tensor").saved_bytes(replace(layout, tp=4)) == 3.0


def test_recurrent_gradients_take_twice_the_forward_pass() -> None:
    """Every product has two gradients; the data's own is left out where they are data."""
    layout = Layout(micro_batch=2)
    op = Recurrent(name="cells", cell="lstm", steps=5, in_features=7, hidden=3, layers=2, directions=2)
    forward = sum(kernel.flop for kernel in op.forward(layout))
    inner = 2 * 2 * 10 * 12 * (7 + 3) + 2 * 2 * 10 * 12 * (6 + 3)
    assert forward == inner
    assert sum(kernel.flop for kernel in op.backward(layout)) == 2 * forward
    without = sum(kernel.flop for kernel in replace(op, input_grad=False).backward(layout))
    assert 2 * forward - without == 2 * 2 * 10 * 12 * 7
