"""Published names of accelerators, and the profiles that they mean."""

from __future__ import annotations

import pytest

from foretrain.errors import ProfileError
from foretrain.hardware.load import list_accelerators, load_accelerator
from foretrain.validate.chips import accelerator_named

NAMES = {
    "A10": "a10", "A100 - PCIe - 80 GB": "a100-pcie-80gb", "A100-PCIE-40GB (250W)": "a100-pcie-40gb", "A100-SXM4-40GB": "a100-sxm-40gb",
    "NVIDIA A100 80GB PCIe": "a100-pcie-80gb", "A100-SXM4-80GB(400W)": "a100-sxm-80gb", "A100-SXM-80GB (500W)": "a100-sxm-80gb-500w",
    "A30-PCIE-24GB": "a30", "Blackwell GPU (B200-SXM-180GB)": "b200-sxm", "Blackwell GPU (GB200)": "gb200", "GTX 1080": "gtx-1080",
    "GTX 1080 Ti": "gtx-1080-ti", "H100 80GB HBM3": "h100-sxm", "H100-SXM5-96GB": "h100-sxm-96gb-hbm2e", "H100-NVL": "h100-nvl-94gb",
    "K80 (1 GK210 die)": "k80", "L40": "l40", "L40S": "l40s", "M60 (1 die)": "m60", "P100-SXM2-16GB": "p100-sxm2",
    "RTX 8000": "quadro-rtx-8000", "RTX A6000": "rtx-a6000", "RTX 6000 Ada": "rtx-6000-ada", "Titan X (Maxwell)": "titan-x-maxwell",
    "Titan X (Pascal)": "titan-x-pascal", "V100-PCIe-16GB (250 W cap range)": "v100-pcie-16gb", "Tesla V100-SXM2-32GB": "v100-sxm2-32gb",
    "V100-SXM3-32GB (450W)": "v100-sxm3-32gb-450w", "MI250X": "mi250x-gcd", "TPU v5e": "tpu-v5e", "Gaudi 2": "gaudi2",
    "A100": "a100-sxm-80gb", "H100": "h100-sxm", "RTX 2080 SUPER MAX-Q": "rtx-2080-super-max-q", "RTX 2080 MAX-Q": "rtx-2080-max-q",
    "RTX 2070 MAX-Q": "rtx-2070-max-q", "RTX 2080 Ti": "rtx-2080-ti",
}  # fmt: skip


@pytest.mark.parametrize(("words", "key"), NAMES.items())
def test_makers_and_benchmarks_write_names_their_own_way(words: str, key: str) -> None:
    """Sockets, memory, watts and dashes in any order."""
    assert accelerator_named(words)[0].key == key


@pytest.mark.parametrize("key", list_accelerators())
def test_every_accelerator_answers_to_its_key(key: str) -> None:
    """And nothing had to be assumed."""
    assert accelerator_named(key) == (load_accelerator(key), ())


@pytest.mark.parametrize("words", ["abacus", "", "8", "80GB", "PCIe", "SXM4 80 GB"])
def test_what_names_no_chip_is_refused(words: str) -> None:
    """A form, a size or nothing is not a chip."""
    with pytest.raises(ProfileError, match="no accelerator of the library"):
        accelerator_named(words)


def test_a_form_that_the_library_lacks_is_not_another_form() -> None:
    """A T4 in a socket does not exist, and a V100 of 64 GB neither."""
    for words in ("H100 PCIe 96GB", "V100-SXM2-64GB"):
        with pytest.raises(ProfileError):
            accelerator_named(words)


def test_measured_power_decides_between_parts_of_one_name() -> None:
    """A part cannot draw much more than its limit; where none can, the nearest is taken and that is said."""
    assert accelerator_named("A100-SXM", 410.0)[0].key == "a100-sxm-80gb"
    assert accelerator_named("A100-SXM", 474.0)[0].key == "a100-sxm-80gb-500w"
    chip, notes = accelerator_named("A40", 400.0)
    assert chip.key == "a40"
    assert "above its limit" in notes[0]
