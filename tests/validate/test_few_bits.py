"""Which tuned submissions run products in fp8."""

from __future__ import annotations

import pytest

from foretrain.hardware.load import load_accelerator, load_cluster
from foretrain.models.load import load_model
from foretrain.software.load import load_software
from foretrain.validate.classic_rows import job_of
from foretrain.validate.few_bits import in_few_bits
from foretrain.validate.llm_rows import Job, Library


@pytest.mark.parametrize(
    ("model", "chip", "expected"),
    [
        ("bert-large", "h100-sxm", True),
        ("bert-large", "b200-sxm", True),
        ("bert-large", "a100-sxm-80gb", False),
        ("bert-large", "l40s", False),
        ("resnet-50", "h100-sxm", False),
        ("dlrm-dcnv2", "h100-sxm", False),
    ],
)
def test_transformers_on_hopper_and_blackwell(model: str, chip: str, *, expected: bool) -> None:
    """And nothing else."""
    assert in_few_bits(load_model(model), load_accelerator(chip)) is expected


def test_only_tuned_submissions_whose_words_allow_it() -> None:
    """A row of MLPerf in mixed precision, and the same row of a framework's scripts."""
    row = {
        "model": "BERT-Large", "dataset_input": "seq 512", "accelerator": "H100-SXM5-80GB", "n_accelerators": "8", "n_nodes": "1",
        "framework": "PyTorch", "precision": "mixed (fp16/bf16/fp8)", "batch_per_device": "8", "global_batch": "64",
        "kind": "MLPerf", "set": "mlperf",
    }  # fmt: skip
    library = Library(cluster=lambda name: load_cluster(f"{name}:1"), software=load_software)
    tuned, plain = job_of(row, library), job_of({**row, "kind": "end-to-end"}, library)
    assert isinstance(tuned, Job)
    assert isinstance(plain, Job)
    assert (tuned.recipe.precision, plain.recipe.precision) == ("fp8", "fp16")
