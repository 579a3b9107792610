"""A user's own hardware profile: what it may say, and what is answered when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foretrain.errors import ProfileError, UnknownNameError
from foretrain.hardware.load import json_schema, load_accelerator, load_cluster, load_node

MINE = 'sources:\n  mine: {title: my own, kind: measurement}\n'


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def refused(spec: str) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        load_cluster(spec)
    return caught.value


def test_a_base_is_inherited_and_single_fields_overridden(tmp_path: Path) -> None:
    """Everything but the named fields stays the parent's, and a measured figure is no longer assumed."""
    power = "power:\n  limit: {value: 500 W, source: mine}\n  busy: {value: 80 W, source: mine}\n"
    path = write(tmp_path, "mine.yaml", f"base: h100-sxm\nname: Mine\n{MINE}{power}")
    mine, parent = load_accelerator(path), load_accelerator("h100-sxm")
    assert mine.name == "Mine"
    assert mine.key == "h100-sxm"
    assert mine.power.limit_w == 500
    assert mine.power.idle_w == parent.power.idle_w
    assert mine.peak_flop_per_s == parent.peak_flop_per_s
    assert set(parent.assumed) - set(mine.assumed) == {"power.busy_w"}


def test_a_base_may_be_a_path_beside_the_file(tmp_path: Path) -> None:
    """Relative to the file that names it, whatever the working folder."""
    write(tmp_path, "parts/first.yaml", f"base: a100-sxm-80gb\nname: First\n{MINE}cache: {{value: 41 MB, source: mine}}\n")
    second = write(tmp_path, "second.yaml", "base: parts/first.yaml\nname: Second\n")
    assert load_accelerator(second).cache_bytes == 41e6


def test_a_part_may_be_a_name_a_mapping_or_both(tmp_path: Path) -> None:
    """A node with another chip, a capped chip, and a chip capped in place."""
    cap = "power:\n    limit: {value: 450 W, source: mine}\n"
    named = write(tmp_path, "named.yaml", "base: dgx-h100\naccelerator: h200-sxm\n")
    both = write(tmp_path, "both.yaml", f"base: dgx-h100\n{MINE}accelerator:\n  base: h200-sxm\n  {cap}")
    inside = write(tmp_path, "inside.yaml", f"base: dgx-h100\n{MINE}accelerator:\n  {cap}")
    assert load_node(named).accelerator == load_accelerator("h200-sxm")
    assert load_node(both).accelerator.memory_bytes == 141e9
    assert load_node(both).accelerator.power.limit_w == 450
    assert load_node(inside).accelerator.memory_bytes == 80e9
    assert load_node(inside).accelerator.power.limit_w == 450


def test_a_file_may_be_a_node_or_a_cluster(tmp_path: Path) -> None:
    """A node's file wants a count; a cluster's has one that the spec may replace."""
    node = write(tmp_path, "node.yaml", "base: dgx-h100\n")
    cluster = write(tmp_path, "cluster.yaml", f"name: Mine\n{MINE}node: node.yaml\nnodes: {{value: 3, source: mine}}\nfacility: jean-zay\n")
    child = write(tmp_path, "child.yaml", "base: cluster.yaml\nname: Child\n")
    assert load_cluster(f"{node}:4").accelerators == 32
    assert "say how many" in str(refused(node))
    assert load_cluster(cluster).nodes == 3
    assert load_cluster(f"{cluster}:5").nodes == 5
    assert load_cluster(child).name == "Child"
    assert load_cluster(cluster).facility.pue == 1.2


def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    """Only the library is cached: a user edits and tries again."""
    path = write(tmp_path, "mine.yaml", "base: h100-sxm\nname: One\n")
    assert load_accelerator(path).name == "One"
    write(tmp_path, "mine.yaml", "base: h100-sxm\nname: Two\n")
    assert load_accelerator(path).name == "Two"


def test_all_faults_are_reported_at_once_with_line_key_and_remedy(tmp_path: Path) -> None:
    """Six mistakes, six faults, each with its place."""
    path = write(
        tmp_path,
        "bad.yaml",
        f"""base: h100-sxm
{MINE}memory:
  capacity: {{value: 80 GB/s, source: mine}}
  bandwith: {{value: 3 TB/s, source: mine}}
  efficiency: {{value: 1.5, source: mine}}
power:
  limit: 500 W
  busy: {{value: 80 W, source: mein}}
cache: {{value: -5 MB, source: mine}}
""",
    )
    with pytest.raises(ProfileError) as caught:
        load_accelerator(path)
    faults = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 6
    assert f"{path}:5: memory.capacity: '80 GB/s' is in B/s, but this field is in B" in faults
    assert f"{path}:6: memory.bandwith: unknown key; did you mean 'bandwidth'?" in faults
    assert f"{path}:7: memory.efficiency: '1.5' is out of range; give 0.001 to 1.2" in faults
    assert f"{path}:9: power.limit: a number needs its source; write {{value: 500 W, source: KEY}}" in faults
    assert "source 'mein' is not in the table `sources`; did you mean 'mine'" in faults
    assert "cache: '-5 MB' is negative" in faults
    assert len(str(caught.value).splitlines()) == 3
    assert str(caught.value).endswith("and 4 more faults")


