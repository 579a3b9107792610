"""The shapes that are known without asking torch are torch's own."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
from foretrain.models.trace_quick import quick  # noqa: E402  # after torch was found

aten = torch.ops.aten


def shape(*sizes: int, dtype: Any = None) -> Any:
    return torch.empty(sizes, device="meta", dtype=dtype)


MAP, ROW, SEQUENCE, WIDTH = shape(2, 5, 4, 4), shape(5), shape(2, 3, 8), shape(8)
CHANNELS_LAST = MAP.contiguous(memory_format=torch.channels_last)
CASES = {
    "add": (aten.add.Tensor, (MAP, MAP)),
    "add of others": (aten.add.Tensor, (MAP, shape(1, 5, 1, 1))),
    "add a number": (aten.add.Tensor, (MAP, 1)),
    "add whole numbers": (aten.add.Tensor, (shape(2, dtype=torch.int64), 1.5)),
    "channels last": (aten.mul.Tensor, (CHANNELS_LAST, CHANNELS_LAST)),
    "gelu": (aten.gelu.default, (SEQUENCE,)),
    "gelu_backward": (aten.gelu_backward.default, (SEQUENCE, SEQUENCE)),
    "threshold_backward": (aten.threshold_backward.default, (MAP, MAP, 0)),
    "native_batch_norm": (aten.native_batch_norm.default, (MAP, ROW, ROW, ROW, ROW, True, 0.1, 1e-5)),
    "batch norm in evaluation": (aten.native_batch_norm.default, (MAP, ROW, ROW, ROW, ROW, False, 0.1, 1e-5)),
    "batch norm without weight": (aten.native_batch_norm.default, (MAP, None, None, None, None, True, 0.1, 1e-5)),
    "native_batch_norm_backward": (
        aten.native_batch_norm_backward.default, (MAP, MAP, ROW, ROW, ROW, ROW, ROW, True, 1e-5, [True, True, False]),
    ),
    "native_layer_norm": (aten.native_layer_norm.default, (SEQUENCE, [8], WIDTH, WIDTH, 1e-5)),
    "native_layer_norm_backward": (
        aten.native_layer_norm_backward.default,
        (SEQUENCE, SEQUENCE, [8], shape(2, 3, 1), shape(2, 3, 1), WIDTH, WIDTH, [True, True, True]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_quick_shapes_are_torchs(case: str) -> None:
    """Sizes, strides and types; where there is no quick answer, torch is asked."""
    func, args = CASES[case]
    found, expected = quick(func._schema.name.split("::")[1], args), func(*args)
    for one, other in zip(listed(found), listed(expected), strict=True) if found is not None else ():
        assert (one is None) == (other is None)
        assert one is None or (one.shape, one.stride(), one.dtype) == (other.shape, other.stride(), other.dtype)


def listed(result: Any) -> list[Any]:
    return [result] if isinstance(result, torch.Tensor) else list(result)
