"""Energy from fake counters: the right joules, the right source, and never a zero for what is missing."""

import sys
import time
from types import SimpleNamespace

import pytest

from foretrain.validate.measuring.counters import UnavailableError
from foretrain.validate.measuring.nvml import EnergyCounter, PowerPolling, open_gpu
from foretrain.validate.measuring.rapl import Rapl
from foretrain.validate.meter import Energy, Meter, measured, open_meter


def _nvml(**functions):
    """Return a library whose only GPU answers with these."""
    nothing = {"nvmlInit": lambda: None, "nvmlDeviceGetHandleByIndex": lambda index: index}
    return SimpleNamespace(**nothing, **functions)


def _lost(_handle):
    raise RuntimeError("GPU is lost")


def _rapl(root, **counters):
    """Write a tree of counters: name to (energy, range)."""
    for place, (name, (energy, span)) in enumerate(counters.items()):
        folder = root / f"intel-rapl:{place}"
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in (("name", name.replace("_", "-")), ("energy_uj", energy), ("max_energy_range_uj", span)):
            (folder / file).write_text(f"{text}\n")
    return root


def test_the_energy_counter_counts_millijoules():
    totals = iter([1_000, 1_000, 251_000])
    meter = Meter(EnergyCounter(open_gpu(library=_nvml(nvmlDeviceGetTotalEnergyConsumption=lambda _: next(totals)))), least_window_s=0.0)
    meter.start()
    energy = meter.stop()
    assert (energy.joules, energy.source) == (250.0, "nvml-energy")
    assert energy.data(10)["joules_per_step"] == 25.0


def test_power_is_polled_where_no_counter_is():
    library = _nvml(nvmlDeviceGetPowerUsage=lambda _: 200_000)
    meter = open_meter("cuda", library=library)
    assert meter.source == "nvml-power"
    meter.least_window_s = 0.0
    meter.start()
    time.sleep(0.12)
    energy = meter.stop()
    assert energy.watts == pytest.approx(200, rel=0.2)


def test_polled_power_is_integrated_by_trapezoids():
    """100 W, then 300 W a second later: 200 J."""
    watts, clock = iter([100e3, 100e3, 300e3]), iter([0.0, 0.0, 1.0])
    polling = PowerPolling(open_gpu(library=_nvml(nvmlDeviceGetPowerUsage=lambda _: next(watts))), clock=lambda: next(clock))
    polling.start()
    assert polling.stop() == pytest.approx(200.0)


@pytest.mark.parametrize("what", ["nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage"])
def test_a_gpu_lost_in_the_middle_is_unavailable_for_good(what):
    library = _nvml(**{what: lambda _: 5_000})
    meter = open_meter("cuda", library=library)
    meter.least_window_s = 0.0
    meter.start()
    setattr(library, what, _lost)
    time.sleep(0.07)
    energy = meter.stop()
    assert energy.joules is None
    assert energy.data(3) == {"source": "unavailable", "reason": f"lost: {what}: GPU is lost"}
    assert meter.source == "unavailable"
    meter.start()
    assert "GPU is lost" in meter.stop().reason


@pytest.mark.parametrize("second", [7_000, 6_999])
def test_a_counter_that_stands_still_or_runs_backwards_is_no_zero(second):
    totals = iter([7_000, 7_000, second])
    meter = Meter(EnergyCounter(open_gpu(library=_nvml(nvmlDeviceGetTotalEnergyConsumption=lambda _: next(totals)))), least_window_s=0.0)
    meter.start()
    energy = meter.stop()
    assert energy.joules is None
    assert "moved by" in energy.reason


def test_short_windows_are_refused():
    meter = open_meter("cuda", library=_nvml(nvmlDeviceGetTotalEnergyConsumption=iter_of(range(1, 10**6))))
    meter.start()
    assert "5 s are needed" in meter.stop().reason


def iter_of(values):
    """Return a reading that gives one value after the other."""
    numbers = iter(values)
    return lambda _handle: next(numbers)


def test_rapl_adds_packages_and_memory_and_wraps_once(tmp_path):
    """Package 0 begins again: 90 → 10 of 99 is 20 µJ more; the platform contains the others and is left out."""
    ranges = 99 * 10**10
    root = _rapl(tmp_path, package_0=(90 * 10**10, ranges), dram=(0, ranges), psys=(0, ranges))
    rapl = Rapl(root, clock=iter([0.0, 6.0]).__next__)
    rapl.start()
    _rapl(root, package_0=(10 * 10**10, ranges), dram=(5_000_000, ranges), psys=(10**9, ranges))
    assert rapl.stop() == pytest.approx((19 * 10**10 + 1) / 1e6 + 5.0)


def test_rapl_over_too_long_a_window_is_unavailable(tmp_path):
    rapl = Rapl(_rapl(tmp_path, package_0=(0, 60 * 10**9)), clock=iter([0.0, 61.0]).__next__)
    rapl.start()
    with pytest.raises(UnavailableError, match="begin again twice"):
        rapl.stop()


def test_rapl_that_vanishes_in_the_middle_is_unavailable(tmp_path):
    meter = open_meter("cpu", powercap=_rapl(tmp_path, package_0=(0, 10**12)))
    assert meter.source == "rapl"
    meter.least_window_s = 0.0
    meter.start()
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert "cannot be read" in meter.stop().reason


def test_a_machine_without_counters_says_so(tmp_path):
    energy = open_meter("cpu", powercap=tmp_path).stop()
    assert (energy.joules, energy.source, energy.watts) == (None, "unavailable", None)
    assert "no RAPL counter" in energy.reason


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "pip install 'foretrain[calibrate]'" in open_meter("cuda").reason


def test_visible_gpus_are_counted_as_torch_counts_them(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert open_gpu(1, library=_nvml()).handle == 5


def test_work_is_repeated_for_the_window_and_waited_for():
    done = []
    energy, count = measured(Meter(None, reason="none"), lambda: time.sleep(1e-3), finish=lambda: done.append(1), window_s=0.05)
    assert isinstance(energy, Energy)
    assert 1 <= count < 200
    assert len(done) >= 2
