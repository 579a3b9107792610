"""The table a person reads first: 80 columns, plain text, every figure with its unit and every assumption named."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import dataclass

from foretrain.charts.words import headline, label, money, plan_line, recipe_line
from foretrain.sim.prediction import Prediction, StageMemory
from foretrain.sim.report import heaviest_stage
from foretrain.units import parse, show

WIDTH = 80
BAR = 28
NO_BREAK = "\u00a0"
BEYOND = 1000.0
"""Share of a memory above which the digits say nothing."""
NEGLIGIBLE = 1e-6
"""Share of a step below which a part is not worth a line."""

METERS = {"accelerator": "an accelerator's own", "node": "a node's, at the wall", "cluster": "the facility's"}
"""Where power is read, by the beginning of the keys of `Prediction.power`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ink:
    """How a terminal or a pipe shows a bar and emphasis."""

    bar: str
    bold: str = ""
    red: str = ""
    plain: str = ""

    def strong(self, text: str) -> str:
        """Return `text` in bold where there is such a thing."""
        return f"{self.bold}{text}{self.plain}"

    def alarm(self, text: str) -> str:
        """Return `text` in red where there is such a thing."""
        return f"{self.red}{text}{self.plain}"


PIPE = Ink(bar="#")
TERMINAL = Ink(bar="█", bold="\033[1m", red="\033[31m", plain="\033[0m")


def table(prediction: Prediction, ink: Ink = PIPE) -> str:
    """Return a prediction as text of at most 80 columns."""
    parts = (_figures, _power, _breakdown, _memory, _assumed)
    sections = [_job(prediction), *(part(prediction, ink) for part in parts)]
    return "\n\n".join("\n".join(lines) for lines in sections if lines)


def overflow(prediction: Prediction) -> str:
    """Return what does not fit where, with the largest consumers, in two lines."""
    stage = heaviest_stage(prediction)
    over = stage.peak_bytes - stage.capacity_bytes
    return (
        f"does not fit: stage {stage.stage} of {len(prediction.memory)} needs {show(stage.peak_bytes, 'B')} per accelerator, "
        f"{show(over, 'B')} more than its {show(stage.capacity_bytes, 'B')}\n"
        f"largest: {_largest(stage)}; try more --tp or --pp, --zero 1 to 3, --recompute full, a smaller --micro-batch"
    )


def _largest(stage: StageMemory) -> str:
    parts = sorted(stage.components.items(), key=lambda part: -part[1])[:3]
    return ", ".join(f"{label(name)} {show(size, 'B')}" for name, size in parts)


def _job(prediction: Prediction) -> list[str]:
    lines = (headline(prediction), plan_line(prediction), recipe_line(prediction))
    return [wrapped for line in lines for wrapped in textwrap.wrap(line, WIDTH, subsequent_indent="  ")]


def _figures(prediction: Prediction, ink: Ink) -> list[str]:
    items, item = prediction.items, prediction.item
    many, symbol = ("1 B", "1 G") if item == "token" else ("1 M", "1 M")
    sample_j = prediction.energy_j / prediction.recipe.global_batch
    per_accelerator_w = prediction.mean_power_w / prediction.accelerators
    steps = parse(symbol, "1") / items
    energy = f"{show(prediction.energy_j, 'J')} = {show(prediction.energy_j / parse('1 Wh', 'J'), 'Wh')}"
    pairs = (
        ("step time", show(prediction.step_s, "s"), f"{item}s/s/accelerator", show(prediction.items_per_s_per_accelerator, "1")),
        ("MFU", f"{prediction.mfu:.1%}", "HFU", f"{prediction.hfu:.1%}"),
        ("energy per step", energy, f"energy per {item}", show(prediction.energy_j / items, "J")),
        ("mean power", show(prediction.mean_power_w, "W"), "power per accelerator", show(per_accelerator_w, "W")),
        ("electricity", money(prediction.electricity_usd), "energy per sample", show(sample_j, "J")),
        ("cost per step", money(prediction.cost_usd), f"cost per {many} {item}s", money(prediction.cost_usd * steps)),
        ("CO2 per step", show(prediction.co2_g, "g"), f"CO2 per {many} {item}s", show(prediction.co2_g * steps, "g")),
    )
    rows = [f"  {a:<16}{ink.strong(f'{b:<18}')}  {c:<24}{ink.strong(d)}" for a, b, c, d in pairs]
    return [*rows, *_drawn(prediction), *_conventions(prediction)]


def _drawn(prediction: Prediction) -> list[str]:
    """Return how steps are distributed whose passes jitter."""
    drawn = prediction.jitter
    if drawn is None:
        return []
    parts = ", ".join(f"p{percentile} {show(seconds, 's')}" for percentile, seconds in drawn.percentile_s.items())
    return [f"  {drawn.samples} drawn steps: mean {show(drawn.mean_s, 's')}, {parts}"]


