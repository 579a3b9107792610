"""Measured kernels stand for the curves near them, and for nothing far away."""

from dataclasses import replace

import pytest

from foretrain.errors import ProfileError
from foretrain.hardware.load import load_accelerator, load_cluster
from foretrain.hardware.measured import Measured
from foretrain.models.matmul import gemm_kernel
from foretrain.models.ops import Gemm
from foretrain.models.stream import stream_kernel
from foretrain.sim.collectives import collective, send
from foretrain.sim.cost import Pricer
from foretrain.sim.curve import lone_span
from foretrain.sim.nearness import Nearness
from foretrain.software.load import load_software

H100 = load_accelerator("h100-sxm")
EAGER = load_software("pytorch-eager")
SHAPE = (1.0, 4096.0, 4096.0, 4096.0)


def _kernel(shape):
    batch, m, n, k = map(int, shape)
    return gemm_kernel("product", Gemm(batch=batch, m=m, n=n, k=k), 2.0)


def _bound(work):
    return work.math_s + work.memory_s


def _with(measured):
    return Pricer(replace(H100, measured=measured), EAGER, "bf16")


def test_a_measured_product_takes_what_was_measured_and_a_far_one_what_the_curve_says():
    plain = Pricer(H100, EAGER, "bf16")
    slow = _bound(plain.work(_kernel(SHAPE))) * 1.7
    pricer = _with(Measured(products={"bf16": ((*SHAPE, slow),)}))
    assert _bound(pricer.work(_kernel(SHAPE))) == pytest.approx(slow, rel=1e-3)
    odd = (1.0, 4095.0, 4095.0, 4095.0)
    assert _bound(pricer.work(_kernel(odd))) == pytest.approx(_bound(plain.work(_kernel(odd))), rel=0.02)
    far = (1.0, 128.0, 65536.0, 64.0)
    assert _bound(pricer.work(_kernel(far))) == pytest.approx(_bound(plain.work(_kernel(far))), rel=0.02)


def test_between_two_measurements_the_correction_lies_between_theirs():
    nearness = Nearness([(1.0, 1024.0, 2.0), (1.0, 4096.0, 3.0)], lambda _row: 1.0)
    factors = [nearness.factor((1.0, float(size))) for size in (1024, 1448, 2048, 2896, 4096)]
    assert factors == sorted(factors)
    assert factors[0] == pytest.approx(2.0, rel=1e-2)
    assert factors[-1] == pytest.approx(3.0, rel=1e-2)


def test_streams_pass_through_their_points_and_grow_in_proportion_beyond():
    pricer = _with(Measured(streams=((1e6, 4e-6), (1e8, 6e-5)), slowness={"bf16": {"norm": 1.5}}))
    software = EAGER.stream_scale
    assert pricer.stream_s(1e6) * software == pytest.approx(4e-6)
    assert pricer.stream_s(1e9) * software == pytest.approx(6e-4)
    assert pricer.stream_s(2e6, 2) * software == pytest.approx(8e-6)
    half = stream_kernel("norm and others", 1e8, 1, (("norm", 0.5),))
    assert pricer.moving_s(half) * software == pytest.approx(6e-5 * 1.25)
    wide = stream_kernel("norm in fp32", 1e8, 1, (("norm in 32 bits", 1.0),))
    both = _with(Measured(streams=((1e6, 4e-6), (1e8, 6e-5)), slowness={"bf16": {"norm": 1.5}, "fp32": {"norm": 1.2}}))
    assert both.moving_s(wide) * software == pytest.approx(6e-5 * 1.2)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("products: {value: {bf61: [[1, 2, 3, 4, 1e-3]]}, source: bench}", "bf61"),
        ("products: {value: {bf16: [[1, 2, 3, 1e-3]]}, source: bench}", "5 numbers"),
        ("products: {value: {bf16: [[1, 2, 3, 4, 0]]}, source: bench}", "above 0"),
        ("streams: {value: [[1e6, 1e-3], [1e5, 1e-2]], source: bench}", "out of order"),
        ("slowness: {value: {bf16: {nrom: 2}}, source: bench}", "norm"),
        ("slowness: {value: {bf16: {norm: 2}}, source: bnech}", "bench"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, table, words):
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: h100-sxm\nname: mine\nsources:\n  bench: {{title: measured here, kind: measurement}}\nmeasured:\n  {table}\n")
    with pytest.raises(ProfileError, match=words):
        load_accelerator(str(path))


def test_tables_of_a_profile_are_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "base: h100-sxm\nname: mine\nsources:\n  bench: {title: measured here, kind: measurement}\nmeasured:\n"
        "  products: {value: {bf16: [[1, 4096, 4096, 4096, 2.5e-4]]}, source: bench}\n"
        "  convolutions: {value: {bf16: {weight: [[8, 64, 64, 1, 3136, 3136, 9, 1, 1e-4]]}}, source: bench}\n"
        "  attention: {value: {bf16: {backward: [[32, 1024, 1024, 64, 256, 1e-4]]}}, source: bench}\n"
    )
    measured = load_accelerator(str(path)).measured
    assert measured.products["bf16"] == ((1.0, 4096.0, 4096.0, 4096.0, 2.5e-4),)
    assert measured.convolutions["bf16"]["weight"][0][-1] == 1e-4
    assert measured.attention["bf16"]["backward"][0][0] == 32


def test_measured_messages_take_what_was_measured():
    cluster = load_cluster("dgx-h100:1")
    span = lone_span(cluster, 8)
    plain = collective("all_reduce", 1e8, span, cluster).total_s
    rows = (("all_reduce", ((8.0, 1e8, 2 * plain),)), ("send", ((2.0, 1e6, 5e-5),)))
    node = replace(cluster.node, scale_up=replace(cluster.node.scale_up, measured=rows))
    measured = replace(cluster, node=node)
    assert collective("all_reduce", 1e8, span, measured).total_s == pytest.approx(2 * plain, rel=1e-3)
    assert collective("all_gather", 1e8, span, measured) == collective("all_gather", 1e8, span, cluster)
    assert send(1e6, measured, crosses=False, flows=1).total_s == pytest.approx(5e-5, rel=1e-2)
    assert send(1e6, measured, crosses=True, flows=1) == send(1e6, cluster, crosses=True, flows=1)
