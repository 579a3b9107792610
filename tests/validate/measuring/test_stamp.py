"""What a stamp says of a machine, and when a machine is too busy."""

import json
from types import SimpleNamespace

import pytest

from foretrain.validate.measuring import host
from foretrain.validate.measuring.busy import Busy, busy, settled
from foretrain.validate.measuring.stamp import stamp, stamp_record
from foretrain.validate.records import Spread

pytest.importorskip("torch")
QUIET = Spread(median=1.0, q1=1.0, q3=1.0, repeats=20)


def _nvml(used=0, pids=()):
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlSystemGetDriverVersion=lambda: b"580.1",
        nvmlDeviceGetName=lambda _: "NVIDIA H100",
        nvmlDeviceGetClockInfo=lambda _handle, _kind: 1980,
        nvmlDeviceGetEnforcedPowerLimit=lambda _: 700_000,
        nvmlDeviceGetUtilizationRates=lambda _: SimpleNamespace(gpu=used),
        nvmlDeviceGetComputeRunningProcesses=lambda _: [SimpleNamespace(pid=pid) for pid in pids],
    )


def test_a_stamp_of_this_processor_is_plain_data():
    record = stamp_record("cpu")
    assert json.loads(json.dumps(record.data, allow_nan=False)) == record.data
    assert record.data["device_name"] == record.data["cpu"]["model"]
    assert record.data["versions"]["torch"]


def test_a_stamp_of_a_gpu_holds_settings_as_found_and_says_what_is_missing():
    data = stamp("cuda", library=_nvml())
    gpu = data["gpu"]
    assert (data["device_name"], gpu["sm_clock_hz"], gpu["power_limit_w"]) == ("NVIDIA H100", 1.98e9, 700.0)
    assert data["versions"]["driver"] == "580.1"
    assert gpu["temperature_c"] is None
    assert "nvmlDeviceGetTemperature" in data["absent"]["gpu.temperature_c"]


def test_a_gpu_that_others_use_is_busy():
    found = busy("cuda", library=_nvml(used=40, pids=[4321]), reference=lambda _: QUIET, window_s=0.01)
    assert "GPU 0 is busy 40 % of the time" in found.text
    assert "pid 4321" in found.text


def test_a_kernel_that_scatters_is_busy():
    found = busy("cpu", reference=lambda _: Spread(median=1.0, q1=0.9, q3=1.2, repeats=20), window_s=0.01)
    assert "scatters by 30%" in found.text
    assert bool(found)


def test_shares_are_those_of_the_ticks_between(tmp_path, monkeypatch):
    """Of 100 ticks more, 70 idle and 10 stolen: 20 % used."""
    (tmp_path / "stat").write_text("cpu  100 0 100 1000 0 0 0 0\n")
    monkeypatch.setattr(host.time, "sleep", lambda _: (tmp_path / "stat").write_text("cpu  110 0 110 1060 10 0 0 10\n"))
    assert host.shares(0.5, tmp_path) == (pytest.approx(0.2), pytest.approx(0.1))


def test_memory_is_bounded_by_the_container(tmp_path):
    (tmp_path / "meminfo").write_text("MemTotal: 2000 kB\nMemAvailable: 1000 kB\n")
    assert host.available_bytes(tmp_path, tmp_path) == 1_024_000
    (tmp_path / "memory.max").write_text("700000\n")
    (tmp_path / "memory.current").write_text("200000\n")
    assert host.available_bytes(tmp_path, tmp_path) == 500_000


def test_the_processor_is_named(tmp_path):
    (tmp_path / "cpuinfo").write_text("model name\t: Some CPU @ 2 GHz\ncpu MHz : 1000.0\ncpu MHz : 3000.0\n")
    assert host.cpu_model(tmp_path) == "Some CPU @ 2 GHz"
    assert host.clock_hz(tmp_path) == 2e9


def test_a_moment_of_load_is_waited_for_and_a_lasting_one_is_not():
    seen, told = iter([Busy(reasons=("a compiler runs",)), Busy(reasons=())]), []
    assert not settled("cpu", lambda *what: told.append(what[2]), look=lambda _: next(seen), patience_s=60, pause_s=0)
    assert told == ["waiting: a compiler runs"]
    assert settled("cpu", look=lambda _: Busy(reasons=("a game runs",)), patience_s=0.02, pause_s=0.01).text == "a game runs"