def _conventions(prediction: Prediction) -> list[str]:
    text = (
        f"MFU counts model FLOPs without recomputation, causal attention in full (PaLM, appendix B); "
        f"{prediction.mfu_causal:.1%} without its masked half. HFU counts what was run. Energy, power, electricity and CO2 at the "
        f"facility's meter; cost is the rent of the nodes." + (f" CO2: {prediction.grid}." if prediction.grid else "")
    )
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _power(prediction: Prediction, ink: Ink) -> list[str]:
    """Return mean and peak power where a meter would show it, and the clock that it runs at."""
    watts = prediction.power
    if not watts:
        return []
    clock = f" (mean clock {show(prediction.clock_hz, 'Hz', 4)})" if prediction.clock_hz else ""
    rows = [
        f"  {place:<24}{show(watts[f'{part}_mean_w'], 'W'):>10}  mean{show(watts[f'{part}_peak_w'], 'W'):>14}  peak"
        for part, place in METERS.items()
    ]
    return [f"{ink.strong('power by meter')}{clock}", *rows]


def _breakdown(prediction: Prediction, ink: Ink) -> list[str]:
    lines = [ink.strong("where the step goes") + " (mean over ranks)"]
    lines += [
        _bar(label(name), seconds / prediction.step_s, show(seconds, "s"), f"{seconds / prediction.step_s:.1%}", ink)
        for name, seconds in prediction.breakdown.items()
        if seconds > 0
    ]
    least_s = NEGLIGIBLE * prediction.step_s
    hidden = [f"{label(name)} {show(seconds, 's')}" for name, seconds in prediction.hidden.items() if seconds > least_s]
    if hidden:
        lines += _listed("hidden behind compute", hidden)
    return lines


def _bar(name: str, share: float, amount: str, note: str, ink: Ink) -> str:
    filled = ink.bar * min(BAR, max(round(share * BAR), 1))
    return f"  {name:<24}{filled:<{BAR}}  {amount:>10}  {note:>7}"


def _memory(prediction: Prediction, ink: Ink) -> list[str]:
    stage = heaviest_stage(prediction)
    share = stage.peak_bytes / stage.capacity_bytes
    verdict = f"{show(stage.peak_bytes, 'B')} of {show(stage.capacity_bytes, 'B')}, {_percent(share, 0)}"
    title = ink.strong("memory per accelerator") + f" (heaviest: stage {stage.stage} of {len(prediction.memory)}): "
    lines = [title + verdict] if stage.fits else [title + ink.alarm("does not fit"), "  " + ink.alarm(verdict)]
    parts = sorted(stage.components.items(), key=lambda part: -part[1])
    for name, size in parts:
        share = size / stage.capacity_bytes
        lines += [_bar(label(name), share, show(size, "B"), _percent(share), ink)] * (size > 0)
    if len(prediction.memory) > 1:
        lines += _other_stages(prediction)
    return lines


def _percent(share: float, decimals: int = 1) -> str:
    if share >= BEYOND:
        return f"> {BEYOND:,.0%}"
    return f"{share:,.{decimals if share < 10 else 0}%}"


def _other_stages(prediction: Prediction) -> list[str]:
    stages = prediction.memory
    chosen = stages if len(stages) <= 8 else (*stages[:4], *stages[-4:])
    sizes = [show(stage.peak_bytes, "B") for stage in chosen]
    if len(stages) > 8:
        sizes.insert(4, "…")
    return _listed("peak by stage", sizes)


def _listed(title: str, items: list[str]) -> list[str]:
    """Return a wrapped list whose items, a number and its unit, stay whole."""
    text = f"{title}: " + ", ".join(item.replace(" ", NO_BREAK) for item in items)
    lines = textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return [line.replace(NO_BREAK, " ") for line in lines]


def _assumed(prediction: Prediction, ink: Ink) -> list[str]:
    """Return which numbers nobody stated or measured; figures of a profile are counted by the group they stand in."""
    if not prediction.assumed:
        return []
    said = [text for text in prediction.assumed if not _is_figure(text)]
    groups: dict[str, Counter[str]] = {}
    for profile, path in (text.split(": ") for text in prediction.assumed if _is_figure(text)):
        groups.setdefault(profile, Counter())[_group(path)] += 1
    figures = [f"{counts.total()} figures of the {profile} profile: {_counted(counts)}" for profile, counts in groups.items()]
    lines = [line for text in (*said, *figures) for line in textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ")]
    more = " (foretrain show NAME marks each)" if figures else ""
    return [ink.strong("assumed") + f", that is neither given nor measured{more}", *lines]


def _is_figure(text: str) -> bool:
    """Tell whether an assumption is a figure of a profile, `cluster: node.host_w`, rather than a sentence."""
    profile, colon, path = text.partition(": ")
    return bool(colon) and profile.isidentifier() and all(part.replace("-", "_").isidentifier() for part in path.split("."))


def _group(path: str) -> str:
    """Return the group of a figure: `accelerator.power` of `node.accelerator.power.idle_w`, the path itself where it is short."""
    parts = path.removeprefix("node.").split(".")
    return ".".join(parts[: 2 if parts[0] == "accelerator" else 1])


def _counted(counts: Counter[str]) -> str:
    return ", ".join(name if many == 1 else f"{name} ({many})" for name, many in counts.items())
