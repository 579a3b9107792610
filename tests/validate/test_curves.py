"""Measured curves of collectives: rows understood, systems found, errors within what is claimed."""

from __future__ import annotations

import csv
import statistics
from collections import defaultdict
from importlib import resources
from pathlib import Path

import pytest

from foretrain.errors import ProfileError
from foretrain.validate.curve_machines import cluster_of
from foretrain.validate.curve_rows import curve_of, measured_time_s
from foretrain.validate.curves import curve_outcomes
from foretrain.validate.published import validate_published
from foretrain.validate.runs_file import read_runs

DATA = resources.files("foretrain.validate.data")
FILES = {name: Path(str(DATA / f"{name}.csv")) for name in ("network", "collectives")}
OUTCOMES = {name: curve_outcomes(read_runs(path).lines) for name, path in FILES.items()}
SCORED = [o for found in OUTCOMES.values() for o in found if o.error_pct is not None and o.subset == "core"]


def test_files_are_known_by_their_header() -> None:
    """Neither needs its name."""
    assert {name: read_runs(path).kind for name, path in FILES.items()} == {"network": "network", "collectives": "collectives"}


def test_the_median_error_is_at_most_twelve_per_cent() -> None:
    """Over all collectives from 32 KiB on, both files together."""
    assert len(SCORED) > 390
    assert statistics.median(abs(o.error_pct or 0.0) for o in SCORED) <= 12.0


def test_the_median_per_system_is_at_most_twenty_per_cent() -> None:
    """For every system but one, whose own curve is three times below a twin's on the same instances."""
    by_system: dict[str, list[float]] = defaultdict(list)
    for outcome in SCORED:
        by_system[outcome.source].append(abs(outcome.error_pct or 0.0))
    over = {name for name, errors in by_system.items() if statistics.median(errors) > 20.0}
    assert over <= {"2x p5.48xlarge (16x H100), EKS"}
    assert statistics.median(statistics.median(errors) for errors in by_system.values()) <= 12.0


def test_what_is_no_collective_is_listed_with_its_reason() -> None:
    """Link specifications, products and memory bandwidths have a line each, and no figure."""
    with FILES["network"].open() as file:
        others = [index for index, row in enumerate(csv.DictReader(file)) if row["metric"] != "busbw"]
    refused = {o.row: o for o in OUTCOMES["network"] if o.reason}
    assert len(OUTCOMES["network"]) == len(read_runs(FILES["network"]).lines)
    assert set(others) <= set(refused)
    assert all(o.predicted is None and "metric" in refused[index].reason for index in others for o in (refused[index],))


def test_validation_of_curves_writes_what_validation_writes(tmp_path: Path) -> None:
    """predictions.csv in the order of the rows, with the quantity in SI units."""
    summary = validate_published(FILES["collectives"], tmp_path)
    with (tmp_path / "predictions.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["row"]) for line in lines] == list(range(238))
    assert {line["quantity"] for line in lines} == {"time_s"}
    assert float(lines[27]["measured"]) == pytest.approx(5203.1e-6)
    assert summary["rows_simulated"] == 238
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")


def row(**cells: str) -> dict[str, str]:
    base = {"system": "DGX A100", "n_ranks": "8", "n_hosts": "1", "link": "NVLink3", "metric": "busbw", "collective": "all_reduce"}
    return base | {"size_B": "1000000", "busbw_GBps": "100", "algbw_GBps": "", "time_us": "", "software": "nccl-tests"} | cells


def test_bus_bandwidth_and_time_are_one_measurement() -> None:
    """Eight ranks send 2·7/8 of the tensor each: 1 MB at 100 GB/s takes 17.5 us."""
    curve = curve_of(row())
    assert measured_time_s(row(), curve) == pytest.approx(17.5e-6)
    assert curve.busbw_bytes_per_s(17.5e-6) == pytest.approx(100e9)
    assert measured_time_s(row(time_us="20"), curve) == pytest.approx(20e-6)


def test_ranks_follow_from_bus_over_algorithm_bandwidth() -> None:
    """The ratio of an all-reduce is 2(n-1)/n: 1.75 is eight ranks."""
    assert curve_of(row(n_ranks="", n_hosts="", busbw_GBps="483.05", algbw_GBps="276.03")).ranks == 8


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"size_B": "0"}, "nothing is sent"),
        ({"collective": "gather"}, "not simulated"),
        ({"system": "abacus"}, "no node of the library"),
        ({"link": "NVLink2, misconfigured"}, "not set up"),
        ({"n_ranks": "64"}, "64 ranks a host"),
        ({"n_ranks": ""}, "number of ranks"),
    ],
)
def test_rows_that_cannot_be_predicted_say_why(cells: dict[str, str], reason: str) -> None:
    """A size of zero, an unknown collective or system, more ranks than a host has."""
    with pytest.raises(ProfileError, match=reason):
        curve_of(row(**cells))


def test_the_stated_network_is_taken() -> None:
    """Four NICs of 200 Gbit/s make 100 GB/s a node."""
    cluster, _ = cluster_of("2 nodes x 8 A100", "NVLink3 + IB 4x200Gb/s", hosts=2, per_host=8)
    assert (cluster.node.nics, cluster.node.network_bytes_per_s) == (4, 100e9)


def test_switched_off_reduction_is_switched_off() -> None:
    """The ring of an H200 node with NCCL_NVLS_ENABLE=0 is slower than what its switches add up."""
    words = row(system="H200 node", size_B="8589934592")
    assert curve_of(words | {"software": "NCCL_NVLS_ENABLE=0 (ring)"}).time_s() > 1.2 * curve_of(words).time_s()
