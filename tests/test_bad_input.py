"""What a capacity planner gets wrong: every mistake is one to three lines with the remedy and status 2, never a traceback."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foretrain.cli import run
from foretrain.errors import ProfileError, UsageError, nearest
from foretrain.hardware.load import load_cluster
from foretrain.models.load import load_model, load_spec
from foretrain.overrides import apply_overrides, override
from foretrain.sim.plan import Plan
from foretrain.sim.recipe import Recipe
from foretrain.software.load import load_software

SMALL = ("simulate", "--model", "gpt2", "--cluster", "dgx-a100-80gb:1", "--global-batch", "64")
MINE = "sources: {mine: {kind: estimate, title: a guess}}\n"


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a refused command said, having checked its form."""
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("foretrain: ")
    assert 1 <= len(err.splitlines()) <= 3
    assert max(map(len, err.splitlines())) < 600
    return err


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    """Return the path of a profile that holds `text`."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


# --- --set ------------------------------------------------------------------------------------------------------------------------

WRONG_SETTINGS = {
    "plan.gradient_sync=steps": "did you mean 'step'",
    "plan.zero=4": "from 0 to 3",
    "plan.cpp=2": "--set plan.cpp: plan has no field 'cpp'; did you mean",
    "plan.cp_mode=rong": "ring",
    "cluster.node": "path and a value",
    "cluster.node=dgx-h100": "set one of cluster.node.name, cluster.node.accelerator",
    "cluster.node.nic_bytes_per_s=400Gbps": "did you mean 'Gbit/s'?",
    "cluster.node.nic_bytes_per_s=nan": "not finite",
    "cluster.node.nic_bytes_per_s=1e-300 B/s": "out of range",
    "cluster.node.scale_up.efficiency=1e-308": "out of range",
    "cluster.node.supply_efficiency=1.1": "give above 0.5 to 1",
    "cluster.node.accelerator.memory_bytes=80 gb": "'GB'",
    "cluster.node.accelerator.power.idle_w=1000": "is not below the limit",
    "cluster.node.accelerator.matmul.tile_efficiency=1": "give one per tile",
    "cluster.node.accelerator.matmul.tile_efficiency=": "give one per tile",
    "cluster.node.usd_per_hour=30 EUR/h": "unknown unit 'EUR'; use one of B, bit",
    "cluster.assumed=nothing": "has no field 'assumed'",
    "cluster.name=": "no text",
    "cluster.name=a\nb": "no text of one line",
    "software.attention.default=flash9": "use one of unfused, flash1",
    "software.fused=norm,sofmax": "did you mean 'softmax'?",
    "software.selective=some": "use one of core_attention",
    "software.matmul_scale=100": "give 0.01 to 2",
    "software.state.parameter_bytes=2e9": "give 0 to 64 B",
    "model.layers=none": "no whole number",
    "model.hidden=1024": "does not divide hidden=1024",
}


@pytest.mark.parametrize("setting", WRONG_SETTINGS)
def test_a_wrong_setting_names_its_path_and_the_remedy(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Words that mean nothing, figures that no machine has, fields that contradict one another."""
    said = refusal(capsys, *SMALL, "--set", setting)
    assert setting.partition("=")[0] in said
    assert WRONG_SETTINGS[setting] in said


def test_fields_that_must_agree_are_set_together() -> None:
    """`hidden` and `heads`, or `gated` and `activation`, pass through no state in between that would be refused."""
    spec = apply_overrides(load_spec("gpt2"), {"hidden": "1024", "heads": "16", "activation": "swiglu", "gated": "true"})
    assert (spec.hidden, spec.heads, spec.activation) == (1024, 16, "swiglu")
    cluster = apply_overrides(
        load_cluster("dgx-h100:1"), {"node.accelerator.power.idle_w": "900 W", "node.accelerator.power.limit_w": "1 kW"}
    )
    assert cluster.accelerator.power.idle_w == 900


def test_a_field_and_a_part_of_it_are_not_set_together() -> None:
    """Neither order wins in silence."""
    for paths in (("node.nics", "node.nics.count"), ("node.nics.count", "node.nics")):
        with pytest.raises(UsageError, match="set both whole and in part"):
            apply_overrides(load_cluster("dgx-h100:1"), dict.fromkeys(paths, "4"))


def test_what_may_be_left_open_can_be_opened_again() -> None:
    """`none` unsets an optional field, and zero 0 is a count from 0."""
    assert override(Plan(dp=8, zero=3, shard=4), "shard", "none").shard is None
    assert override(Recipe(global_batch=8, seq_len=64), "seq_len", "None").seq_len is None
    assert override(Plan(dp=8, zero=3), "zero", "0").zero == 0


