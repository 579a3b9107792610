"""The table a person reads first."""

from __future__ import annotations

from foretrain.charts.table import TERMINAL, overflow, table
from tests.charts.factory import GIGA, prediction, stage_memory


def test_no_line_is_longer_than_eighty_columns() -> None:
    """Long names, many stages and many assumptions wrap."""
    stages = tuple(stage_memory(stage) for stage in range(70))
    long = prediction(model="m" * 60, assumed=tuple(f"cluster: node.part{n}.field_s" for n in range(60)), memory=stages)
    assert max(map(len, table(long).splitlines())) <= 80


def test_headline_figures_are_worked_out_in_the_units_they_name() -> None:
    """1 MJ in 10 s on 64 accelerators, 64,000 tokens, 8 USD: every figure by hand."""
    text = table(prediction())
    for figure in ("50.0%", "60.0%", "46.9%", "1 MJ = 278 Wh", "15.6 J", "100 kW", "1.56 kW", "$8", "$125,000", "100 g", "1.56 t"):
        assert figure in text


def test_every_class_of_the_breakdown_is_shown_with_its_share() -> None:
    """Six of ten seconds of math are 60 %."""
    row = next(line for line in table(prediction()).splitlines() if "matrix math" in line)
    assert row.split()[-3:] == ["6", "s", "60.0%"]
    assert row.count("#") == round(0.6 * 28)


def test_figures_of_a_profile_are_counted_and_sentences_kept() -> None:
    """An assumption in words stays whole; twenty fields of a profile become one line."""
    fields = tuple(f"cluster: node.accelerator.power.field{n}" for n in range(20))
    text = table(prediction(assumed=("global batch 64 (--global-batch)", *fields)))
    assert "global batch 64 (--global-batch)" in text
    assert "20 figures of the cluster profile: accelerator.power (20)" in text


def test_overflow_names_stage_and_largest_consumers() -> None:
    """Stage 2 holds 40 GB beside 70 GB of activations, 30 GB too much."""
    memory = tuple(stage_memory(stage, activations_bytes=(70 if stage == 2 else 10) * GIGA) for stage in range(4))
    first, second = overflow(prediction(memory=memory)).splitlines()
    assert "stage 2 of 4 needs 110 GB per accelerator, 30 GB more than its 80 GB" in first
    assert second.startswith("largest: activations 70 GB, optimizer 15 GB")


def test_only_a_terminal_gets_colour() -> None:
    """A pipe gets plain characters; the words are the same."""
    plain, coloured = table(prediction()), table(prediction(), TERMINAL)
    assert "\033" not in plain
    assert plain.isascii() or "×" in plain
    stripped = coloured.replace("\033[1m", "").replace("\033[0m", "").replace("\033[31m", "").replace("█", "#")
    assert stripped == plain
