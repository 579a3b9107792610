"""What the table and the pictures say in words about a job: its name, its plan, its recipe, and quantities for people."""

from __future__ import annotations

from foretrain.models.model import Model
from foretrain.sim.plan import ORDERS, Plan
from foretrain.sim.prediction import Prediction
from foretrain.sim.recipe import Recipe
from foretrain.sim.replication import ALL_REDUCE
from foretrain.units import parse, show

LABELS = {
    "math": "matrix math", "memory": "memory-bound kernels", "overhead": "kernel gaps",
    "tensor_parallel": "tensor-parallel comm.", "context_parallel": "context-parallel comm.", "expert_parallel": "expert-parallel comm.",
    "pipeline_parallel": "pipeline comm.", "data_parallel": "data-parallel comm.",
    "bubble": "pipeline bubble", "optimizer": "optimizer", "host": "host",
}


def label(name: str) -> str:
    """Return the words for a class or component of a prediction."""
    return LABELS.get(name, name.replace("_", " "))


def headline(prediction: Prediction) -> str:
    """Return the model, the cluster and the software in one line."""
    return f"{prediction.model} on {prediction.cluster} ({prediction.accelerators:,} accelerators), {prediction.software}"


def plan_line(prediction: Prediction) -> str:
    """Return the plan in one line, leaving out what is off."""
    return f"plan: {plan_words(prediction.plan)}"


def plan_words(plan: Plan) -> str:
    """Return the degrees of a plan and whatever differs from plain."""
    words = [f"dp {plan.dp}", f"tp {plan.tp}", f"pp {plan.pp}"]
    words += [f"cp {plan.cp} ({plan.cp_mode}{', contiguous' if plan.cp_cut == 'contiguous' else ''})"] * (plan.cp > 1)
    words += [f"ep {plan.ep}" + _expert_words(plan)] * (plan.ep > 1)
    words += [f"vpp {plan.vpp}"] * (plan.vpp > 1)
    words += [f"ZeRO {plan.zero}" + (f" over {plan.shard}" if plan.shard else "")] * (plan.zero > 0)
    words += ["sequence parallel"] * plan.sequence_parallel
    words += [f"micro-batch {plan.micro_batch}"]
    words += [plan.schedule.name] * (plan.pp > 1)
    words += [f"layers {'-'.join(map(str, plan.layers_per_stage))}"] if plan.layers_per_stage else []
    words += ["output layer's gradient deferred"] * plan.defer_embedding_wgrad
    words += [f"recompute {plan.recompute}" + (f" in {plan.recompute_layers} layers a chunk" if plan.recompute_layers else "")]
    words += [f"gradients reduced every {plan.gradient_sync}"] * (plan.gradient_sync is not None)
    words += [f"gradients in {plan.gradient_compression}"] * (plan.gradient_compression is not None)
    words += [f"offload {plan.offload}"] * (plan.offload is not None)
    words += [_replicas(plan)] * (plan.replication != ALL_REDUCE)
    words += [f"ranks in order {plan.order}"] * (plan.order != ORDERS[0])
    return ", ".join(words)


def _expert_words(plan: Plan) -> str:
    if plan.capacity_factor is not None:
        return f" (capacity factor {plan.capacity_factor:g})"
    return f" (imbalance {plan.expert_imbalance:g})" if plan.expert_imbalance > 1.0 else ""


def _replicas(plan: Plan) -> str:
    steps = f" every {plan.local_steps} steps" if plan.local_steps else ""
    servers = f" on {plan.servers}" if plan.servers else ""
    return f"replicas by {plan.replication}{steps}{servers}"


def recipe_line(prediction: Prediction) -> str:
    """Return the batch, the precision and the optimizer in one line."""
    recipe = prediction.recipe
    total = f" ({count(prediction.items)})" if prediction.seq_len is not None else ""
    batch = f"recipe: batch {recipe.global_batch:,} × {sample_words(prediction)}{total}"
    return f"{batch}, {recipe.precision}, {recipe.optimizer}{_state_words(recipe)}"


def _state_words(recipe: Recipe) -> str:
    """Return what of the training state differs from the framework's own."""
    words = [f"gradients in {recipe.grad_dtype}"] * (recipe.grad_dtype is not None)
    words += ["no master weights" if recipe.master_weights is False else "master weights"] * (recipe.master_weights is not None)
    words += [f"clip {recipe.clip}"] * (recipe.clip is not None)
    return "".join(f", {word}" for word in words)


def sample_words(sized: Prediction | Model) -> str:
    """Return what a sample is: `2,048 tokens`, `images of 224 × 224`, `samples`."""
    if sized.seq_len is not None:
        return f"{sized.seq_len:,} tokens"
    return "samples" if sized.image_size is None else f"images of {sized.image_size} × {sized.image_size}"


def count(number: float) -> str:
    """Return a count for people, three digits with M, B or T: `3.15 M`, `175 B`."""
    for symbol, name in (("T", "T"), ("G", "B"), ("M", "M")):
        size = parse(f"1 {symbol}", "1")
        if number >= 0.9995 * size:
            return f"{show(number / size, '1')} {name}"
    return f"{show(number, '1')}"


def money(usd: float) -> str:
    """Return dollars for people, three digits, cents where there are few."""
    if usd >= parse("999.5 k", "1"):
        return f"${count(usd)}"
    return f"${show(usd, '1')}"
