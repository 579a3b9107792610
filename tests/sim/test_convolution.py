"""Convolutions on an accelerator: by hand, as properties, and against DeepBench's measured kernels."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foretrain.hardware.accelerator import Accelerator, ConvolutionCurve, ConvolutionRates
from foretrain.hardware.load import load_accelerator
from foretrain.models.convolution import Conv
from foretrain.models.ops import Kernel, Layout
from foretrain.sim.cost import Pricer
from tests.sim import hand

quick = settings(deadline=None, derandomize=True, max_examples=60)
MEASURED = Path(__file__).parent / "data" / "deepbench_convolutions.csv"
PLAIN = ConvolutionRates(forward=1.0, data=1.0, weight=1.0, strided_data=1.0, depth_fill=0.0)
CURVE = ConvolutionCurve(
    matrix=replace(PLAIN, data=0.5, weight=0.25, strided_data=0.5), vector=replace(PLAIN, weight=0.5), winograd=2.0, channel_multiple=8,
    few_channels=0.5, direct=0.1,
)  # fmt: skip
DEVICE = hand.accelerator(convolution=CURVE, memory_bytes_per_s=1e18)
CONV = Conv(name="c", in_channels=16, out_channels=32, in_size=(8, 8), out_size=(8, 8), kernel=(3, 3), stride=(1, 1))
FLOP = 2.0 * 4 * 64 * 32 * 16 * 9
"""Of four samples at 1 TFLOP/s."""


def kernels(conv: Conv, element_bytes: float = 2.0, samples: int = 4) -> tuple[Kernel, ...]:
    layout = Layout(micro_batch=samples, element_bytes=element_bytes)
    return (*conv.forward(layout), *conv.backward(layout))


def seconds(conv: Conv, dtype: str, device: Accelerator = DEVICE, **software: Any) -> list[float]:
    """Return the time of the forward pass, the gradient of data, the gradient of weights."""
    pricer = Pricer(device, hand.software(**software), dtype)
    return [pricer.work(kernel).device_s for kernel in kernels(conv)]


def test_passes_have_rates_of_their_own() -> None:
    """On matrix units 1, 0.5 and 0.25 of a product's; with a stride, half of that for the gradient of data."""
    assert seconds(CONV, "bf16", channels_last=True) == pytest.approx([FLOP / 1e12, FLOP / 0.5e12, FLOP / 0.25e12])
    strided = replace(CONV, out_size=(4, 4), stride=(2, 2))
    assert seconds(strided, "bf16", channels_last=True) == pytest.approx([FLOP / 4e12, FLOP / 4 / 0.25e12, FLOP / 4 / 0.25e12])


def test_winograd_multiplies_less_on_vector_units() -> None:
    """Half the time for 3×3 and 5×5 of stride 1, not for other kernels, strides, groups, few channels, or three dimensions."""
    plain = replace(DEVICE, convolution=replace(CURVE, winograd=1.0))
    for kernel in ((3, 3), (5, 5)):
        conv = replace(CONV, kernel=kernel)
        assert seconds(conv, "fp32") == pytest.approx([each / 2 for each in seconds(conv, "fp32", plain)])
        assert seconds(conv, "fp32", winograd=False) == pytest.approx(seconds(conv, "fp32", plain))
    volumes = replace(CONV, in_size=(4, 4, 4), out_size=(4, 4, 4), kernel=(3, 3, 3), stride=(1, 1, 1))
    others = [{"kernel": (1, 7)}, {"kernel": (7, 7)}, {"out_size": (4, 4), "stride": (2, 2)}, {"in_channels": 4}, {"groups": 2}]
    for conv in (volumes, *(replace(CONV, **change) for change in others)):  # type: ignore[arg-type]
        assert seconds(conv, "fp32") == pytest.approx(seconds(conv, "fp32", plain))


def test_few_channels_are_padded_and_slow() -> None:
    """3 channels cost those of 8, twice; 16 nothing more. Vector units do not care."""
    first = replace(CONV, in_channels=3, kernel=(7, 7))
    flop = 2.0 * 4 * 64 * 32 * 49
    assert seconds(first, "bf16", channels_last=True)[0] == pytest.approx(2 * 8 * flop / 1e12)
    assert seconds(first, "fp32")[0] == pytest.approx(3 * flop / 1e12)


def test_depthwise_runs_directly() -> None:
    """At a tenth of the vector peak, the gradient of weights at half of that, on either kind of unit."""
    depthwise = replace(CONV, out_channels=16, groups=16)
    flop = 2.0 * 4 * 64 * 16 * 9
    for dtype in ("bf16", "fp32"):
        assert seconds(depthwise, dtype) == pytest.approx([flop / 0.1e12, flop / 0.1e12, flop / 0.05e12])


def test_groups_take_the_quicker_way() -> None:
    """Groups of 4 padded to 8 twice over cost four times the FLOPs as products, less than ten times directly; groups of 1 to 2 do not."""
    groups = replace(CONV, in_channels=16, out_channels=16, groups=4)
    flop = 2.0 * 4 * 64 * 16 * 4 * 9
    product = seconds(groups, "bf16", replace(DEVICE, convolution=replace(CURVE, few_channels=1.0)), channels_last=True)[0]
    assert product == pytest.approx(4 * flop / 1e12)
    tiny = replace(groups, out_channels=16, groups=8)
    assert seconds(tiny, "bf16", channels_last=True)[0] == pytest.approx(2.0 * 4 * 64 * 16 * 2 * 9 / 0.1e12)


