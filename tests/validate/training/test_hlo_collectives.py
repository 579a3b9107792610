"""Collectives read from the text of programs as XLA writes them."""

from foretrain.validate.training.hlo_collectives import collectives_of

PROGRAM = """HloModule jit_step, is_scheduled=true

%region_5.6 (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%body (wide: (s32[], f32[128])) -> (s32[], f32[128]) {
  %gather.1 = bf16[256,128]{1,0} all-gather(%part), channel_id=1, replica_groups={{0,2},{1,3}}, dimensions={0}
  %scatter.2 = f32[128,128]{1,0} reduce-scatter(%grown), channel_id=2, replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}
}

ENTRY %main (p: f32[128]) -> f32[] {
  %while.27 = (s32[], f32[128]{0}) while(%tuple.2), condition=%cond, body=%body, backend_config={"known_trip_count":{"n":"3"},"x":{}}
  %add.1 = f32[] add(%while.27, %while.27)
  %start = ((f32[64]{0}), (f32[128]{0})) all-gather-start(%p), replica_groups=[2,2]<=[4], dimensions={0}
  %done = f32[128]{0} all-gather-done(%start)
  %both = (f32[10]{0}, bf16[6]{0}) all-reduce-start(%x, %y), replica_groups=[1,4]<=[4], to_apply=%region_5.6
  ROOT %psum.7 = f32[] all-reduce(%z), channel_id=3, replica_groups={{0,1},{2,3}}, to_apply=%region_5.6
}
"""


def test_every_collective_is_found_in_order_as_often_as_its_loop_runs():
    gather = {"op": "all_gather", "bytes": 256 * 128 * 2, "group": [0, 2]}
    scatter = {"op": "reduce_scatter", "bytes": 2 * 128 * 128 * 4, "group": [0, 2]}
    assert collectives_of(PROGRAM) == [
        *[gather, scatter] * 3,
        {"op": "all_gather", "bytes": 128 * 4, "group": [0, 1]},
        {"op": "all_reduce", "bytes": 10 * 4 + 6 * 2, "group": [0, 1, 2, 3]},
        {"op": "all_reduce", "bytes": 4, "group": [0, 1]},
    ]


def test_a_program_without_any_has_none():
    assert collectives_of("HloModule jit_f\n\nENTRY %main (p: f32[2]) -> f32[2] {\n  ROOT %a = f32[2]{0} add(%p, %p)\n}\n") == []
    assert collectives_of("") == []
