"""Every library model against the parameter count that its makers publish."""

from __future__ import annotations

from pathlib import Path

import pytest

from foretrain.inherit import Kind, read_tree
from foretrain.models.architectures import architecture_of, imported
from foretrain.models.load import SHELF, list_models, load_model, load_spec
from foretrain.models.schema import ArchitectureFile

EXACT = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "llama2-7b": 6_738_415_616,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "bloom-176b": 176_247_271_424,
    "llama3.2-1b": 1_235_814_400,
    "mixtral-8x7b": 46_702_792_704,
    "qwen3-235b-a22b": 235_093_634_560,
    "gemma2-9b": 9_241_705_984,
    "deepseek-v3": 671_026_404_352,
    "gpt-oss-120b": 116_829_156_672,
    "opt-350m": 331_196_416,
    "falcon-40b": 41_303_293_952,
    "t5-11b": 11_307_321_344,
    "vit-b-16": 86_567_656,
}
ROUNDED = {"gpt3-125m", "gpt3-350m", "gpt3-760m", "gpt3-1.3b", "gpt3-2.7b", "gpt3-6.7b", "gpt3-13b", "transformer-base", "transformer-big"}
"""Published to two or three digits only."""


def profile(name: str) -> ArchitectureFile:
    data = read_tree(Kind(SHELF), SHELF.find(name)).data
    schema: type[ArchitectureFile] = imported(architecture_of(data, name).schema)
    return schema.model_validate(data)


@pytest.mark.parametrize("name", list_models())
def test_parameters_equal_the_published_count(name: str) -> None:
    """To 0.1 %, or to the digits of a count that was published rounded."""
    published = profile(name).published
    assert published is not None
    assert published.within <= (0.04 if name in ROUNDED else 1e-3)
    assert load_model(name).parameters == pytest.approx(published.parameters, rel=published.within)


@pytest.mark.parametrize(("name", "parameters"), EXACT.items())
def test_parameters_equal_the_tensors_of_the_checkpoint(name: str, parameters: int) -> None:
    """To the last one."""
    assert load_model(name).parameters == parameters


@pytest.mark.parametrize("name", [name for name in list_models() if name.startswith("megatron-")])
def test_megatron_names_round_to_their_table(name: str) -> None:
    """Narayanan et al., table 1, gives billions with one decimal."""
    assert f"{load_model(name).parameters / 1e9:.1f}" == f"{float(name.removeprefix('megatron-').removesuffix('b')):.1f}"


@pytest.mark.parametrize("name", list_models())
def test_every_model_names_its_sources(name: str) -> None:
    """Dimensions and count each have a source that the profile declares."""
    file = profile(name)
    assert file.published is not None
    assert {file.source, file.published.source} <= file.sources.keys()


@pytest.mark.parametrize("name", list_models())
def test_every_model_is_listed_under_its_own_name(name: str) -> None:
    """No two share a title, and the key is what the user typed."""
    assert load_model(name).key == name
    assert [load_spec(other).name for other in list_models()].count(load_spec(name).name) == 1


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("mixtral-8x7b", 12.9), ("deepseek-v3", 37), ("deepseek-v2", 21), ("gpt-oss-120b", 5.1), ("qwen3-30b-a3b", 3.3),
        ("qwen3-235b-a22b", 22),
    ],
)
def test_active_parameters_are_what_their_makers_say(name: str, billions: float) -> None:
    """Of a mixture, what one token meets; makers round, and some leave the embedding out."""
    active = load_model(name).active_parameters
    assert active is not None
    assert active / 1e9 == pytest.approx(billions, rel=0.15 if name == "gpt-oss-120b" else 0.03)


def test_deepseek_predicts_a_token_further_where_it_is_asked(tmp_path: Path) -> None:
    """README_WEIGHTS of DeepSeek-V3: 11.5 B parameters of its own, embedding and head shared."""
    path = tmp_path / "further.yaml"
    path.write_text("name: further\nbase: deepseek-v3\nfurther: 1\n")
    plain, model = load_model("deepseek-v3"), load_model(path)
    assert (model.parameters - plain.parameters) / 1e9 == pytest.approx(11.5, abs=0.2)
    assert model.active_parameters is not None
    assert plain.active_parameters is not None
    assert model.flop_per_sample() > plain.flop_per_sample() * (1 + 1 / 61)


def test_the_library_holds_the_families() -> None:
    """GPT-2, GPT-3, Megatron, BLOOM, MT-NLG, Llama 1 to 3, those of transformers; classic networks, detectors, recommenders."""
    classic = {"lenet-5", "alexnet", "vgg-16", "googlenet", "inception-v3", "resnet-50", "retinanet", "ssd-resnet34", "unet3d"}
    assert classic | {"dlrm", "dlrm-dcnv2", "ncf", "wide-and-deep", "gnmt", "deepspeech2"} <= set(list_models())
    wanted = {*EXACT, *ROUNDED, "gpt2-large", "gpt3-175b", "megatron-1.7b", "megatron-1008b", "mt-nlg-530b", "llama-65b", "llama2-70b"}
    assert wanted <= set(list_models())