def test_maps_are_transposed_where_the_units_want_them_otherwise() -> None:
    """Matrix units want channels last, vector units first; else both tensors are read and written once more. Direct kernels take either."""
    device = replace(DEVICE, memory_bytes_per_s=1e9)
    maps = 4 * 64 * (16 + 32)
    for dtype, element_bytes in (("bf16", 2.0), ("fp32", 4.0)):
        software = {last: Pricer(device, hand.software(channels_last=last), dtype) for last in (True, False)}
        right, wrong = software[dtype == "bf16"], software[dtype == "fp32"]
        for kernel in kernels(CONV, element_bytes):
            extra = wrong.work(kernel).device_s - right.work(kernel).device_s
            assert extra == pytest.approx(2 * maps * element_bytes / 1e9)
            assert wrong.work(kernel).memory_j > right.work(kernel).memory_j
        depthwise = kernels(replace(CONV, out_channels=16, groups=16), element_bytes)
        assert [wrong.work(kernel) for kernel in depthwise] == [right.work(kernel) for kernel in depthwise]


def test_without_a_curve_a_convolution_is_its_product() -> None:
    """2·m·n·k FLOPs in every direction."""
    assert seconds(CONV, "bf16", replace(DEVICE, convolution=None)) == pytest.approx([FLOP / 1e12] * 3)


@quick
@given(
    samples=st.integers(1, 64), ins=st.integers(1, 256), outs=st.integers(1, 256), side=st.integers(3, 64),
    field=st.sampled_from(("in_channels", "out_channels")), name=st.sampled_from(("v100-sxm2-16gb", "t4", "gtx-1080-ti", "a100-sxm-80gb")),
)  # fmt: skip
def test_more_channels_never_take_less(samples: int, ins: int, outs: int, side: int, field: str, name: str) -> None:
    """Among those that matrix units take as they are."""
    device = load_accelerator(name)
    wide = {"in_channels": 8 * ins, "out_channels": 8 * outs}
    conv = Conv(name="c", **wide, in_size=(side, side), out_size=(side, side), kernel=(3, 3), stride=(1, 1))
    wider = replace(conv, **{field: wide[field] + 8})
    for dtype in set(device.peak_flop_per_s) & {"fp16", "fp32"}:
        pricer = Pricer(device, hand.software(), dtype)
        for one, other in zip(kernels(conv, samples=samples), kernels(wider, samples=samples), strict=True):
            assert pricer.work(other).device_s >= pricer.work(one).device_s * (1 - 1e-12)


BURST = {"fp16": 0.90, "fp32": 0.94}
"""What the V100 holds in bursts as short as DeepBench's: its profile has what 300 W leave in long runs, and says so."""


def measured() -> Iterator[tuple[tuple[str, str], float, float]]:
    """Yield (accelerator and precision, measured, predicted) of every kernel that DeepBench timed."""
    pricers: dict[tuple[str, str], Pricer] = {}
    for row in csv.DictReader(MEASURED.read_text().splitlines()):
        key = (row["accelerator"], row["precision"])
        size = {name: int(row[name]) for name in row if not name.endswith("_ms") and name not in ("accelerator", "precision")}
        if key not in pricers:
            device = load_accelerator(key[0])
            if key[0].startswith("v100"):
                device = replace(device, matmul=replace(device.matmul, sustained=BURST))
            # Maps of a few megabytes stay in the cache: DeepBench's library was free to choose the layout.
            pricers[key] = Pricer(device, hand.software(channels_last=key[1] == "fp16"), key[1])
        for kernel, column in zip(kernels_of(size, 2.0 if key[1] == "fp16" else 4.0), ("forward", "data", "weight"), strict=True):
            if row[f"{column}_ms"]:
                yield key, float(row[f"{column}_ms"]) / 1e3, pricers[key].work(kernel).device_s


def kernels_of(size: dict[str, int], element_bytes: float) -> tuple[Kernel, ...]:
    sides = ("height", "width")
    kernel, stride = (tuple(size[f"{what}_{side}"] for side in sides) for what in ("kernel", "stride"))
    ins = tuple(size[side] for side in sides)
    padded = (size[side] + 2 * size[f"pad_{side}"] for side in sides)
    outs = tuple((side - k) // s + 1 for side, k, s in zip(padded, kernel, stride, strict=True))
    channels = {name: size[name] for name in ("in_channels", "out_channels")}
    return kernels(Conv(name="c", **channels, in_size=ins, out_size=outs, kernel=kernel, stride=stride), element_bytes, size["samples"])


def test_deepbench_convolutions_are_met() -> None:
    """All 94 shapes of baidu-research/DeepBench on eight pairs of device and precision: half of each within 25 %, and no bias of 25 %."""
    ratios = defaultdict(list)
    for key, real, predicted in measured():
        ratios[key].append(predicted / real)
    assert len(ratios) == 8
    for key, found in ratios.items():
        assert statistics.median(abs(ratio - 1) for ratio in found) <= 0.25, key
        assert 0.8 <= statistics.median(found) <= 1.25, key
