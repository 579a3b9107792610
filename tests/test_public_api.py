"""The public names, and what importing them costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import foretrain

HEAVY = ("torch", "matplotlib", "pandas", "pydantic", "simpy", "numpy", "typer")


def test_all_is_sorted_and_every_name_resolves() -> None:
    """`__all__` is what there is."""
    assert foretrain.__all__ == sorted(foretrain.__all__)
    assert all(getattr(foretrain, name) is not None for name in foretrain.__all__)
    assert set(foretrain.__all__) <= set(dir(foretrain))


def test_an_unknown_name_says_what_there_is() -> None:
    """A slip is answered with the public names."""
    with pytest.raises(AttributeError, match="simulate"):
        foretrain.simulat  # noqa: B018


def test_importing_foretrain_imports_nothing_heavy() -> None:
    """`import foretrain` is free; the command line never touches matplotlib or pandas unless it draws."""
    code = f"import sys, foretrain; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    code = (
        "import sys; from foretrain.cli import run; "
        "run(['simulate', '--model', 'gpt2', '--cluster', 'dgx-a100-80gb:1', '--json']); "
        "print([name for name in ('torch', 'matplotlib', 'pandas', 'rich') if name in sys.modules], file=sys.stderr)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.strip() == "[]"
