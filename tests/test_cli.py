"""The command line: what it prints, what it refuses, and the status it leaves with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from foretrain.cli import app, run

SMALL = ("--model", "gpt2", "--cluster", "dgx-a100-80gb:1", "--global-batch", "64")
TOO_BIG = ("--model", "gpt3-175b", "--cluster", "dgx-a100-80gb:1", "--global-batch", "64")

OPTIONS = {
    "simulate": {
        "--model", "--cluster", "--software", "--tp", "--pp", "--dp", "--vpp", "--zero", "--shard", "--sequence-parallel", "--schedule",
        "--cp", "--cp-mode", "--cp-cut", "--ep", "--expert-imbalance", "--capacity-factor",
        "--layers-per-stage", "--defer-embedding-wgrad",
        "--micro-batch", "--recompute", "--recompute-layers", "--gradient-sync", "--gradient-compression", "--offload",
        "--replication", "--local-steps", "--servers",
        "--order", "--global-batch", "--seq-len", "--image-size", "--precision", "--optimizer", "--grad-dtype",
        "--master-weights", "--clip", "--set",
        "--unfold", "--slow", "--jitter", "--samples", "--detail", "--seed", "--power-cap", "--clock",
        "--lora-rank", "--lora-targets", "--freeze", "--json", "--out", "--help",
    },
    "plot scaling": {
        "--model", "--cluster", "--software", "--tp", "--pp", "--vpp", "--zero", "--shard", "--sequence-parallel", "--schedule",
        "--cp", "--cp-mode", "--cp-cut", "--ep", "--expert-imbalance", "--capacity-factor",
        "--layers-per-stage", "--defer-embedding-wgrad",
        "--micro-batch", "--recompute", "--recompute-layers", "--gradient-sync", "--gradient-compression", "--offload",
        "--replication", "--local-steps", "--servers",
        "--order", "--global-batch", "--precision", "--optimizer", "--grad-dtype",
        "--master-weights", "--clip", "--set", "--seed", "--nodes",
        "--seq-len", "--image-size", "--mode",
        "--lora-rank", "--lora-targets", "--freeze", "--power-cap", "--clock", "--json", "--out", "--help",
    },
    "plot power": {
        "--model", "--cluster", "--software", "--tp", "--pp", "--dp", "--vpp", "--zero", "--shard", "--sequence-parallel", "--schedule",
        "--cp", "--cp-mode", "--cp-cut", "--ep", "--expert-imbalance", "--capacity-factor",
        "--layers-per-stage", "--defer-embedding-wgrad",
        "--micro-batch", "--recompute", "--recompute-layers", "--gradient-sync", "--gradient-compression", "--offload",
        "--replication", "--local-steps", "--servers",
        "--order", "--global-batch", "--seq-len", "--image-size", "--precision", "--optimizer", "--grad-dtype",
        "--master-weights", "--clip", "--set",
        "--seed", "--lora-rank", "--lora-targets", "--freeze", "--power-cap", "--clock", "--clocks", "--caps", "--json", "--out", "--help",
    },
    "plot roofline": {"--accelerator", "--model", "--software", "--precision", "--micro-batch", "--seq-len", "--json", "--out", "--help"},
    "plot collective": {"--cluster", "--collective", "--ranks", "--json", "--out", "--help"},
    "calibrate": {
        "--device", "--budget", "--ranks", "--measurements", "--replay", "--runs", "--cluster", "--software", "--name", "--out", "--json",
        "--help",
    },
    "validate published": {"--out", "--json", "--help"},
    "validate compare": {
        "--model", "--cluster", "--software", "--tp", "--pp", "--dp", "--vpp", "--zero", "--shard", "--sequence-parallel", "--schedule",
        "--cp", "--cp-mode", "--cp-cut", "--ep", "--expert-imbalance", "--capacity-factor",
        "--layers-per-stage", "--defer-embedding-wgrad",
        "--micro-batch", "--recompute", "--recompute-layers", "--gradient-sync", "--gradient-compression", "--offload",
        "--replication", "--local-steps", "--servers",
        "--order", "--global-batch", "--seq-len", "--image-size", "--precision", "--optimizer", "--grad-dtype",
        "--master-weights", "--clip", "--set", "--seed", "--power-cap", "--clock", "--lora-rank", "--lora-targets", "--freeze",
        "--case", "--step", "--json", "--out", "--help",
    },
    "validate trainer": {
        "--suite", "--model", "--sample", "--sample-dtype", "--plan", "--world-size", "--global-batch", "--precision", "--optimizer",
        "--clip", "--device", "--framework", "--software", "--compile", "--seconds", "--energy", "--trace", "--seed", "--out", "--json",
        "--help",
    },
    "trace": {"--input", "--input-dtype", "--json", "--out", "--help"},
    "list": {"--json", "--help"},
    "show": {"--json", "--help"},
}  # fmt: skip

KEYS = {
    "step_s", "tokens_per_s", "samples_per_s", "mfu", "hfu", "energy_j", "mean_power_w", "cost_usd", "co2_g", "peak_memory_bytes", "fits",
    "breakdown", "plan", "recipe", "assumed", "memory", "energy", "hidden",
}  # fmt: skip


def commands() -> dict[str, Any]:
    """Return every command by its full name."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found.update({f"{name} {one}": two for one, two in inner.items()} if inner else {name: command})
    return found


