"""Which software profile the framework of a classic run means."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from foretrain.errors import ProfileError
from foretrain.software.profile import Software
from foretrain.validate.cells import Row, text


@dataclass(frozen=True, slots=True)
class Stack:
    """A framework by the words that name it and, where those are not enough, by the column that says what kind of run it was."""

    pattern: str
    profile: str
    kind: str = ""
    set: str = ""
    note: str = ""


TUNED = "mlperf"
"""The profile of submissions to MLPerf, whatever their framework."""

STACKS = (
    Stack(r"", TUNED, kind=r"MLPerf", note="a tuned MLPerf submission, whatever its framework"),
    Stack(r"timm", "pytorch-1.12"),
    Stack(r"CL-?nn|GreenTea|OpenCL", "opencl-dnn"),
    Stack(r"^cudaconvnet2|Torch-?7 \(native\)|Torch7 cuDNN None|Caffe \(native\)|^Caffe$", "im2col"),
    Stack(r"CuDNN\[R[12]\]", "im2col", note="cuDNN 2 taken as lowering to matrix products"),
    Stack(r"fbfft|CuDNN\[R\d\]|Torch-?7", "torch7-cudnn"),
    Stack(r"\bneon", "neon"),
    Stack(r"Chainer", "torch7-cudnn", note="Chainer taken as Torch7 on cuDNN"),
    Stack(r"Megatron", "megatron-lm-2021"),
    Stack(r"OneFlow", "oneflow"),
    Stack(r"PaddlePaddle", "paddlepaddle"),
    Stack(r"MindSpore", "mindspore"),
    Stack(r"NGC MxNet|MXNet.*NVIDIA", "ngc-mxnet"),
    Stack(r"MXNet", "mxnet"),
    Stack(r"tf_cnn_benchmarks replicated|NGC TensorFlow|TensorFlow2? \(", "ngc-tensorflow"),
    Stack(r"TensorFlow", "ngc-tensorflow", set=r"^dle$"),
    Stack(r"TensorFlow", "tensorflow-1", kind=r"after 10 warm-up|no update"),
    Stack(r"TensorFlow|\bTF", "tensorflow-2"),
    Stack(r"NGC|DeepLearningExamples", "ngc-pytorch"),
    Stack(r"PyTorch", "ngc-pytorch", set=r"^dle$"),
    Stack(r"PyTorch|torch", "pytorch-eager"),
)
"""In order of priority: the first whose words occur decides."""

NO_INPUT = re.compile(r"no input|synthetic", re.IGNORECASE)
NO_UPDATE = re.compile(r"no update", re.IGNORECASE)


def software_of(row: Row, load: Callable[[str], Software]) -> tuple[Software, tuple[str, ...]]:
    """Return the software profile of a row, without data loading where it had none, and what had to be assumed.

    Raises:
        ProfileError: where no profile stands for the framework.
    """
    stack = _stack(row)
    software = load(stack.profile)
    if NO_INPUT.search(text(row, "kind")):
        software = replace(software, host=replace(software.host, step_s=0.0))
    return software, (stack.note,) if stack.note else ()


def laid_out(software: Software, words: str, *, precision: str) -> Software:
    """Return the profile with the memory format that `words` name; without any, channels last only where matrix units take them."""
    if re.search(r"nhwc|channels.?last", words, re.IGNORECASE):
        return replace(software, channels_last=True)
    if re.search(r"nchw|contiguous", words, re.IGNORECASE):
        return replace(software, channels_last=False)
    return replace(software, channels_last=software.channels_last and precision != "fp32")


def _stack(row: Row) -> Stack:
    for stack in STACKS:
        fits = re.search(stack.pattern, text(row, "framework"), re.IGNORECASE)
        if fits and re.search(stack.kind, text(row, "kind")) and re.search(stack.set, text(row, "set")):
            return stack
    known = "Torch7, Caffe, neon, Chainer, MXNet, TensorFlow, PyTorch, PaddlePaddle, OneFlow, MindSpore, MLPerf"
    raise ProfileError(f"framework {text(row, 'framework')!r} has no software profile; known are {known}")
