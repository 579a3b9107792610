"""Draw the strong scaling of GPT-3 6.7B on DGX H100 nodes: `python examples/scaling_plot.py [FOLDER]` (default: out)."""

from __future__ import annotations

import sys
from pathlib import Path

import foretrain as ft
from foretrain.charts.scaling import left_out, save_scaling
from foretrain.sim.sweep import efficiency, scaling

MODEL, NODE = "gpt3-6.7b", "dgx-h100"
NODES = (1, 2, 4, 8, 16, 32)


def main(folder: Path) -> None:
    """Predict every node count, draw the plot and print where it went."""
    model = ft.load_model(MODEL)
    plan = ft.Plan(tp=2, pp=2, zero=1, sequence_parallel=True, recompute="full")
    points = scaling(model, lambda nodes: ft.load_cluster(f"{NODE}:{nodes}"), plan, ft.Recipe(global_batch=512), NODES, "strong")
    for point, ratio in zip(points, efficiency(points), strict=True):
        if point.summary and ratio:
            one = point.summary
            print(f"{point.nodes:>3} nodes: step {one.step_s:6.2f} s, efficiency {ratio:.1%}, {one.energy_per_item_j:.3f} J/token")
    for text in left_out(points):
        print(text)
    folder.mkdir(parents=True, exist_ok=True)
    for path in save_scaling(points, f"{model.name} on {NODE}: strong scaling, batch 512, tp 2, pp 2", folder):
        print(path)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
