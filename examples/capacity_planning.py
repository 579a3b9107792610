"""How many DGX H100 does Llama-3 70B on 2 trillion tokens in 60 days take, and what does it cost?

For rising node counts, tries a handful of layouts that people use, keeps the fastest that fits memory, and stops at the first count
that is done in time. The price is what the node's profile says a rented node costs per hour (`foretrain show dgx-h100`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import foretrain as ft
from foretrain.units import parse

MODEL, NODE = "llama3-70b", "dgx-h100"
TOKENS = parse("2 T", "1")
DEADLINE_S = parse("60 d", "s")
BATCH_TOKENS = parse("8 M", "1")
NODE_COUNTS = range(32, 129, 8)
LAYOUTS = (
    ft.Plan(tp=8, pp=1, zero=1, sequence_parallel=True, recompute="selective"),
    ft.Plan(tp=8, pp=2, zero=1, sequence_parallel=True, recompute="selective"),
    ft.Plan(tp=8, pp=4, zero=1, sequence_parallel=True, recompute="selective"),
    ft.Plan(tp=4, pp=4, zero=1, sequence_parallel=True, recompute="selective"),
    ft.Plan(tp=4, pp=8, zero=1, sequence_parallel=True, recompute="selective"),
    ft.Plan(tp=4, pp=4, zero=1, sequence_parallel=True, recompute="full"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """The whole training run on one number of nodes, at the pace of its predicted step."""

    nodes: int
    prediction: ft.Prediction

    @property
    def seconds(self) -> float:
        """Time to see all tokens, without failures and restarts."""
        return TOKENS / self.prediction.tokens_per_s

    @property
    def steps(self) -> float:
        """Optimizer steps of the run."""
        return self.seconds / self.prediction.step_s


def predictions(model: ft.Model, nodes: int) -> Iterator[ft.Prediction]:
    """Yield the layouts that can be placed on `nodes` nodes and fit memory."""
    cluster = ft.load_cluster(f"{NODE}:{nodes}")
    for layout in LAYOUTS:
        dp, left = divmod(cluster.accelerators, layout.tp * layout.pp)
        if left:
            continue
        batch = dp * max(layout.pp, round(BATCH_TOKENS / (model.seq_len * dp)))
        prediction = ft.simulate(model, cluster, replace(layout, dp=dp), ft.Recipe(global_batch=batch))
        if prediction.fits:
            yield prediction


def campaigns(model: ft.Model) -> Iterator[Campaign]:
    """Yield the fastest campaign of each node count, up to the first that is done in time."""
    for nodes in NODE_COUNTS:
        fitting = list(predictions(model, nodes))
        if not fitting:
            continue
        campaign = Campaign(nodes=nodes, prediction=max(fitting, key=lambda prediction: prediction.tokens_per_s))
        yield campaign
        if campaign.seconds <= DEADLINE_S:
            return


def line(campaign: Campaign) -> str:
    """Return a campaign as a row of the table."""
    one, plan = campaign.prediction, campaign.prediction.plan
    layout = f"{plan.dp}x{plan.tp}x{plan.pp}"
    days, million_usd = campaign.seconds / parse("1 d", "s"), campaign.steps * one.cost_usd / parse("1 M", "1")
    megawatt_hours, tonnes = campaign.steps * one.energy_j / parse("1 MWh", "J"), campaign.steps * one.co2_g / parse("1 t", "g")
    return f"{campaign.nodes:>5}  {layout:<9} {one.mfu:>6.1%} {days:>7.1f} {million_usd:>9.2f} {megawatt_hours:>8,.0f} {tonnes:>7,.0f}"


def main() -> None:
    """Print a row per node count and the answer."""
    model = ft.load_model(MODEL)
    print(f"{model.name}, {TOKENS / parse('1 T', '1'):g} T tokens on {NODE}, done within {DEADLINE_S / parse('1 d', 's'):g} days\n")
    print(f"{'nodes':>5}  {'dpxtpxpp':<9} {'MFU':>6} {'days':>7} {'M USD':>9} {'MWh':>8} {'t CO2':>7}")
    last = None
    for last in campaigns(model):
        print(line(last))
    if last is None or last.seconds > DEADLINE_S:
        print(f"\nNo node count up to {NODE_COUNTS[-1]} is done in time with these layouts.")
        return
    one, plan = last.prediction, last.prediction.plan
    print(
        f"\n{last.nodes} nodes ({one.accelerators} H100) take {last.seconds / parse('1 d', 's'):.1f} days: "
        f"{last.steps * one.cost_usd / parse('1 M', '1'):.2f} million USD,\n"
        f"{last.steps * one.energy_j / parse('1 MWh', 'J'):,.0f} MWh, {last.steps * one.co2_g / parse('1 t', 'g'):,.0f} t CO2, "
        f"at a predicted MFU of {one.mfu:.1%} (causal attention in full)\n"
        f"with dp {plan.dp}, tp {plan.tp}, pp {plan.pp}, {plan.recompute} recomputation, batch {one.recipe.global_batch:,}.\n"
        "Failures, restarts and evaluation come on top."
    )


if __name__ == "__main__":
    main()
