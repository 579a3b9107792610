"""The examples run and answer what they promise."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: str, folder: Path) -> str:
    """Return what an example prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


def test_capacity_planning_answers_in_nodes_days_dollars_energy_and_carbon(tmp_path: Path) -> None:
    """The last row is the first that is done within 60 days, and the answer repeats it."""
    text = run("capacity_planning.py", folder=tmp_path)
    days = [float(row.split()[3]) for row in text.splitlines() if re.match(r" +\d+ +\d+x\d+x\d+", row)]
    assert all(later < earlier for earlier, later in itertools.pairwise(days))
    assert days[-1] <= 60 < days[-2]
    answer = r"\d+ nodes \(\d+ H100\) take [\d.]+ days: [\d.]+ million USD,\n[\d,]+ MWh, [\d,]+ t CO2, at a predicted MFU of [\d.]+%"
    assert re.search(answer, text)


def test_the_table_of_options_is_current(tmp_path: Path) -> None:
    """The page is what the program prints now, and no option of it is refused."""
    page = (EXAMPLES.parent / "docs" / "guide" / "options.md").read_text(encoding="utf-8")
    assert run("options.py", folder=tmp_path) == page
    assert "| refused:" not in page


def test_scaling_plot_draws_into_the_folder_it_is_given(tmp_path: Path) -> None:
    """PNG, SVG and CSV."""
    text = run("scaling_plot.py", "pictures", folder=tmp_path)
    assert "efficiency 100.0%" in text
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"scaling.png", "scaling.svg", "scaling.csv"}


def test_calibrate_comes_closer_than_its_base(tmp_path: Path) -> None:
    """Each kind of kernel is fitted better than the base has it, and without a folder nothing is written."""
    text = run("calibrate.py", folder=tmp_path)
    rows = re.findall(r"^(\w+) +\d+ +([\d.]+)% +([\d.]+)%", text, re.MULTILINE)
    assert {"stream", "matmul", "convolution", "attention", "power"} == {name for name, *_ in rows}
    assert all(float(fitted) < float(base) for _, base, fitted in rows)
    base_s, calibrated_s = map(float, re.findall(r"([\d.]+) s (?:by the base|calibrated)", text))
    assert 0.5 < calibrated_s / base_s < 2.0
    assert not list(tmp_path.iterdir())
