"""The rules of the house, read from the syntax trees: who imports whom, what stays light, what is exported."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import foretrain

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "foretrain"
MODULES = sorted(PACKAGE.rglob("*.py"))
LINKS = ("hardware", "models", "sim", "validate")
MOST_LINES = 300

GROUND = {"ground"}
"""Modules at the top of the package: errors, units, and how profiles are read."""
SIM = {"sim", "hardware", "software", "models"} | GROUND
MAY_IMPORT = {
    "ground": GROUND,
    "hardware": {"hardware"} | GROUND,
    "software": {"software"} | GROUND,
    "models": {"models"} | GROUND,
    "sim": SIM,
    "charts": {"charts"} | SIM,
    "validate": {"validate"} | SIM,
    "api": {"validate", "charts"} | SIM,
    "cli": {"api", "cli", "validate", "charts"} | SIM,
}
ONLY_IN = {
    "torch": ("models/trace.py", "models/trace_", "validate/"),
    "timm": ("models/trace_timm.py",),
    "simpy": ("sim/",),
    "jax": ("validate/training/jax_",),
    "tensorflow": ("validate/training/tf_",),
}


def part_of(name: str) -> str:
    """Return the part of the house that a dotted module name belongs to."""
    inner = name.split(".")[1] if "." in name else ""
    if not inner or inner == "__init__":
        return "api"
    if inner.startswith("cli") or inner == "__main__":
        return "cli"
    return inner if (PACKAGE / inner).is_dir() else "ground"


def name_of(path: Path) -> str:
    """Return the dotted name of a module file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything a file imports, in functions and for type checking too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                below = node.module == "foretrain" and part_of(f"foretrain.{alias.name}") != "ground"
                yield node.lineno, f"foretrain.{alias.name}" if below else str(node.module)


def python(code: str) -> str:
    """Return what a fresh interpreter prints, run outside the repository."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE).stdout.strip()


@pytest.mark.parametrize("part", sorted(MAY_IMPORT))
def test_imports_point_downwards(part: str) -> None:
    """errors, units ← hardware, software, models ← sim ← validate, charts ← cli; the middle three never meet, nothing imports cli."""
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in MODULES
        if part_of(name_of(path)) == part
        for line, name in imports(path)
        if name.split(".")[0] == "foretrain" and part_of(name) not in MAY_IMPORT[part]
    ]
    assert not wrong


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_heavy_libraries_stay_where_they_belong(library: str) -> None:
    """Only traced modules and validation need torch and only sim needs simpy; nobody else imports them, in functions neither."""
    users = {str(path.relative_to(PACKAGE)) for path in MODULES for _, name in imports(path) if name.split(".")[0] == library}
    assert {user for user in users if not user.startswith(ONLY_IN[library])} == set()


def test_no_module_imports_through_the_links() -> None:
    """Imports are absolute from foretrain, and relative ones do not occur."""
    wrong = [f"{path.relative_to(ROOT)}:{line}" for path in MODULES for line, name in imports(path) if name.split(".")[0] in LINKS]
    relative = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not wrong + relative


@pytest.mark.parametrize("link", LINKS)
def test_the_four_parts_are_one_step_away(link: str) -> None:
    """Each is a relative symbolic link into the package."""
    assert os.readlink(ROOT / link) == f"foretrain/{link}"
    assert (ROOT / link / "__init__.py").is_file()


def test_every_file_of_the_package_is_installed() -> None:
    """The packaging names a package for every module and a pattern for every profile and table."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {name: ROOT.joinpath(*name.split(".")) for name in tools["packages"]}
    patterns = [(package, pattern) for package, found in tools["package-data"].items() for pattern in found]
    data = {path for key, pattern in patterns for name, folder in folders.items() if key in ("*", name) for path in folder.glob(pattern)}
    installed = data | {path for folder in folders.values() for path in folder.glob("*.py")}
    present = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert sorted(present - installed) == []


def test_importing_foretrain_is_quick() -> None:
    """Under 0.5 s, doubled for a busy machine, best of three."""
    code = "import time; start = time.perf_counter(); import foretrain; print(time.perf_counter() - start)"
    assert min(float(python(code)) for _ in range(3)) < 2 * 0.5


@pytest.mark.parametrize("use", ["import foretrain", "from foretrain import *"])
def test_importing_foretrain_is_light(use: str) -> None:
    """Neither the package nor its public names bring in torch, and the package alone no plots and tables."""
    loaded = set(python(f"{use}; import sys; print(*sys.modules)").split())
    heavy = {"torch"} if "*" in use else {"torch", "matplotlib", "pandas"}
    assert not loaded & heavy


def test_no_file_holds_more_than_one_idea() -> None:
    """Past 300 lines a file is several."""
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_the_public_names_are_sorted_and_are_what_is_exported() -> None:
    """`__all__` is in order, each of its names resolves, and no other name of ours is public."""
    assert list(foretrain.__all__) == sorted(foretrain.__all__)
    resolved = {name: getattr(foretrain, name) for name in foretrain.__all__}
    public = {name for name, value in vars(foretrain).items() if not name.startswith("_") and _ours(value)}
    assert public == set(resolved)
    assert _for_type_checkers() == set(foretrain.__all__)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    """Names imported at first use fail as any other attribute does."""
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = foretrain.no_such_name


def _ours(value: object) -> bool:
    return str(getattr(value, "__module__", "")).startswith("foretrain")


def _for_type_checkers() -> set[str]:
    """Return the names that the package imports, which type checkers see."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and str(node.module).startswith("foretrain")]
    return {alias.asname or alias.name for node in froms for alias in node.names}
