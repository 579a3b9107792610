"""Which kind of parallelism a measured collective serves: by the name of its group, its size, or what it does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from foretrain.sim.plan import Plan
from foretrain.sim.segment import CONTEXT, DATA, EXPERT, PIPELINE, TENSOR

_WORDS = (
    (TENSOR, r"\btp\b|tensor|model_parallel"), (CONTEXT, r"\bcp\b|context"), (EXPERT, r"\bep\b|expert"),
    (PIPELINE, r"\bpp\b|pipe|stage"), (DATA, r"\bdp\b|data|fsdp|ddp|shard|replica"),
)  # fmt: skip
_ELEMENT_BYTES = {
    "float": 4, "double": 8, "half": 2, "bfloat16": 2, "int": 4, "long": 8, "short": 2, "char": 1, "byte": 1, "bool": 1,
    "float8_e4m3fn": 1, "float8_e5m2": 1,
}  # fmt: skip


def kind_of(op: str, arguments: Mapping[str, Any], plan: Plan) -> str:
    """Return the class of the breakdown of a collective or message.

    The words for its group decide; else the only dimension of the plan that has as many ranks; else what it does.
    """
    words = f"{arguments.get('Process Group Description', '')} {arguments.get('Process Group Name', '')}".lower().replace("_", " ")
    named = next((kind for kind, pattern in _WORDS if re.search(pattern.replace("_", " "), words)), None)
    if named is not None:
        return named
    if op in ("send", "recv") and plan.pp > 1:
        return PIPELINE
    ranks = {DATA: plan.dp, TENSOR: plan.tp, CONTEXT: plan.cp, PIPELINE: plan.pp}
    several = [kind for kind, count in ranks.items() if count > 1]
    if op == "all_to_all" and (plan.ep > 1 or plan.cp > 1):
        return EXPERT if plan.ep > 1 else CONTEXT
    sized = [kind for kind in several if str(ranks[kind]) == str(arguments.get("Group size", ""))]
    candidates = sized or several
    return candidates[0] if candidates else DATA


def payload_bytes(arguments: Mapping[str, Any]) -> float:
    """Return the bytes of a collective's full tensor as the trace says them; 0 where it does not."""
    try:
        elements = max(float(arguments.get("In msg nelems", 0)), float(arguments.get("Out msg nelems", 0)))
    except (TypeError, ValueError):
        return 0.0
    return elements * _ELEMENT_BYTES.get(str(arguments.get("dtype", "")).lower(), 0)
