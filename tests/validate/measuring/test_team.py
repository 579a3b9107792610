"""Ranks as processes: they measure together, fail one bench at a time, and never outlive their team."""

import os
import signal

import pytest

from foretrain.validate.measuring import bench_matmul
from foretrain.validate.measuring.bench import Bench, Machine
from foretrain.validate.measuring.bench_collective import COLLECTIVES
from foretrain.validate.measuring.counters import UnavailableError
from foretrain.validate.measuring.team import Team

pytest.importorskip("torch")
TWO = Machine(device="cpu", ranks=2)


def _collective(op, size=4096, ranks=2):
    return Bench(name="collective", dtype="fp32", shape={"op": op, "bytes": size, "ranks": ranks, "backend": "gloo"}, team=True)


def test_a_team_measures_fails_and_ends():
    """One start for all of it, for a start takes seconds."""
    with Team(TWO) as team:
        for op in COLLECTIVES:
            seen = team.run(_collective(op))
            assert len(seen) == 2
            assert 0 < seen[0]["seconds"]["median"] < 10
            assert seen[0]["skew_s"]["median"] >= 0
        assert team.run(Bench(name="send", dtype="fp32", shape={"bytes": 4096, "backend": "gloo"}, team=True))[0]["seconds"]["median"] > 0
        assert len(team.run(bench_matmul._bench("fp32", (64, 64, 64), "nt", busy=2))) == 2
        overlap = team.run(Bench(name="overlap", dtype="fp32", shape={"what": "memory", "bytes": 2**22, "ranks": 2}, team=True))[0]
        assert overlap["loss"] == overlap["losses"]["median"] < 1
        ddp = Bench(name="launch", dtype="fp32", shape={"what": "ddp", "chain": 64, "ranks": 2}, team=True)
        try:
            assert team.run(ddp)[0]["seconds"]["median"] > 0
        except UnavailableError as error:  # on a machine that is busy with other tests
            assert "lost in the noise" in str(error)  # noqa: PT017
        with pytest.raises(UnavailableError, match="nonsense"):
            team.run(_collective("nonsense"))
        assert team.run(_collective("barrier"))
        pids = [worker.pid for worker in team._workers]
        os.kill(pids[1], signal.SIGKILL)
        with pytest.raises(UnavailableError, match="do not answer"):
            team.run(_collective("barrier"))
        with pytest.raises(UnavailableError, match="do not answer"):
            team.run(_collective("barrier"))
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_team_that_is_interrupted_is_reaped(monkeypatch):
    pids = []

    def interrupt(team, _most_s):
        pids.extend(worker.pid for worker in team._workers)
        raise KeyboardInterrupt

    monkeypatch.setattr(Team, "_answers", interrupt)
    with pytest.raises(KeyboardInterrupt), Team(TWO) as team:
        team.run(_collective("barrier"))
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
