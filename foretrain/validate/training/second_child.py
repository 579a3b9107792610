"""The process in which another framework runs a case: it starts with the settings of this case, and its memory is this case's alone.

Reads {"case", "settings"} as JSON on stdin; writes {"data"} or {"error"} to the file that it is given.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from foretrain.errors import ForetrainError
from foretrain.validate.case import case_of


def main() -> None:
    """Run the case of stdin."""
    asked = json.loads(sys.stdin.read())
    case = case_of(asked["case"])
    try:
        answer: dict[str, Any] = {"data": _runner(case.backend)(case, **asked["settings"])}
    except ForetrainError as error:
        answer = {"error": str(error)}
    Path(sys.argv[1]).write_text(json.dumps(answer), encoding="utf-8")


def _runner(backend: str) -> Callable[..., dict[str, Any]]:
    if backend == "jax":
        from foretrain.validate.training.jax_trainer import run_case  # noqa: PLC0415

        return run_case
    from foretrain.validate.training.tf_trainer import run_case as run_tensorflow  # noqa: PLC0415

    return run_tensorflow


if __name__ == "__main__":
    main()