def test_an_empty_profile_names_what_is_missing(tmp_path: Path) -> None:
    """Every missing field, with its unit."""
    path = write(tmp_path, "mine.yaml", "name: Mine\n")
    with pytest.raises(ProfileError) as caught:
        load_accelerator(path)
    assert any("kernel_floor: is missing; give it in s, with its source" in fault for fault in caught.value.faults)
    assert any("kernel_floor" in fault and "times of all kernels need it" in fault for fault in caught.value.faults)
    assert any(fault.startswith(f"{path}: ") for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("figure", "reason"),
    [
        ("{value: 80 GB}", "has no source"),
        ("{value: [80], source: mine}", "is no number"),
        ("{value: true, source: mine}", "is no number"),
        ("{value: 80, source: mine}", "has no unit"),
        ("{value: 0 GB, source: mine}", "out of range"),
        ("{value: 1e9 GB, source: mine}", "out of range"),
        ("{value: nan GB, source: mine}", "not finite"),
        ("{value: 80 GB, source: mine, sauce: hot}", "unknown key 'sauce'"),
        ("{value: 80 GB, source: [mine]}", "is not in the table"),
        ("80 GB", "needs its source"),
        ("null", "needs its source"),
    ],
)
def test_a_wrong_figure_is_refused_with_the_reason(tmp_path: Path, figure: str, reason: str) -> None:
    """One field, eleven ways to get it wrong."""
    path = write(tmp_path, "mine.yaml", f"base: h100-sxm\n{MINE}memory:\n  capacity: {figure}\n")
    with pytest.raises(ProfileError, match=reason) as caught:
        load_accelerator(path)
    assert "memory.capacity" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name: [unclosed\n", "is no YAML"),
        ("a: 1\na: 2\n", "'a' is given twice"),
        ("- a\n- b\n", "holds a list"),
        ("", "holds nothing"),
        ("just words", "holds a str"),
        ("base: h100-sxn\n", "did you mean 'h100-sxm'"),
        ("base: 7\n", "is no name"),
        ("base: other.yaml\n", "there is no file"),
        ("base: mine.yaml\n", "inherits itself"),
        ("base: ../{folder}/mine.yaml\n", "inherits itself"),
        ("base: h100-sxm\nsources: 7\n", "sources"),
        ("base: h100-sxm\nsources: {a: {kind: guess}}\n", "'guess' is unknown; use one of datasheet"),
        ("base: h100-sxm\npower: 7\n", "power: 7 is wrong"),
        ("base: h100-sxm\nattention: {flash9: 1}\n", "flash9"),
        ("when: 2024-13-45\n", "none"),
        ("a: \x00\n", "is no YAML"),
        ("? [a, b]\n: 1\n", "is no YAML|unknown key"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, text: str, reason: str) -> None:
    """Syntax, duplicate keys, no mapping, unknown and circular bases, wrong types."""
    path = write(tmp_path, "mine.yaml", text.replace("{folder}", tmp_path.name))
    with pytest.raises(ProfileError, match=reason) as caught:
        load_accelerator(path)
    assert "mine.yaml" in str(caught.value)


def test_two_files_that_inherit_each_other_are_refused(tmp_path: Path) -> None:
    """A circle of two."""
    write(tmp_path, "a.yaml", "base: b.yaml\n")
    write(tmp_path, "b.yaml", "base: a.yaml\n")
    with pytest.raises(ProfileError, match=r"a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        load_accelerator(tmp_path / "a.yaml")


def test_a_syntax_error_names_its_line(tmp_path: Path) -> None:
    """File and line, as a compiler would."""
    path = write(tmp_path, "mine.yaml", "name: x\nmemory:\n  capacity: {value: 80 GB\n")
    with pytest.raises(ProfileError, match=r"mine\.yaml:\d+: is no YAML"):
        load_accelerator(path)


def test_a_folder_or_missing_file_is_refused(tmp_path: Path) -> None:
    """Neither is a profile."""
    (tmp_path / "dir.yaml").mkdir()
    assert "is a folder" in str(refused(str(tmp_path / "dir.yaml")))
    assert "no such file" in str(refused(str(tmp_path / "none.yaml")))
    assert "not UTF-8" in str(refused(_binary(tmp_path)))


def _binary(folder: Path) -> str:
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00name")
    return str(folder / "binary.yaml")


@pytest.mark.parametrize("count", ["0", "abc", "-3", "1e9", "1000001", "", "2.5", "9" * 5000])
def test_a_bad_count_is_refused(count: str) -> None:
    """From 1 to a million nodes, in digits."""
    assert "dgx-h100" in str(refused(f"dgx-h100:{count}"))


def test_an_unknown_name_offers_the_nearest() -> None:
    """Of clusters and nodes alike."""
    with pytest.raises(UnknownNameError, match="did you mean 'dgx-h100'"):
        load_cluster("dgx-h10:4")
    with pytest.raises(UnknownNameError, match="did you mean"):
        load_accelerator("h100")
    assert "say how many" in str(refused("dgx-h100"))


@pytest.mark.parametrize("kind", ["accelerator", "node", "cluster", "fabric", "facility"])
def test_the_json_schema_names_keys_units_and_bases(kind: str) -> None:
    """Editors complete from it."""
    schema = json_schema(kind)
    json.dumps(schema)
    assert {"base", "name", "sources"} <= set(schema["properties"])
    if kind == "accelerator":
        assert "in B/s" in schema["properties"]["host_bandwidth"]["description"]
    if kind == "node":
        assert schema["properties"]["accelerator"]["anyOf"][0]["type"] == "string"
    with pytest.raises(UnknownNameError):
        json_schema("chip")
