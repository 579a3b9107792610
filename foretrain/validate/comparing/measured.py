"""The pieces of a measured step: kernels by what launched them, or where no device was recorded the ops of the host."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from foretrain.sim.plan import Plan
from foretrain.sim.segment import HOST, OPTIMIZER
from foretrain.validate.comparing.classes import COPY, OTHER, POINTWISE, PRODUCTS, class_of, collective_of, kernel_group, op_group
from foretrain.validate.comparing.communication import kind_of, payload_bytes
from foretrain.validate.comparing.nesting import Call, calls
from foretrain.validate.comparing.steps import Step
from foretrain.validate.comparing.sweep import Piece
from foretrain.validate.comparing.trace_file import RUNTIME, Event, Trace

FORWARD, BACKWARD, COMMUNICATION = "forward", "backward", "communication"
_OWN_OPS = re.compile(r"(?!aten::|c10d|autograd::|torch::|profiler::)\w+::\w+$|.*cpp_fused")
"""Ops of other libraries, and kernels that a compiler made for the host."""
_OVER_THE_HOST = re.compile(r"HtoD|DtoH|HostToDevice|DeviceToHost", re.IGNORECASE)


def measured_pieces(trace: Trace, step: Step, plan: Plan) -> list[Piece]:
    """Return what ran in a step, device or host."""
    return list(_device_pieces(trace, step, plan) if trace.device else _host_pieces(trace, step, plan))


# ── with a device ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _device_pieces(trace: Trace, step: Step, plan: Plan) -> Iterator[Piece]:
    wanted = {event.correlation for event in step.device} - {None}
    launched = {
        call.event.correlation: call
        for call in calls(trace.host)
        if call.event.category in RUNTIME and call.event.correlation in wanted
    }
    for event in step.device:
        call = launched.get(event.correlation)
        op = collective_of(event.name)
        if op is not None:
            yield _transfer(event, op, plan, call.event.start_s if call else None)
            continue
        around = call.around if call else ()
        phase = _phase(around)
        group = OPTIMIZER if phase == OPTIMIZER else _kernel_group(event, around)
        over_host = event.category == "gpu_memcpy" and _OVER_THE_HOST.search(event.name)
        kind = HOST if over_host else class_of(group)
        yield Piece(kind, group, phase, event.name, event.start_s, event.end_s, call.event.start_s if call else None)


def _kernel_group(event: Event, around: Sequence[Event]) -> str:
    """Return the group of a kernel: that of the innermost op that launched it; its own where the op is of no group that is known."""
    own = COPY if event.category == "gpu_memcpy" else kernel_group(event.name)
    by_op = next((group for outer in reversed(around) if (group := op_group(outer.name))), None)
    return own if by_op is None or (by_op == POINTWISE and own in PRODUCTS) else by_op


def _transfer(event: Event, op: str, plan: Plan, launched_s: float | None) -> Piece:
    named = collective_of(f"nccl:{event.arguments.get('Collective name') or op}")
    op = named if named is not None and named != OTHER else op
    return Piece(
        kind_of(op, event.arguments, plan), op, COMMUNICATION, event.name, event.start_s, event.end_s, launched_s,
        size_bytes=payload_bytes(event.arguments),
    )  # fmt: skip


def _phase(around: Sequence[Event]) -> str:
    """Return the phase of what is called inside these events."""
    for event in around:
        if event.name.startswith(("Optimizer.step#", "Optimizer.zero_grad#")):
            return OPTIMIZER
        if event.name.startswith("autograd::engine::evaluate_function"):
            return BACKWARD
    return FORWARD


# ── on the host alone ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _host_pieces(trace: Trace, step: Step, plan: Plan) -> Iterator[Piece]:
    inside = [event for event in trace.host if step.start_s <= event.start_s < step.end_s]
    for event in inside:
        op = collective_of(event.name)
        if op is not None:
            yield _transfer(event, op, plan, None)
    for call in calls(event for event in inside if collective_of(event.name) is None):
        if call.event.category == "cpu_op":
            yield from _call_pieces(call)


def _call_pieces(call: Call) -> Iterator[Piece]:
    """Yield the stretches in which an op itself worked; it counts as a launch where it is no part of another of its group."""
    event, phase = call.event, _phase(call.around)
    own = _host_group(event)
    outer = next((group for one in reversed(call.around) if (group := _host_group(one))), None)
    if phase == OPTIMIZER:
        group, launches = OPTIMIZER, int(own is not None and outer is None)
    else:
        group, launches = own or HOST, int(own is not None and own != outer)
    stretches = call.own or ((event.start_s, event.start_s),)
    for number, (start_s, end_s) in enumerate(stretches):
        yield Piece(class_of(group), group, phase, event.name, start_s, end_s, launches=launches if number == 0 else 0)


def _host_group(event: Event) -> str | None:
    if event.category != "cpu_op":
        return None
    return op_group(event.name) or (kernel_group(event.name) if _OWN_OPS.match(event.name) else None)
