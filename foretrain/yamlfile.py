"""One YAML file as plain data, or the reason and the line where it cannot be read."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from foretrain.errors import ProfileError

LARGEST_BYTES = 2**22
DEEPEST = 32
"""Mappings in mappings that a profile may have; no kind needs more than 6."""
LONGEST_SHOWN = 200
"""Characters of a path that a message repeats."""

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # the C loader is chosen at run time
    """The safe loader, without what YAML 1.1 does in silence: it keeps the last of two equal keys and reads 014 as 12."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # signature is PyYAML's
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        return dict(super().construct_mapping(node, deep=deep))

    def construct_yaml_int(self, node: yaml.ScalarNode) -> Any:
        """Return a whole number; text, which no field takes for one, where YAML 1.1 would read 014 as 12 or 1:30 as 90."""
        return node.value if re.match(r"[-+]?0[0-9_]|.*:", node.value) else super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> Any:
        """Return a number, or text where YAML 1.1 would read 1:30.0 as 90."""
        return node.value if ":" in node.value else super().construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def read_json_or_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a file, by JSON's own rules where it is JSON (tabs, `1e-05`), else as YAML.

    Raises as `read_mapping` does.
    """
    if path.suffix != ".json":
        return read_mapping(path)
    try:
        data = json.loads(_text(path))
    except (ValueError, RecursionError):
        return read_mapping(path)
    return _mapping(path, data)


def read_mapping(path: Path) -> dict[str, Any]:
    """Return the mapping that the file at `path` holds.

    Raises:
        ProfileError: where there is no such file, it cannot be read, is no YAML, or holds no mapping.
    """
    return _mapping(path, _parse(path, _text(path)))


def _mapping(path: Path, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {type(data).__name__}"
        raise ProfileError(f"{path}: holds {found}, but a profile is a mapping of keys to values")
    _refuse_deep(path, data, 0)
    return {str(key): value for key, value in data.items()}


def _refuse_deep(path: Path, data: Any, depth: int) -> None:
    """Refuse what no profile needs and no walk survives: aliases that hold themselves, endless nesting."""
    if depth > DEEPEST:
        raise ProfileError(f"{path}: is nested more than {DEEPEST} deep or holds itself through an alias; write it flat")
    for inner in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        _refuse_deep(path, inner, depth + 1)


def line_of(path: Path, keys: Sequence[str]) -> int | None:
    """Return the line (from 1) of the deepest of `keys` that the file itself gives, or None."""
    node, line = yaml.compose(_text(path), Loader=yaml.SafeLoader), None
    for key in keys:
        found = next((pair for pair in node.value if pair[0].value == key), None) if isinstance(node, yaml.MappingNode) else None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def resolved(path: Path) -> Path:
    """Return the path without links and dots; as it is where it can be none."""
    try:
        return path.resolve()
    except (OSError, ValueError, RuntimeError):
        return path


def is_file(path: Path) -> bool:
    """Tell whether there is something to read at `path`; what can be no path is no file."""
    try:
        return path.exists() and not path.is_dir()
    except (OSError, ValueError):
        return False


def _text(path: Path) -> str:
    try:
        text = "" if path.is_dir() else read_at_most(path, LARGEST_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise ProfileError(f"{path}: no such file; give the path of a YAML file, or a name that foretrain list shows") from None
    except UnicodeDecodeError:
        raise ProfileError(f"{path}: cannot be read (not UTF-8 text); give a YAML file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ProfileError(f"{str(path)[:LONGEST_SHOWN]!r}: cannot be read ({reason}); give the path of a YAML file") from None
    if path.is_dir():
        raise ProfileError(f"{path}: is a folder; give the YAML file in it")
    return text


def read_at_most(path: Path, most: int) -> bytes:
    """Return what is at `path`, and read no more than that: a device may have no end.

    Raises:
        OSError: where it cannot be read, or is longer than `most` bytes.
    """
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"over {most:,} bytes long")
    return data


def _parse(path: Path, text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ProfileError(f"{path}{line}: is no YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ProfileError(f"{path}: is no YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        raise ProfileError(f"{path}: holds a value that is none: {error}") from None