def test_options_are_frozen() -> None:
    """Scripts rely on these flags: adding or removing one is a decision, and this list is where it shows."""
    have = {name: {flag for one in command.params for flag in one.opts if flag.startswith("--")} for name, command in commands().items()}
    assert {name: flags | {"--help"} for name, flags in have.items()} == OPTIONS


def test_help_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """What a command takes is in its help."""
    for name, flags in OPTIONS.items():
        assert run([*name.split(), "--help"]) == 0
        text = capsys.readouterr().out
        assert all(flag in text for flag in flags)


def test_json_has_the_fields_of_a_prediction(capsys: pytest.CaptureFixture[str]) -> None:
    """`--json` prints the prediction's fields as keys, in SI units that agree with one another."""
    assert run(["simulate", *SMALL, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data.keys() >= KEYS
    assert data["samples_per_s"] == pytest.approx(64 / data["step_s"])
    assert data["tokens_per_s"] == pytest.approx(64 * data["seq_len"] / data["step_s"])
    assert data["mean_power_w"] == pytest.approx(data["energy_j"] / data["step_s"])
    assert sum(data["breakdown"].values()) == pytest.approx(data["step_s"])
    assert sum(data["energy"].values()) == pytest.approx(data["energy_j"])
    assert data["peak_memory_bytes"] == [stage["peak_bytes"] for stage in data["memory"]]
    assert data["plan"]["dp"] == 8


def test_table_fits_eighty_columns_in_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """The table in a pipe has no escape sequences and no line over 80 columns."""
    assert run(["simulate", "--model", "gpt2", "--cluster", "dgx-a100-80gb:1"]) == 0
    text = capsys.readouterr().out
    assert "\033" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "MFU counts model FLOPs" in text
    assert "global batch" in text.split("assumed")[1]


def test_a_plan_that_does_not_fit_is_predicted_with_status_3(capsys: pytest.CaptureFixture[str]) -> None:
    """Overflow of memory names the stage and the largest consumers, and the prediction is printed all the same."""
    assert run(["simulate", *TOO_BIG, "--tp", "8", "--json"]) == 3
    out, err = capsys.readouterr()
    assert json.loads(out)["fits"] is False
    assert "stage 0 of 1" in err
    assert "largest: " in err
    assert len(err.splitlines()) <= 3


def test_out_holds_report_timeline_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--out` makes the folder and fills it."""
    folder = tmp_path / "new" / "out"
    assert run(["simulate", *SMALL, "--out", str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {"report.json", "timeline.json.gz", "picture.png", "picture.svg"}
    assert json.loads((folder / "report.json").read_text())["step_s"] > 0
    assert str(folder) in capsys.readouterr().out


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no model": (("simulate", "--cluster", "dgx-a100-80gb:1"), "--model"),
    "unknown command": (("simulat",), "simulate"),
    "unknown option": (("simulate", *SMALL, "--bogus"), "--bogus"),
    "no value": (("simulate", *SMALL, "--tp"), "--tp"),
    "no integer": (("simulate", *SMALL, "--tp", "two"), "--tp"),
    "unknown model": (("simulate", "--model", "gpt3-157b", "--cluster", "dgx-a100-80gb:1"), "gpt3-175b"),
    "unknown cluster": (("simulate", "--model", "gpt2", "--cluster", "dgx-a100-80g:1"), "dgx-a100-80gb"),
    "no node count": (("simulate", "--model", "gpt2", "--cluster", "dgx-a100-80gb"), "dgx-a100-80gb:16"),
    "no nodes": (("simulate", "--model", "gpt2", "--cluster", "dgx-a100-80gb:0"), "from 1"),
    "unknown software": (("simulate", *SMALL, "--software", "megatron"), "megatron-lm"),
    "unknown schedule": (("simulate", *SMALL, "--schedule", "1f1c"), "1f1b"),
    "unknown precision": (("simulate", *SMALL, "--precision", "bf61"), "bf16"),
    "unknown detail": (("simulate", *SMALL, "--detail", "ops"), "op"),
    "unknown dimension": (("simulate", *SMALL, "--unfold", "dq"), "dp"),
    "negative degree": (("simulate", *SMALL, "--tp", "-1"), "from 1"),
    "negative batch": (("simulate", *SMALL[:4], "--global-batch", "-8"), "from 1"),
    "absurd batch": (("simulate", *SMALL[:4], "--global-batch", str(10**21)), "at most"),
    "absurd length": (("simulate", *SMALL, "--seq-len", str(10**12)), "1,000,000,000"),
    "degrees do not divide": (("simulate", *SMALL, "--pp", "3"), "pp of 1, 2, 4"),
    "cluster too small": (("simulate", *SMALL, "--tp", "4", "--pp", "12"), "at least 6 nodes"),
    "heads do not divide": (("simulate", *SMALL, "--tp", "8"), "use one of"),
    "batch does not divide": (("simulate", *SMALL[:4], "--global-batch", "65"), "64 or 72"),
    "setting without value": (("simulate", *SMALL, "--set", "plan.tp"), "path and a value"),
    "unknown root": (("simulate", *SMALL, "--set", "clustr.nodes=2"), "cluster"),
    "unknown field": (("simulate", *SMALL, "--set", "cluster.node.usd_per_hur=2"), "usd_per_hour"),
    "wrong unit": (("simulate", *SMALL, "--set", "cluster.node.usd_per_hour=2 W"), "USD/h"),
    "negative price": (("simulate", *SMALL, "--set", "cluster.node.usd_per_hour=-2"), "negative"),
    "no such file": (("simulate", "--model", "./none.yaml", "--cluster", "dgx-a100-80gb:1"), "none.yaml"),
    "targets without a rank": (("simulate", *SMALL, "--lora-targets", "qkv"), "give --lora-rank"),
    "frozen beside adapters": (("simulate", *SMALL, "--lora-rank", "4", "--freeze", "head"), "leave one of them out"),
    "no such product": (("simulate", *SMALL, "--lora-rank", "4", "--lora-targets", "q_prj"), "q_proj"),
    "no such rank": (("simulate", *SMALL, "--lora-rank", "0"), "whole number from 1"),
    "no such block": (("simulate", *SMALL, "--freeze", "hed"), "head"),
    "nothing left to train": (("simulate", *SMALL, "--freeze", "embedding,layers,head"), "leaves nothing"),
    "nothing named": (("simulate", *SMALL, "--freeze", ","), "names nothing"),
    "unknown list": (("list", "model"), "models"),
    "nothing of that name": (("show", "h100"), "h100-sxm"),
    "unknown order": (("simulate", *SMALL, "--order", "tp-dp"), "tp-dp-pp"),
    "unknown mode of context": (("simulate", *SMALL, "--cp", "2", "--cp-mode", "rong"), "ring"),
    "mode without context": (("simulate", *SMALL, "--cp-mode", "ulysses"), "cp=1"),
    "slow nothing": (("simulate", *SMALL, "--slow", "3"), "rank=3:1.2"),
    "slow nowhere": (("simulate", *SMALL, "--slow", "rnk=3:2"), "rank"),
    "slow twice": (("simulate", *SMALL, "--slow", "rank=3:2", "--slow", "rank=3:3"), "twice"),
    "slow beyond": (("simulate", *SMALL, "--slow", "rank=99:2"), "from 0 to 7"),
    "samples of the same": (("simulate", *SMALL, "--samples", "9"), "give a jitter"),
    "experts of none": (("simulate", *SMALL, "--ep", "2"), "use ep=1"),
    "imbalance of none": (("simulate", *SMALL, "--expert-imbalance", "1.2"), "ep=1"),
    "order that straddles": (
        ("simulate", *SMALL[:2], "--cluster", "dgx-a100-80gb:3", "--dp", "3", "--tp", "2", "--pp", "4", "--global-batch", "6",
         "--order", "dp-tp-pp"),
        "begins with tp",
    ),
    "cap below idle": (("simulate", *SMALL, "--power-cap", "10W"), "above 55 W (idle) to 400 W (limit)"),
    "cap above the limit": (("simulate", *SMALL, "--power-cap", "500W"), "above 55 W (idle) to 400 W (limit)"),
    "cap without unit": (("simulate", *SMALL, "--power-cap", "300"), "300W"),
    "clock out of range": (("simulate", *SMALL, "--clock", "3GHz"), "210 MHz to 1.41 GHz"),
    "clock in watts": (("simulate", *SMALL, "--clock", "300W"), "1200MHz"),
    "clock twice": (("simulate", *SMALL, "--clock", "1GHz", "--set", "cluster.node.accelerator.power.clock_hz=1GHz"), "leave out one"),
    "clock of a chip without": (("simulate", *SMALL[:2], "--cluster", "tpu-v4-host:1", "--clock", "1GHz"), "power.clocks"),
    "cap of a chip without": (("plot", "scaling", *SMALL[:2], "--cluster", "gaudi2-8", "--power-cap", "300W"), "power.clocks"),
    "power of a chip without": (("plot", "power", *SMALL[:2], "--cluster", "tpu-v4-host:1", "--caps", "100W"), "power.clocks"),
    "clocks that are none": (("plot", "power", *SMALL, "--clocks", "1GHz,fast"), "'fast'"),
    "one cap out of range": (("plot", "power", *SMALL, "--caps", "300W,3W"), "above 55 W (idle)"),
    "no such chip": (("plot", "roofline", "--accelerator", "h100"), "h100-sxm"),
    "precision the chip lacks": (("plot", "roofline", "--accelerator", "k80", "--model", "gpt2", "--precision", "bf16"), "fp32"),
    "no node counts": (("plot", "scaling", *SMALL, "--nodes", "1,x"), "'x'"),
    "unknown mode": (("plot", "scaling", *SMALL, "--mode", "stronk"), "strong"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_three_lines_at_most_and_status_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every mistake is said on stderr with its remedy, in one to three lines, without a traceback, and nothing is printed or written."""
    arguments, remedy = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert remedy in err
    assert 1 <= len(err.splitlines()) <= 3
    assert "Traceback" not in err


@pytest.mark.parametrize("text", ["a: [", "name: x\nlayers: -3\n", "name: x\nbogus: 1\nbogus2: 2\nbogus3: 3\nbogus4: 4\n", "", "- 1\n"])
def test_a_malformed_profile_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A broken model file names itself, in one to three lines."""
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert run(["simulate", "--model", str(path), "--cluster", "dgx-a100-80gb:1"]) == 2
    err = capsys.readouterr().err
    assert "mine.yaml" in err
    assert 1 <= len(err.splitlines()) <= 3


def test_out_that_is_a_file_is_refused_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file where a folder should be is refused at once."""
    path = tmp_path / "out"
    path.write_text("mine")
    assert run(["simulate", *SMALL, "--out", str(path)]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert "is a file" in err
    assert path.read_text() == "mine"


def test_set_reaches_every_root(capsys: pytest.CaptureFixture[str]) -> None:
    """`--set` changes plan, recipe, cluster, software and model; a price halved halves the cost."""
    settings = (
        "plan.micro_batch=2", "recipe.optimizer=sgd", "software.host.step_s=0.1 s", "model.layers=6", "cluster.node.usd_per_hour=3.6",
    )
    assert run(["simulate", *SMALL, "--json", *(word for one in settings for word in ("--set", one))]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["plan"]["micro_batch"] == 2
    assert data["recipe"]["optimizer"] == "sgd"
    assert data["step_s"] > 0.1
    assert data["parameters"] < 100e6
    assert data["cost_usd"] == pytest.approx(3.6 * data["step_s"] / 3600)


def test_adapters_and_frozen_blocks_train_less(capsys: pytest.CaptureFixture[str]) -> None:
    """`--lora-rank` and `--freeze` reach the prediction, and the targets that nobody named are said."""
    found = {}
    for name, more in {"all": (), "lora": ("--lora-rank", "4"), "frozen": ("--freeze", "layers")}.items():
        assert run(["simulate", *SMALL, "--json", *more]) == 0
        found[name] = json.loads(capsys.readouterr().out)
    assert found["lora"]["trained_parameters"] < found["frozen"]["trained_parameters"] < found["all"]["trained_parameters"]
    assert max(found["lora"]["peak_memory_bytes"]) < max(found["all"]["peak_memory_bytes"])
    assert "LoRA targets all-linear (--lora-targets)" in found["lora"]["assumed"]


def test_show_model_json_has_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    """`show MODEL --json` counts parameters, FLOPs and activations."""
    assert run(["show", "gpt2", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["parameters"] == data["active_parameters"] == 124_439_808
    assert data["layers"] == 12
    assert data["flop_per_sample"] > 6 * data["parameters"] * 1024 * 0.9
    assert data["activation_bytes_per_sample"] > 0


@pytest.mark.parametrize("name", ["dgx-a100-80gb", "dgx-a100-80gb:4", "a100-sxm-80gb", "selene", "megatron-lm", "1f1b", "gpt2"])
def test_show_finds_a_name_of_any_kind(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One verb shows models, clusters, nodes, accelerators, software and schedules, as text and as JSON."""
    assert run(["show", name]) == 0
    assert "source" in capsys.readouterr().out
    assert run(["show", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kind"]


def test_list_prints_one_name_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """`list models` in a pipe is names and nothing else."""
    assert run(["list", "models"]) == 0
    names = capsys.readouterr().out.split()
    assert "gpt3-175b" in names
    assert names == sorted(names)


def test_plot_roofline_draws_and_lists_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Roofs of every precision, kernels of the model, in pictures, a table and a CSV."""
    assert run(["plot", "roofline", "--accelerator", "h100-sxm", "--model", "gpt2", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"roofline.png", "roofline.svg", "roofline.csv"}
    out = capsys.readouterr().out
    assert "989 TFLOP/s" in out
    assert "mlp_up.wgrad" in out
    assert (tmp_path / "roofline.csv").read_text().count("\nroof,") == 5
    assert run(["plot", "roofline", "--accelerator", "cpu-epyc-7742", "--out", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["flop_per_s"] == 4.608e12


def test_plot_scaling_lists_what_it_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A node count that does not divide the batch is named with its reason in the table and in the CSV."""
    assert run(["plot", "scaling", *SMALL, "--nodes", "1,2,3", "--mode", "strong", "--out", str(tmp_path)]) == 0
    assert "left out: strong, 3 nodes: global batch 64" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"scaling.png", "scaling.svg", "scaling.csv"}
    rows = (tmp_path / "scaling.csv").read_text().splitlines()
    assert len(rows) == 4
    assert "global batch 64" in rows[3]


def test_a_fresh_process_ends_with_its_status() -> None:
    """`python -m foretrain` passes the status on and prints no traceback."""
    done = subprocess.run([sys.executable, "-m", "foretrain", "show", "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("foretrain: nothing in the library")


def test_a_closed_pipe_is_quiet() -> None:
    """`foretrain list | head -1` says nothing on stderr."""
    with subprocess.Popen([sys.executable, "-m", "foretrain", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_power_cap_and_clock_cost_time_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    """Both are shorthand for a field of the profile, both lengthen a step, and clock and power stand in table and JSON."""
    job = ("simulate", "--model", "gpt3-1.3b", "--cluster", "dgx-a100-80gb:1", "--global-batch", "64")
    said: dict[str, dict[str, Any]] = {}
    for options in ("", "--power-cap 200W", "--set cluster.node.accelerator.power.cap_w=200W", "--clock 900MHz"):
        assert run([*job, *options.split(), "--json"]) in (0, 3)
        said[options] = json.loads(capsys.readouterr().out)
    free, capped, by_field, slow = said.values()
    assert capped == by_field
    assert free["step_s"] < capped["step_s"]
    assert free["step_s"] < slow["step_s"]
    assert slow["clock_hz"] == pytest.approx(900e6)
    assert capped["power"]["accelerator_mean_w"] <= 1.02 * 200
    assert run([*job, "--clock", "900MHz"]) in (0, 3)
    out = capsys.readouterr().out
    assert "mean clock 900 MHz" in out
    assert "an accelerator's own" in out


def test_a_network_of_images_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    """In images, of a size that the command line may change; channels last spare the transposes."""
    job = ["simulate", "--model", "resnet-50", "--cluster", "dgx-1-v100:1", "--software", "pytorch-eager", "--global-batch", "256"]
    job += ["--micro-batch", "32", "--precision", "fp16", "--optimizer", "momentum"]
    assert run([*job, "--image-size", "160"]) == 0
    table = capsys.readouterr().out
    assert "batch 256 × images of 160 × 160, fp16, momentum" in table
    assert "images/s/accelerator" in table
    steps = []
    for layout in ("true", "false"):
        assert run([*job, "--set", f"software.channels_last={layout}", "--json"]) == 0
        steps.append(json.loads(capsys.readouterr().out)["step_s"])
    assert steps[0] < steps[1]
    assert run([*job, "--set", "model.stride_in=2x2"]) == 2
    assert "stride_in" in capsys.readouterr().err