def test_a_setting_may_be_as_large_as_the_option() -> None:
    """`--set recipe.global_batch` takes what `--global-batch` takes."""
    assert override(Recipe(global_batch=8), "global_batch", "2000000").global_batch == 2_000_000


def test_what_is_set_is_no_longer_assumed() -> None:
    """A figure that the user gives is not among those that nobody stated."""
    cluster = load_cluster("dgx-h100:1")
    assert "node.usd_per_hour" in cluster.assumed
    changed = override(cluster, "node.usd_per_hour", "20")
    assert set(cluster.assumed) - set(changed.assumed) == {"node.usd_per_hour"}
    assert "usd_per_hour" not in changed.node.assumed


def test_no_software_is_no_default(capsys: pytest.CaptureFixture[str]) -> None:
    """`--software "$UNSET"` is a mistake, not a wish for the default."""
    assert "no software is called ''" in refusal(capsys, *SMALL, "--software", "")


# --- profiles ---------------------------------------------------------------------------------------------------------------------

WRONG_MODELS = {
    "base: gpt2\n\tlayers: 3\n": "tab",
    "base: gpt2\nlayers: 3\nlayers: 4\n": "given twice",
    "base: gpt2\nlayers: {value: 3, source: checkpoint}\n": "3 needs no source of its own",
    "base: gpt2\nlayers: [3]\n": "no whole number",
    "base: gpt2\nlayers: .nan\n": "no whole number",
    "base: gpt2\nlayers: 1e99\n": "no whole number",
    "base: gpt2\nlayers: 1:30\n": "no whole number",
    "base: gpt2\nlayers: 014\n": "no whole number",
    "base: gpt2\nname: ''\n": "no text",
    'base: gpt2\nname: "a\\nb"\n': "no text of one line",
    "base: gpt2\nname: 5\n": "in quotes",
    "base: gpt2\nsources: 5\n": "no mapping",
    "base: gpt2\nsource: chekpoint\n": "did you mean 'checkpoint'?",
    "base: gpt2\nsource: nowhere\n": "use one of paper, checkpoint",
    "base: gpt2\ntied: nope\n": "neither true nor false",
    "base: gpt2\nsources: &s {x: *s}\n": "holds itself",
    "base: gpt2\na: " + "{a: " * 100 + "1" + "}" * 100: "deep",
    "base: ./none.yaml\n": "no file",
    "base: ./mine.yaml\n": "inherits itself",
    "": "holds nothing",
    "- 1\n": "holds a list",
}


@pytest.mark.parametrize("text", WRONG_MODELS)
def test_a_wrong_model_file_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is named, with its line where there is one, and what it should say."""
    said = refusal(capsys, "simulate", "--model", written(tmp_path, text), "--cluster", "dgx-a100-80gb:1")
    assert "mine.yaml" in said
    assert WRONG_MODELS[text] in said


@pytest.mark.parametrize(
    "path", ["/" + "x" * 5000, "./" + "y" * 300 + ".yaml", "a/b\0c", "/proc/self/mem", "/dev/zero", "/", "./none.yaml"]
)
def test_what_is_no_file_is_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Paths that the system itself refuses, folders, what cannot be read: the same few lines."""
    assert "give" in refusal(capsys, "simulate", "--model", path, "--cluster", "dgx-a100-80gb:1")
    assert "give" in refusal(capsys, *SMALL, "--software", path)


def test_binary_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes that are no text, and a file too long for a profile, which is not even read."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\x00\xff\xfe")
    assert "not UTF-8" in refusal(capsys, "simulate", "--model", str(path), "--cluster", "dgx-a100-80gb:1")
    with path.open("wb") as file:
        file.truncate(10**10)
    assert "over" in refusal(capsys, "simulate", "--model", str(path), "--cluster", "dgx-a100-80gb:1")


WRONG_CLUSTERS = {
    "base: dgx-a100-80gb\nnodes: {value: 2, source: mine}\n": "it goes under `node`, as in `node: dgx-a100-80gb`",
    "name: x\nnode: h100-sxm\nnodes: {value: 2, source: mine}\n": "it goes under `accelerator`",
    "base: selene\nfacility: {pue: {value: 0.5, source: mine}}\n": "facility.pue: '0.5' is out of range",
    "base: selene\nscale_out: {bandwidth: {value: 200 Gbit, source: mine}}\n": "is in B, but this field is in B/s",
    "base: selene\nnode: 5\n": "no mapping",
    "base: selene\nnode: {scale_up: infiniband-hdr}\n": "mine.yaml:2: node.scale_up.domain: is missing; give it",
    "base: selene\nnode: {nic_bandwidth: {value: .nan, source: mine}}\n": "not finite",
    "base: selene\nnode: {nic_bandwidth: {value: 0 B/s, source: mine}}\n": "out of range",
}


