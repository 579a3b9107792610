"""A prediction as plain data."""

from __future__ import annotations

import json

import pytest

from foretrain.sim.report import heaviest_stage, prediction_to_dict, prediction_to_frame
from tests.charts.factory import GIGA, prediction, stage_memory


def test_dict_survives_json() -> None:
    """Everything in it is plain data."""
    data = prediction_to_dict(prediction())
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["plan"]["schedule"] == "1f1b"


def test_derived_figures_agree_with_the_prediction() -> None:
    """Rates, utilisations and totals are the properties of the same names."""
    one = prediction()
    data = prediction_to_dict(one)
    for name in ("step_s", "samples_per_s", "tokens_per_s", "mfu", "hfu", "energy_j", "mean_power_w", "cost_usd", "co2_g", "fits"):
        assert data[name] == getattr(one, name)
    assert data["energy_per_token_j"] == pytest.approx(1e6 / 64_000)


def test_frame_is_one_row_with_dotted_columns() -> None:
    """Rows of many predictions concatenate into a sweep."""
    frame = prediction_to_frame(prediction())
    assert len(frame) == 1
    assert frame["plan.tp"][0] == 8
    assert frame["breakdown.math"][0] == 6.0


def test_heaviest_stage_is_the_one_closest_to_its_capacity() -> None:
    """Not the first, nor a mean."""
    memory = tuple(stage_memory(stage, activations_bytes=size * GIGA) for stage, size in enumerate((1, 9, 5)))
    assert heaviest_stage(prediction(memory=memory)).stage == 1
