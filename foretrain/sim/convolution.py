"""Where a convolution meets an accelerator: as a product on matrix or vector units, by Winograd's algorithm, or directly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from foretrain.hardware.accelerator import Accelerator, ConvolutionCurve, ConvolutionRates
from foretrain.models.ops import Convolution, Gemm, Kernel
from foretrain.software.profile import Software

WINOGRAD_KERNELS = (3, 5)
"""Kernels, along every dimension, for which cuDNN has Winograd's algorithm (release notes of cuDNN 5 and 6)."""
REORDER_PASSES = 2.0
"""A transposed tensor is read and written once."""

ProductTime = Callable[[Gemm, float], float]
"""Seconds of a product with a depth fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A convolution as the product that runs, with its depth fill, and the `share` of the FLOPs of a direct one that it has."""

    gemm: Gemm
    fill: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Convolver:
    """Prices the math of convolutions of one dtype on one accelerator; `product_s` prices products."""

    curve: ConvolutionCurve
    matrix: ConvolutionRates | None
    vector_flop_per_s: float
    software: Software
    product_s: ProductTime

    def math_s(self, call: Convolution) -> float:
        """Return the math time of one pass.

        A depthwise convolution has no product worth the name: it runs directly. Other groups take the quicker of both.

        **Source:** Chetlur et al., cuDNN, arXiv:1410.0759, section 3 (implicit product); Lavin and Gray, arXiv:1509.09308 (Winograd).
        """
        if call.groups > 1:
            direct = self._direct_s(call)
            return direct if call.in_channels == call.groups else min(direct, self._product_s(call))
        return self._product_s(call)

    def product_of(self, call: Convolution) -> Product | None:
        """Return the product that a pass runs as; None where it runs directly."""
        if call.groups > 1 and (call.in_channels == call.groups or self._direct_s(call) < self._product_s(call)):
            return None
        if self.matrix is None:
            return Product(gemm=call.gemm, fill=self.curve.vector.depth_fill, share=1.0 / self._gain(call))
        padded = _padded(call, self.curve.channel_multiple)
        return Product(gemm=padded.gemm, fill=self.matrix.depth_fill, share=padded.flop / call.flop)

    def reordered_bytes(self, kernel: Kernel) -> float:
        """Return the bytes that transposes before and after a pass move: matrix units take channels last, vector units first.

        Direct kernels take either.
        """
        call = kernel.convolution
        if call is None or self.software.channels_last == (self.matrix is not None) or call.in_channels == call.groups > 1:
            return 0.0
        return REORDER_PASSES * kernel.moved_bytes * call.maps / (call.maps + call.filters)

    def _direct_s(self, call: Convolution) -> float:
        return call.flop / (self.vector_flop_per_s * self.curve.direct * self._weight_loss(call))

    def _gain(self, call: Convolution) -> float:
        return self.curve.winograd if self.software.winograd and _winograd(call) else 1.0

    def _product_s(self, call: Convolution) -> float:
        curve, rates = self.curve, self.matrix or self.curve.vector
        if self.matrix is None:
            return self.product_s(call.gemm, rates.depth_fill) / (_rate(rates, call) * self._gain(call))
        few = curve.few_channels if min(call.in_channels, call.out_channels) < curve.channel_multiple else 1.0
        return self.product_s(_padded(call, curve.channel_multiple).gemm, rates.depth_fill) / (_rate(rates, call) * few)

    def _weight_loss(self, call: Convolution) -> float:
        """Return what the gradient of weights loses to the sum over all pixels."""
        rates = self.curve.vector
        return rates.weight / rates.forward if call.direction == "weight" else 1.0


def convolver(accelerator: Accelerator, software: Software, dtype: str, product_s: ProductTime) -> Convolver | None:
    """Return what prices convolutions, None where the accelerator says nothing of them."""
    curve, peak = accelerator.convolution, accelerator.peak_flop_per_s
    if curve is None:
        return None
    # An accelerator without fp32 has no other rate to go by.
    vector = peak.get("fp32", peak[dtype])
    matrix = None if dtype == "fp32" else curve.matrix
    return Convolver(curve=curve, matrix=matrix, vector_flop_per_s=vector, software=software, product_s=product_s)


def _rate(rates: ConvolutionRates, call: Convolution) -> float:
    if call.direction == "forward":
        return rates.forward
    if call.direction == "weight":
        return rates.weight
    return rates.data * (rates.strided_data if max(call.stride) > 1 else 1.0)


def _winograd(call: Convolution) -> bool:
    square = len(set(call.kernel)) == 1 and call.kernel[0] in WINOGRAD_KERNELS
    # The transforms of a few channels outweigh the multiplications that they save.
    return square and len(call.kernel) == 2 and max(call.stride) == 1 and call.groups == 1 and call.in_channels >= 8


def _padded(call: Convolution, multiple: int) -> Convolution:
    """Return a convolution with its channels, or those of each group, padded to what matrix units take."""
    channels = (call.in_channels // call.groups, call.out_channels // call.groups)
    ins, outs = (-(-count // multiple) * multiple * call.groups for count in channels)
    return replace(call, in_channels=ins, out_channels=outs)