@pytest.mark.parametrize("text", WRONG_CLUSTERS)
def test_a_wrong_cluster_file_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part under the wrong key, a wrong unit in a part, a part replaced by one that lacks what it must have."""
    said = refusal(capsys, "simulate", "--model", "gpt2", "--cluster", written(tmp_path, text + MINE))
    assert WRONG_CLUSTERS[text] in said


def test_one_figure_of_a_part_that_a_node_lends_can_be_changed(tmp_path: Path) -> None:
    """Selene says nothing of its facility and its network, which are its node's; a file may still change one field of either."""
    text = "base: selene\nfacility: {pue: {value: 1.5, source: mine}}\nscale_out: {efficiency: {value: 0.5, source: mine}}\n" + MINE
    mine, selene = load_cluster(written(tmp_path, text)), load_cluster("selene")
    assert mine.facility.pue == 1.5
    assert mine.facility.usd_per_kwh == selene.facility.usd_per_kwh
    assert mine.scale_out.efficiency == 0.5
    assert mine.scale_out.step_latency_s == selene.scale_out.step_latency_s


def test_a_part_that_is_named_takes_the_place_of_the_other_whole(tmp_path: Path) -> None:
    """An H100 in an A100 machine is an H100, with nothing left of the A100 that an H100's profile does not say."""
    text = "base: selene\nnode: {accelerator: h100-sxm, scale_up: {base: nvlink4, efficiency: {value: 0.5, source: mine}}}\n" + MINE
    mine, theirs = load_cluster(written(tmp_path, text)), load_cluster("dgx-h100:1")
    assert mine.accelerator == theirs.accelerator
    assert mine.node.scale_up == dataclasses.replace(theirs.node.scale_up, efficiency=0.5)
    assert mine.node.host_w == load_cluster("selene").node.host_w


def test_a_base_may_lie_in_another_folder(tmp_path: Path) -> None:
    """Paths in a profile are relative to the profile, whatever the working folder."""
    (tmp_path / "sub").mkdir()
    written(tmp_path / "sub", "base: gpt2\nlayers: 6\n", "base.yaml")
    top = written(tmp_path, "base: sub/base.yaml\nhidden: 384\nheads: 6\n")
    assert load_model(top).depth == 6
    scale = "base: ../node.yaml\nusd_per_hour: {value: 1 USD/h, source: mine}\n" + MINE
    written(tmp_path, "base: dgx-h100\n", "node.yaml")
    assert load_cluster(written(tmp_path / "sub", scale, "mine.yaml") + ":2").node.usd_per_hour == 1
    assert load_software(written(tmp_path, "base: megatron-lm\nfused: [norm]\n", "soft.yaml")).fused == {"norm"}


def test_an_accelerator_of_ones_own_goes_into_a_node(tmp_path: Path) -> None:
    """A chip in one file, a node that holds it, a cluster of such nodes."""
    written(tmp_path, "base: h100-sxm\nname: Mine\npeak: {bf16: {value: 500 TFLOP/s, source: mine}}\n" + MINE, "chip.yaml")
    written(tmp_path, "base: dgx-h100\naccelerator: ./chip.yaml\n", "node.yaml")
    cluster = load_cluster(written(tmp_path, "name: Ours\nnode: ./node.yaml\nnodes: {value: 3, source: mine}\n" + MINE, "cluster.yaml"))
    assert cluster.accelerator.name == "Mine"
    assert cluster.accelerator.peak_flop_per_s["bf16"] == 500e12
    assert cluster.nodes == 3


