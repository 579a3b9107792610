"""Configurations read by their fields: what is assumed, what goes by another name, and every way a file can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.cli import run
from foretrain.errors import ModelError, ProfileError
from foretrain.models.hf.config import Config, build
from foretrain.models.hf.fields import class_defaults
from foretrain.models.hf.registry import READERS
from foretrain.models.load import load_model
from foretrain.models.ops import Layout

LLAMA: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
    "intermediate_size": 96, "max_position_embeddings": 128, "tie_word_embeddings": False,
}  # fmt: skip
GEMMA = {**LLAMA, "model_type": "gemma3_text", "head_dim": 16, "num_hidden_layers": 12, "sliding_window": 32}


def write(folder: Path, fields: Any) -> str:
    path = folder / "config.json"
    path.write_text(fields if isinstance(fields, str) else json.dumps(fields, indent="\t"))
    return str(path)


def test_a_config_is_a_model(tmp_path: Path) -> None:
    """Parameters by hand: table and logits, norms, Q and O, K and V, three matrices of the MLP. JSON may be indented by tabs."""
    model = load_model(write(tmp_path, LLAMA))
    layer = 2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96
    assert model.parameters == 2 * 100 * 64 + 4 * layer + 64
    assert (model.seq_len, model.depth, model.hidden) == (128, 4, 64)
    assert load_model(write(tmp_path, LLAMA), seq_len=64).seq_len == 64


def test_what_a_file_leaves_out_is_said(tmp_path: Path) -> None:
    """The class's defaults count, and each is named with its value."""
    fields = {key: value for key, value in LLAMA.items() if key not in ("intermediate_size", "num_key_value_heads", "tie_word_embeddings")}
    model = load_model(write(tmp_path, fields))
    assert "intermediate_size 11,008 (left out; default of llama)" in model.assumed
    assert any(note.startswith("tie_word_embeddings false") for note in model.assumed)
    assert any(note.startswith("num_key_value_heads 4 (left out") for note in model.assumed)
    assert not any("hidden_size" in note for note in model.assumed)


