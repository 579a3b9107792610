"""A single-node trainer in TensorFlow: MirroredStrategy over the devices of this process, graphs without XLA."""

from __future__ import annotations

import os
import time
from typing import Any

from foretrain.errors import UsageError
from foretrain.validate.case import Case
from foretrain.validate.measuring.host import cpu_model
from foretrain.validate.training.second_measure import most_resident_bytes, repeated
from foretrain.validate.training.second_weights import parameters_of


def run_case(case: Case, *, device: str, seconds: float, seed: int) -> dict[str, Any]:
    """Return what a step record says of a case, in SI units. To be run in a process of its own: settings hold from TensorFlow's start.

    Raises:
        UsageError: where there are fewer devices than the plan has ranks.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    import tensorflow as tf  # noqa: PLC0415  # only now are its settings known

    devices = _devices(case, device)
    tf.config.experimental.enable_tensor_float_32_execution(case.recipe.precision == "tf32")
    from foretrain.validate.training.tf_collectives import collectives_of  # noqa: PLC0415
    from foretrain.validate.training.tf_step import graph_of  # noqa: PLC0415

    start = time.perf_counter()
    built = graph_of(case, devices, seed=seed)
    compile_s = time.perf_counter() - start

    def run(count: int) -> float:
        losses = [built.step() for _ in range(count)]
        return [float(loss.numpy()) for loss in losses][-1]

    found = repeated(run, device=device, seconds=seconds)
    return {
        "device_name": _name(device), "framework": f"tensorflow {tf.__version__}", "parameters": parameters_of(case.net),
        "compile_s": compile_s, **found.data(),
        "memory": _memory(devices), "collectives": collectives_of(built.graph, case.plan.dp),
    }  # fmt: skip


def _devices(case: Case, device: str) -> list[str]:
    """Return the devices by name; of the processor as many as there are replicas, with a thread each."""
    import tensorflow as tf  # noqa: PLC0415

    kind = "GPU" if device == "cuda" else "CPU"
    found = tf.config.list_physical_devices(kind)
    if kind == "CPU":
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(case.plan.dp)
        tf.config.set_logical_device_configuration(found[0], [tf.config.LogicalDeviceConfiguration()] * case.plan.dp)
        found = found * case.plan.dp
    if len(found) < case.plan.dp:
        raise UsageError(
            f"the plan has {case.plan.dp} ranks, but tensorflow sees {len(found)} devices of kind {device} here; "
            "use a plan of as many or fewer, or --device cpu"
        )
    return [f"{kind}:{number}" for number in range(case.plan.dp)]


def _name(device: str) -> str:
    import tensorflow as tf  # noqa: PLC0415

    if device == "cpu":
        return cpu_model()
    details = tf.config.experimental.get_device_details(tf.config.list_physical_devices("GPU")[0])
    return str(details.get("device_name", "cuda"))


def _memory(devices: list[str]) -> dict[str, int | None]:
    """Return bytes, the most of any device: what the allocator of a GPU had at its peak; TensorFlow counts none of a processor."""
    import tensorflow as tf  # noqa: PLC0415

    gpus = [one for one in devices if one.startswith("GPU")]
    peaks = [int(tf.config.experimental.get_memory_info(one)["peak"]) for one in gpus]
    return {"allocated_bytes": max(peaks, default=None), "reserved_bytes": None, "rss_bytes": most_resident_bytes()}
