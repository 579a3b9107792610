"""Models by library name, or from a user's own profile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from foretrain.errors import ModelError, ProfileError
from foretrain.inherit import Kind, read_tree
from foretrain.library import Shelf
from foretrain.models.architectures import architecture_of, build_model, imported
from foretrain.models.model import Model
from foretrain.models.timm_name import PREFIX, TimmModel, timm_model
from foretrain.yamlfile import read_json_or_yaml

SHELF = Shelf("model", Path(__file__).parent / "library")
_KIND = Kind(SHELF)
TELLING = frozenset({"model_type", "architectures", "transformers_version"})
"""Keys that only a Hugging Face config.json has."""


def list_models() -> tuple[str, ...]:
    """Return the names of the library's models, sorted."""
    return SHELF.names()


def load_model(name_or_path: str | Path, seq_len: int | None = None, image_size: int | None = None) -> Model:
    """Return a model of the library, of timm (`timm:resnet50`) or of the profile at a path, at its own size or another.

    Raises:
        UnknownNameError: where the library holds no such name.
        ProfileError: for a file that cannot be read or says what no model is; it holds every fault.
        ModelError: for an impossible sequence length or image size.
    """
    spec = load_spec(name_or_path)
    if isinstance(spec, TimmModel) and image_size is not None:
        spec = replace(spec, image_size=image_size)  # rather than trace it at its own size first
    return build_model(spec).at_sequence(seq_len).at_image(image_size)


def load_spec(name_or_path: str | Path) -> Any:
    """Return the dimensions of a model of the library, of timm (`timm:NAME`) or of the profile at a path, as its architecture has them.

    Raises as `load_model` does.
    """
    if str(name_or_path).startswith(PREFIX):
        return timm_model(str(name_or_path))
    # pydantic takes a tenth of a second to import, which `import foretrain` need not pay.
    from foretrain.faults import validate  # noqa: PLC0415

    path = name_or_path if isinstance(name_or_path, Path) else SHELF.find(str(name_or_path))
    foreign = _configuration(path)
    if foreign is not None:
        return foreign
    tree = read_tree(_KIND, path)
    try:
        return validate(imported(architecture_of(tree.data, path).schema), tree, path).spec(path.stem)
    except ModelError as error:
        raise ProfileError(f"{path}: {error}", (str(error),)) from None


def _configuration(path: Path) -> Any:
    """Return the definition of a model from a Hugging Face config.json; None where the file is a profile of our own."""
    if SHELF.holds(path):
        return None
    data = read_json_or_yaml(path)
    if not TELLING & data.keys() or "architecture" in data:
        return None
    config = imported("foretrain.models.hf.config:Config")
    try:
        return config(name="", key=path.stem, config=data)
    except ModelError as error:
        raise ProfileError(f"{path}: {error}", (str(error),)) from None
