"""The JSON schema of a profile, from which editors complete and check as one types."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_BASE = {"type": "string", "description": "the profile to inherit: a library name or the path of a file"}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a profile file; what is required may also come from its base."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.get("$defs", {})
    required = schema.pop("required", [])
    for definition in definitions.values():
        if "name" in definition.get("properties", {}):
            _inheritable(definition)
        if definition.get("title") != "Source":
            definition.pop("required", None)
    _inheritable(schema)
    schema["anyOf"] = [{"required": ["base"]}, {"required": required}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _inheritable(definition: dict[str, Any]) -> None:
    definition["properties"] = {"base": _BASE, **definition["properties"]}
