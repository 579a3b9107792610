"""Kernels and ops by their names, as the libraries give them."""

from __future__ import annotations

import pytest

from foretrain.sim.plan import Plan
from foretrain.validate.comparing.classes import collective_of, kernel_group, op_group
from foretrain.validate.comparing.communication import kind_of, payload_bytes
from tests.validate.comparing.traces import GELU, GEMM, NCCL

KERNELS = {
    GEMM: "matmul",
    "ampere_bf16_s16816gemm_bf16_128x256_ldg8_f2f_stages_64x3_nn": "matmul",
    "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_256x128_32x3_nn_align8>(...)": "matmul",
    "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>(...)": "matmul",
    "sm90_xmma_fprop_implicit_gemm_bf16bf16_bf16f32_f32_nhwckrsc_nhwc_tilesize128x128x64": "convolution",
    "sm80_xmma_wgrad_implicit_gemm_indexed_tf32f32_tf32f32_f32_nhwckrsc_nhwc": "convolution",
    "void cudnn::winograd_nonfused::winogradForwardData4x4<float, float>(...)": "convolution",
    "void flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>>(...)": "attention",
    "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_3": "attention",
    "fmha_cutlassF_bf16_aligned_64x128_rf_sm80(...)": "attention",
    "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(...)": "norm",
    "void cudnn::bn_fw_tr_1C11_kernel_NCHW<float, float>(...)": "norm",
    "void at::native::(anonymous namespace)::GammaBetaBackwardCUDAKernel<float>(...)": "norm",
    "void (anonymous namespace)::softmax_warp_forward<float, float, float, 10, true>(...)": "loss-or-softmax",
    GELU: "pointwise",
    "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<float>>>": "reduction",
    "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl<at::native::direct_copy_kernel_cuda()>>": "copy",
    "triton_poi_fused__to_copy_add_gelu_3": "pointwise",
    "triton_red_fused_add_native_layer_norm_2": "norm",
    "triton_per_fused_sum_5": "reduction",
    "triton_tem_fused_mm_4": "matmul",
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_by_their_names(name: str) -> None:
    """Names of cuBLAS, cuDNN, CUTLASS, ATen and Triton."""
    assert kernel_group(name) in KERNELS[name].split("-or-")


OPS = {
    "aten::mm": "matmul", "aten::addmm": "matmul", "aten::bmm": "matmul", "aten::_scaled_mm": "matmul",
    "aten::mkldnn_convolution": "convolution", "aten::convolution_backward": "convolution", "aten::cudnn_convolution": "convolution",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention", "aten::_flash_attention_backward": "attention",
    "aten::_scaled_dot_product_efficient_attention": "attention",
    "aten::native_layer_norm": "norm", "aten::native_batch_norm_backward": "norm",
    "aten::_log_softmax": "loss", "aten::nll_loss_forward": "loss", "aten::_softmax": "softmax",
    "aten::embedding_dense_backward": "embedding", "aten::max_pool2d_with_indices": "pooling",
    "aten::add_": "pointwise", "aten::gelu": "pointwise", "aten::threshold_backward": "pointwise",
    "aten::copy_": "copy", "aten::cat": "copy", "aten::sum": "reduction", "aten::mean": "reduction",
    "aten::linear": None, "aten::view": None, "aten::empty": None, "aten::t": None, "aten::to": None, "aten::conv2d": None,
    "autograd::engine::evaluate_function: AddmmBackward0": None, "AddmmBackward0": None,
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_ops_by_their_names(name: str) -> None:
    """Names of ATen; wrappers and views work on nothing."""
    assert op_group(name) == OPS[name]


@pytest.mark.parametrize(
    ("name", "op"),
    [
        (NCCL, "all_reduce"), ("ncclDevKernel_AllGather_RING_LL(...)", "all_gather"),
        ("ncclKernel_AllReduce_RING_LL_Sum_float", "all_reduce"),
        ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(...)", "reduce_scatter"), ("ncclDevKernel_SendRecv(...)", "send"),
        ("ncclDevKernel_Broadcast_RING_LL(...)", "broadcast"), ("gloo:all_reduce", "all_reduce"), ("gloo:all_to_all", "all_to_all"),
        (GEMM, None), ("aten::sum", None), ("void at::native::reduce_kernel<512>", None),
    ],
)  # fmt: skip
def test_collectives_by_their_names(name: str, op: str | None) -> None:
    """Kernels of NCCL, and work of gloo."""
    assert collective_of(name) == op


@pytest.mark.parametrize(
    ("arguments", "op", "plan", "kind"),
    [
        ({"Process Group Description": "TENSOR_MODEL_PARALLEL_GROUP"}, "all_reduce", Plan(dp=2, tp=2), "tensor_parallel"),
        ({"Process Group Description": "mesh_dp_shard"}, "all_gather", Plan(dp=2, tp=2), "data_parallel"),
        ({"Process Group Name": "mesh_tp"}, "all_gather", Plan(dp=2, tp=2), "tensor_parallel"),
        ({"Group size": 8}, "all_reduce", Plan(dp=4, tp=8), "tensor_parallel"),
        ({"Group size": 4}, "all_reduce", Plan(dp=4, tp=8), "data_parallel"),
        ({}, "send", Plan(pp=2, dp=2), "pipeline_parallel"),
        ({}, "all_to_all", Plan(dp=4, ep=4), "expert_parallel"),
        ({}, "all_reduce", Plan(tp=4), "tensor_parallel"),
        ({"Process Group Description": "default_pg"}, "all_reduce", Plan(dp=4), "data_parallel"),
    ],
)
def test_what_a_collective_serves(arguments: dict[str, object], op: str, plan: Plan, kind: str) -> None:
    """The words for its group, else its size, else what it does."""
    assert kind_of(op, arguments, plan) == kind


def test_bytes_of_a_collective_are_those_of_the_full_tensor() -> None:
    """A gather of 8 × 1,000 elements of 2 bytes."""
    assert payload_bytes({"In msg nelems": 1000, "Out msg nelems": 8000, "dtype": "BFloat16"}) == 16000
    assert payload_bytes({}) == 0
