"""What the pages say is what the program does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer

import foretrain
from foretrain.cli import app, run

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md")), *sorted((ROOT / "docs" / "physics").glob("*.md"))]


def flags() -> set[str]:
    """Return every option of every command."""
    commands = list(typer.main.get_command(app).commands.values())  # type: ignore[attr-defined]
    commands += [one for group in commands for one in getattr(group, "commands", {}).values()]
    return {flag for command in commands for one in command.params for flag in (*one.opts, *one.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_on_a_page_exist(page: Path) -> None:
    """Every `--option` after the name of the program is one that it has."""
    lines = page.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    told = "\n".join(line for line in lines if "foretrain " in line or line.startswith("| "))
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", told))
    assert used <= flags()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_on_a_page_lead_somewhere(page: Path) -> None:
    """Relative links point to files of the repository."""
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
    assert all((page.parent / target).exists() for target in targets)


def test_the_python_example_of_the_readme_runs() -> None:
    """The block is executed as it stands, and what it ends in is a prediction's figures."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    names: dict[str, object] = {}
    exec(block[1], names)
    assert isinstance(names["prediction"], foretrain.Prediction)


def test_the_table_of_the_readme_is_what_the_program_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The printed answer is, figure by figure, what the command above it prints now."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"\$ foretrain (.*?[^\\])\n(.*?)```", text, re.DOTALL)
    assert command is not None
    assert run(command[1].replace("\\\n", " ").split()) == 0
    assert capsys.readouterr().out.splitlines() == command[2].splitlines()


def test_the_errors_of_the_readme_are_those_of_the_reports() -> None:
    """Every row of its table: number, coverage, median and mean of the headline in the report that it names."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\(reports/published-(\w+)\.md\) \| `(\w+)` \| ([\d,]+) \| (\d+)% \| ([\d.]+) % \| ([\d.]+) % \|", text)
    assert len(rows) >= 8
    for kind, quantity, *said in rows:
        found = json.loads((ROOT / "reports" / f"published-{kind}.json").read_text(encoding="utf-8"))["quantities"][quantity]["headline"]
        errors = [f"{found[f'{one}_abs_error_pct']:.1f}" for one in ("median", "mean")]
        assert said == [f"{found['n']:,}", f"{100 * found['coverage']:.0f}", *errors], kind