@pytest.mark.parametrize("name", ["1f1b:2", "gpt2:4", "h100-sxm:8", "megatron-lm:1", "dgx-h100:0", "dgx-h100:x", "", ":", "a" * 5000])
def test_a_count_belongs_to_nodes_and_clusters(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else has a number of nodes, and the message does not repeat a novel."""
    assert len(refusal(capsys, "show", name)) < 400


def test_show_finds_fabrics_and_facilities(capsys: pytest.CaptureFixture[str]) -> None:
    """What a message calls a part of the library can be listed and looked at."""
    for kind, name in (("fabrics", "nvlink3"), ("facilities", "us-average")):
        assert run(["list", kind]) == 0
        assert name in capsys.readouterr().out.split()
        assert run(["show", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["figures"]


def test_show_follows_the_bases_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The kind of a file is that of what it inherits, through other files too."""
    written(tmp_path, "base: h100-sxm\n", "chip.yaml")
    assert run(["show", written(tmp_path, "base: ./chip.yaml\nname: Mine\n")]) == 0
    assert capsys.readouterr().out.startswith("Mine")
    written(tmp_path, "base: ./mine.yaml\n", "chip.yaml")
    assert "looks like no profile" in refusal(capsys, "show", str(tmp_path / "mine.yaml"))


# --- plans ------------------------------------------------------------------------------------------------------------------------

WRONG_PLANS = {
    "--pp 2 --vpp 5": "use vpp of 1, 2, 3, 6",
    "--pp 5 --dp 1": "use pp of",
    "--pp 4 --vpp 2": "use pp of 1, 2, 3, 6",
    "--tp 2 --sequence-parallel --seq-len 33": "use sequences of 32 or 34, or leave it off",
    "--tp 2 --sequence-parallel --seq-len 1": "use sequences of 2,",
    "--sequence-parallel": "tp=1",
    "--zero 3 --shard 3": "use one of 1, 2, 4, 8",
    "--shard 2": "use zero 1, 2 or 3",
    "--micro-batch 64": "use 512",
    "--dp 16": "use at least 2 nodes",
    "--tp " + "9" * 5000: "--tp",
    "--cluster dgx-h100:100000 --dp 100000 --global-batch 100000 --unfold dp": "leave it out",
    "--cluster dgx-h100:2 --set cluster.scale_out.topology=none": "has no network",
    "--global-batch 100000000 --out out": "use a global batch of at most",
    "--cluster dgx-h100:2 --set cluster.node.scale_up.island=4": "island_bytes_per_s",
    "--precision tf32 --cluster dgx-1v-32gb:1": "has no tf32 rate; use one of fp32, fp16",
    "--precision fp16 --cluster tpu-v4-host:2": "has no fp16 rate; use one of bf16",
}


@pytest.mark.parametrize("options", WRONG_PLANS)
def test_an_impossible_plan_names_the_nearest_possible(
    options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is offered would be accepted."""
    monkeypatch.chdir(tmp_path)
    assert WRONG_PLANS[options] in refusal(capsys, *SMALL, *options.split())


# --- plots and files --------------------------------------------------------------------------------------------------------------

PLOT = ("plot", "scaling", *SMALL[1:3], "--cluster", "dgx-a100-80gb")


@pytest.mark.parametrize("nodes", ["", ",", "0", "-1", "1.5", "1,x", "9" * 5000, "1000001"])
def test_wrong_node_counts_are_refused(nodes: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts that are none, and more digits than Python reads."""
    assert "such as 1,2,4,8" in refusal(capsys, *PLOT, "--nodes", nodes, "--out", str(tmp_path))


@pytest.mark.parametrize("setting", ["plan.dp=2", "cluster.nodes=4"])
def test_a_plot_refuses_to_fix_what_it_varies(setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dp or a node count of one's own would be dropped, or make every point the same machine."""
    assert "--nodes gives it" in refusal(capsys, *PLOT, "--set", setting, "--out", str(tmp_path))


WRONG_RUNS = {
    "": "empty",
    "a,b\n1,2\n": "none that is understood",
    '"a,b\n1,2\n': "none that is understood",
    "a" * 5000 + "\n1\n": "none that is understood",
    "a,b\n" + "x" * 200_000 + ",1\n": "no CSV",
}


@pytest.mark.parametrize("text", WRONG_RUNS)
def test_a_wrong_file_of_runs_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no file of published runs says so."""
    path = written(tmp_path, text, "runs.csv")
    assert WRONG_RUNS[text] in refusal(capsys, "validate", "published", path, "--out", str(tmp_path / "out"))


@pytest.mark.parametrize("place", ["/proc/none", "/dev/null", "file/below", "x" * 300, "report.json"])
def test_an_unwritable_place_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Folders that the system refuses, files in the way, names too long."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "report.json").touch()
    for command in (SMALL, PLOT, ("validate", "published")):
        assert "give a folder that you may write to" in refusal(capsys, *command, "--out", place)


# --- streams ----------------------------------------------------------------------------------------------------------------------


def process(*arguments: str, shell: str) -> subprocess.CompletedProcess[str]:
    """Return a finished run of the command line, its arguments quoted into `shell` at {}."""
    command = shell.format(f"{sys.executable} -m foretrain {' '.join(arguments)}")
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [("list",), ("--help",), ("--version",), (), SMALL], ids=str)
def test_a_full_disk_is_one_line(arguments: tuple[str, ...]) -> None:
    """Standard output that takes nothing is said on standard error, with status 2."""
    done = process(*arguments, shell="{} > /dev/full")
    assert done.returncode == 2
    assert done.stderr == "foretrain: output cannot be written: No space left on device; send it where there is space\n"


@pytest.mark.parametrize("arguments", [("list",), ("--help",), (), (*SMALL, "--json")], ids=str)
def test_a_reader_that_leaves_is_no_mistake(arguments: tuple[str, ...]) -> None:
    """`| true` closes the pipe at once."""
    assert process(*arguments, shell="{} | true").stderr == ""


@pytest.mark.parametrize("shell", ["{} >&-", "{} 2>&-", "{} >&- 2>&-"])
def test_closed_streams_change_no_status(shell: str) -> None:
    """A job of a scheduler may start without any."""
    assert process("list", shell=shell).returncode == 0
    assert process("show", "nothing", shell=shell).returncode == 2
    assert "Traceback" not in process("show", "nothing", shell=shell).stderr


def test_an_interrupt_ends_with_130() -> None:
    """Ctrl-C in a long command: the shell's status for it, and no traceback."""
    wait = "import foretrain.cli_show as s, signal, os; s.run_list = lambda *a, **k: os.kill(os.getpid(), signal.SIGINT)"
    code = f"{wait}; import foretrain.cli; foretrain.cli.main(['list'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == ""


@pytest.mark.parametrize("columns", ["1", "5", "0", "x"])
def test_any_width_of_terminal_will_do(columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """COLUMNS is what a terminal says, sensible or not."""
    monkeypatch.setitem(os.environ, "COLUMNS", columns)
    for arguments in (("--help",), ("show", "gpt2"), SMALL):
        assert run(arguments) == 0
    assert capsys.readouterr().out


def test_version_and_short_help(capsys: pytest.CaptureFixture[str]) -> None:
    """What every command line has."""
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("foretrain ")
    for command in ((), ("simulate",), ("plot", "scaling")):
        assert run([*command, "-h"]) == 0
    assert "--help" in capsys.readouterr().out


# --- answers ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        "--seq-len 1", "--seq-len 1000000", "--set cluster.node.accelerator.memory_bytes=1", "--set cluster.node.nic_bytes_per_s=1e3",
        "--set cluster.node.accelerator.peak_flop_per_s.bf16=1e3", "--set model.vocab=1 --set model.layers=1 --set model.hidden=12",
        "--cluster dgx-h100:125000 --dp 1000000 --global-batch 1000000", "--set cluster.node.usd_per_hour=0",
    ],
)  # fmt: skip
def test_odd_jobs_have_strict_json(options: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The least and the greatest that is accepted gives finite numbers that add up, and the status that `fits` says."""
    status = run([*SMALL, *options.split(), "--json"])
    data = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert status == (0 if data["fits"] else 3)
    assert data["step_s"] > 0
    assert sum(data["breakdown"].values()) == pytest.approx(data["step_s"])
    assert min(data["breakdown"].values()) >= 0
    assert min(data["energy"].values()) >= 0


@pytest.mark.parametrize("seq_len", ["8192", "1000000", "1000000000"])
def test_a_table_of_what_does_not_fit_has_eighty_columns(seq_len: str, capsys: pytest.CaptureFixture[str]) -> None:
    """However far beyond the memory it is."""
    job = ("--model", "mt-nlg-530b", "--cluster", "dgx-1v-16gb:128", "--pp", "7", "--tp", "8", "--dp", "1", "--precision", "fp16")
    assert run(["simulate", *job, "--global-batch", "64", "--seq-len", seq_len]) == 3
    text = capsys.readouterr().out
    assert "does not fit" in text
    assert max(map(len, text.splitlines())) <= 80


def test_case_does_not_hide_a_name() -> None:
    """'gb' is as near to 'GB' as to 'Gb': both are offered."""
    assert nearest("gb", ["GB", "Gb"]) == "; did you mean 'GB', 'Gb'?"


def test_an_endless_inheritance_is_refused(tmp_path: Path) -> None:
    """Two files that inherit each other."""
    written(tmp_path, "base: ./two.yaml\n", "one.yaml")
    with pytest.raises(ProfileError, match="circle"):
        load_software(written(tmp_path, "base: ./one.yaml\n", "two.yaml"))
