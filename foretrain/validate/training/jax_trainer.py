"""A single-node trainer in JAX: data parallel, tensor parallel and fully sharded, over the devices of this process."""

from __future__ import annotations

import os
import time
from typing import Any

from foretrain.errors import UsageError
from foretrain.validate.case import Case
from foretrain.validate.measuring.host import cpu_model
from foretrain.validate.training.second_measure import most_resident_bytes, repeated
from foretrain.validate.training.second_weights import parameters_of


def settle(case: Case, device: str) -> None:
    """Set what JAX reads when it starts: its devices, and one thread for each where they are of the processor."""
    os.environ["JAX_PLATFORMS"] = device
    if device == "cpu":
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={case.plan.ranks} --xla_cpu_multi_thread_eigen=false"
        os.environ["NPROC"] = str(case.plan.ranks)  # the size of XLA's thread pool
    import jax  # noqa: PLC0415  # only now are its settings known

    # By default XLA multiplies fp32 matrices of GPUs in tf32.
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if case.recipe.precision == "tf32" else "float32")


def run_case(case: Case, *, device: str, seconds: float, seed: int) -> dict[str, Any]:
    """Return what a step record says of a case, in SI units. To be run in a process of its own, which `settle` sets up.

    Raises:
        UsageError: where there are fewer devices than the plan has ranks.
    """
    settle(case, device)
    import jax  # noqa: PLC0415

    from foretrain.validate.training.hlo_collectives import collectives_of  # noqa: PLC0415
    from foretrain.validate.training.jax_step import program_of  # noqa: PLC0415

    devices = _devices(case, device)
    compiling = program_of(case, seed=seed)
    start = time.perf_counter()
    program = compiling()
    compile_s = time.perf_counter() - start
    state = [program.state]

    def run(count: int) -> float:
        for _ in range(count):
            state[0], loss = program.step(state[0], *program.batch)
        jax.block_until_ready(state[0])
        return float(loss)

    found = repeated(run, device=device, seconds=seconds)
    return {
        "device_name": cpu_model() if device == "cpu" else devices[0].device_kind,
        "framework": f"jax {jax.__version__}", "parameters": parameters_of(case.net),
        "compile_s": compile_s, **found.data(),
        "memory": _memory(devices, program.step.memory_analysis()), "collectives": collectives_of(program.step.as_text()),
    }  # fmt: skip


def _devices(case: Case, device: str) -> list[Any]:
    import jax  # noqa: PLC0415

    try:
        devices: list[Any] = jax.devices()
    except RuntimeError as error:
        raise UsageError(f"jax has no device of kind {device} here ({error}); install jax[cuda12], or use --device cpu") from error
    if len(devices) < case.plan.ranks:
        raise UsageError(f"the plan has {case.plan.ranks} ranks, but jax sees {len(devices)} devices here; use a plan of as many or fewer")
    return devices[: case.plan.ranks]


def _memory(devices: list[Any], planned: Any) -> dict[str, int | None]:
    """Return bytes, the most of any device: what the allocator had at its peak, what it held, what XLA planned."""
    stats = [one.memory_stats() or {} for one in devices]
    names = ("peak_bytes_in_use", "pool_bytes", "bytes_reserved")
    most = {name: max((one[name] for one in stats if name in one), default=None) for name in names}
    return {
        "allocated_bytes": most["peak_bytes_in_use"],
        "reserved_bytes": most["pool_bytes"] or most["bytes_reserved"] or None,
        "rss_bytes": most_resident_bytes(),
        "planned_bytes": planned and planned.argument_size_in_bytes + planned.output_size_in_bytes + planned.temp_size_in_bytes
        - planned.alias_size_in_bytes,
    }  # fmt: skip