def test_fields_go_by_their_other_names(tmp_path: Path) -> None:
    """GPT-2 writes n_embd; transformers takes hidden_size as well."""
    one = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100}
    other = {"model_type": "gpt2", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    assert load_model(write(tmp_path, one)).parameters == load_model(write(tmp_path, other)).parameters


def test_layers_differ_where_windows_alternate(tmp_path: Path) -> None:
    """Five local layers, then a global one; two kinds of block, each priced once. A longer pattern makes fewer global ones."""
    model = load_model(write(tmp_path, GEMMA))
    assert [(block.name, count) for block, count in model.layers] == [("local_layer", 5), ("global_layer", 1)] * 2
    assert len({id(block) for block, _ in model.layers}) == 2
    other = load_model(write(tmp_path, {**GEMMA, "sliding_window_pattern": 4}))
    assert sum(count for block, count in other.layers if block.name == "global_layer") == 3
    named = load_model(write(tmp_path, {**GEMMA, "layer_types": ["full_attention"] * 11 + ["sliding_attention"]}))
    assert [count for _, count in named.layers] == [11, 1]


def test_a_window_costs_its_width(tmp_path: Path) -> None:
    """Model FLOPs of local layers grow with the sequence, those of global ones with its square."""
    def core(model: Any, name: str) -> float:
        block = next(block for block, _ in model.layers if block.name == name)
        op = next(op for op in block.ops if op.name == "attention")
        return sum(kernel.model_flop for kernel in op.forward(Layout(micro_batch=1)))

    model, longer = load_model(write(tmp_path, GEMMA), 64), load_model(write(tmp_path, GEMMA), 128)
    assert core(longer, "local_layer") == 2 * core(model, "local_layer")
    assert core(longer, "global_layer") == 4 * core(model, "global_layer")
    assert core(model, "local_layer") == core(model, "global_layer") / 2


def test_only_the_language_model_of_a_wrapper_is_taken(tmp_path: Path) -> None:
    """With a note; the inner configuration says which it is."""
    wrapped = {"model_type": "llava", "text_config": LLAMA, "vision_config": {"model_type": "clip_vision_model"}}
    model = load_model(write(tmp_path, wrapped))
    assert model.parameters == load_model(write(tmp_path, LLAMA)).parameters
    assert "only the language model of this llava: its other parts are left out" in model.assumed


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    """`auto_map` names a module; it is passed over, with a note."""
    fields = {**LLAMA, "auto_map": {"AutoConfig": "evil--code.Config"}, "quantization_config": {"bits": 4}}
    notes = load_model(write(tmp_path, fields)).assumed
    assert any(note.startswith("auto_map") for note in notes)
    assert any(note.startswith("quantization_config") for note in notes)


def test_an_encoder_beside_a_decoder_carries_its_outputs_along(tmp_path: Path) -> None:
    """What a pipeline sends: the encoder's rows and the target's, on both sides."""
    fields: dict[str, Any] = {"model_type": "t5", "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 3, "num_heads": 4, "vocab_size": 100}
    fields["n_positions"] = 32
    model = load_model(write(tmp_path, fields))
    assert {block.input_elements for block, _ in model.layers} == {2 * 32 * 64}
    assert model.depth == 6
    assert model.tied_parameters == 100 * 64


def test_an_albert_holds_its_layer_once(tmp_path: Path) -> None:
    """Gradients are made for every layer; parameters are one layer's. A pipeline would need copies: it is refused."""
    fields = {
        "model_type": "albert", "hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "vocab_size": 100,
        "intermediate_size": 96, "embedding_size": 32, "architectures": ["AlbertForMaskedLM"],
    }  # fmt: skip
    model = load_model(write(tmp_path, fields))
    (first, _), (rest, count) = model.layers
    assert (first.parameters > 0, rest.parameters, count) == (True, 0, 5)
    path = write(tmp_path, fields)
    assert run(["simulate", "--model", path, "--cluster", "dgx-a100-80gb:1", "--pp", "2", "--global-batch", "64"]) == 2


def test_a_config_simulates_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a name of the library does; `--set model.config.FIELD` changes a field."""
    path = write(tmp_path, LLAMA)
    job = ["simulate", "--model", path, "--cluster", "dgx-a100-80gb:1", "--global-batch", "64", "--json"]
    assert run(job) == 0
    whole = json.loads(capsys.readouterr().out)
    assert run([*job, "--set", "model.config.num_hidden_layers=2"]) == 0
    half = json.loads(capsys.readouterr().out)
    assert half["parameters"] < whole["parameters"]
    assert run(["show", path, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["parameters"] == whole["parameters"]
    assert shown.keys() >= {"parameters", "active_parameters", "flop_per_sample", "activation_bytes_per_sample", "layers"}
    assert run(["show", path]) == 0


WRONG: dict[str, tuple[Any, str]] = {
    "unknown type": ({**LLAMA, "model_type": "lama"}, "did you mean 'llama'"),
    "no type": ({key: value for key, value in LLAMA.items() if key != "model_type"} | {"architectures": ["X"]}, "model_type is missing"),
    "type no word": ({**LLAMA, "model_type": 7}, "unknown"),
    "no width": ({key: value for key, value in LLAMA.items() if key != "hidden_size"}, "hidden_size is missing"),
    "no layers": ({key: value for key, value in LLAMA.items() if key != "num_hidden_layers"}, "num_hidden_layers is missing"),
    "empty but for its type": ({"model_type": "llama"}, "is missing"),
    "heads do not divide": ({**LLAMA, "num_attention_heads": 5, "num_key_value_heads": 5}, "does not divide hidden_size 64"),
    "more keys than heads": ({**LLAMA, "num_key_value_heads": 8}, "exceeds num_attention_heads 4"),
    "keys do not divide": ({**LLAMA, "num_key_value_heads": 3}, "does not divide num_attention_heads 4"),
    "negative": ({**LLAMA, "num_hidden_layers": -4}, "out of range"),
    "zero": ({**LLAMA, "vocab_size": 0}, "out of range"),
    "absurd": ({**LLAMA, "hidden_size": 10**15}, "out of range"),
    "absurd depth": ({**LLAMA, "num_hidden_layers": 10**8}, "out of range"),
    "text": ({**LLAMA, "hidden_size": "64"}, "no whole number"),
    "a fraction": ({**LLAMA, "hidden_size": 64.5}, "no whole number"),
    "a truth": ({**LLAMA, "num_hidden_layers": True}, "no whole number"),
    "null": ({**LLAMA, "hidden_size": None}, "no whole number"),
    "a list": ({**LLAMA, "hidden_size": [64]}, "no whole number"),
    "no truth": ({**LLAMA, "tie_word_embeddings": "yes"}, "neither true nor false"),
    "unknown activation": ({**LLAMA, "hidden_act": "sulu"}, "did you mean 'silu'"),
    "too few layer types": ({**GEMMA, "layer_types": ["full_attention"] * 3}, "has 3 entries, but there are 12 layers"),
    "unknown layer type": ({**GEMMA, "layer_types": ["linear_attention"] * 12}, "unknown"),
    "layer types no list": ({**GEMMA, "layer_types": "full"}, "is no list"),
    "more experts a token than there are": (
        {**LLAMA, "model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 4}, "exceeds the 2 experts"
    ),
    "no such share": ({**LLAMA, "attention_dropout": 7}, "no share"),
    "patterns that miss": (
        {"model_type": "gpt_neo", "hidden_size": 64, "num_layers": 3, "num_heads": 4, "vocab_size": 9}, "num_layers is 3"
    ),
    "feed forward": (
        {"model_type": "t5", "d_model": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 9, "feed_forward_proj": "gated-x"}, "unknown"
    ),
    "patch beyond the image": (
        {"model_type": "vit", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 8, "patch_size": 16},
        "exceeds image_size",
    ),
    "a decoder that is none": ({**LLAMA, "model_type": "bert", "is_decoder": True}, "set both to false"),
    "no JSON": ('{"model_type": "llama", ', "config.json"),
    "a list for a file": ("[1, 2]", "holds a list"),
    "empty": ("", "holds nothing"),
    "null for a file": ("null", "holds nothing"),
    "wrapped nothing": ({"model_type": "llava", "text_config": {}}, "missing"),
    "wrapped unknown": ({"model_type": "llava", "text_config": {"model_type": "x"}}, "unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_three_lines_at_most_and_status_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each names the file, the field and what would do."""
    fields, said = WRONG[name]
    path = write(tmp_path, fields)
    for command in (["simulate", "--model", path, "--cluster", "dgx-a100-80gb:1"], ["show", path]):
        assert run(command) == 2
        out, err = capsys.readouterr()
        assert not out
        assert "config.json" in err
        assert 1 <= len(err.splitlines()) <= 3
        if command[0] == "simulate":
            assert said in err


def test_the_understood_types_are_listed(tmp_path: Path) -> None:
    """An unknown one is answered with all of them."""
    with pytest.raises(ProfileError, match=r"understood are albert, bart.*qwen3_moe"):
        load_model(write(tmp_path, {"model_type": "mamba", "hidden_size": 64}))


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**12), 10**12), st.floats(), st.text(max_size=5), st.lists(st.integers(-3, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(deadline=None, derandomize=True, max_examples=400)
@given(model_type=st.sampled_from(sorted(READERS)), data=st.data())
def test_no_field_brings_down_the_reader(model_type: str, data: st.DataObject) -> None:
    """Whatever a field holds, there is a model with a finite count, or an error of ours."""
    known = {**class_defaults()[model_type]["fields"], "architectures": None, "id2label": None, "rope_parameters": None, "head_dim": None}
    sizes = {"layer": 2, "head": 4, "vocab": 64, "hidden_size": 64, "embd": 64, "d_model": 64, "dim": 64}
    small = {
        name: next((size for part, size in sizes.items() if part in name), value) if isinstance(value, int) and value > 1 else value
        for name, value in known.items()
    }  # fmt: skip
    junk = data.draw(st.dictionaries(st.sampled_from(sorted(known)), JUNK, min_size=1, max_size=3))
    try:
        model = build(Config(name="x", key="x", config={"model_type": model_type, **small, **junk}, size=None))
    except ModelError:
        return
    assert model.parameters > 0
    assert model.assumed is not None
