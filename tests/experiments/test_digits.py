"""Adding handwritten digits: the data has the law that it claims, and the losses find what they can."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
import yaml

from clinical_symile.experiments.digits import DigitsConfig, run_cell, summarise
from clinical_symile.simulation.digits import DigitImages, sample_sums, split_images

PRESETS = Path(__file__).resolve().parents[2] / "pipelines" / "experiments"


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_parts_share_no_image_and_have_their_share_of_each_digit() -> None:
    train, test = split_images((0.6, 0.4), generator())
    assert len(train.pixels) + len(test.pixels) == 1797
    known = {image.numpy().tobytes() for image in train.pixels}
    assert not any(image.numpy().tobytes() in known for image in test.pixels)
    counts = torch.stack([torch.bincount(part.digits, minlength=10) for part in (train, test)]).double()
    assert ((counts[0] / counts.sum(dim=0) - 0.6).abs() < 0.01).all()
    assert train.pixels.min() == 0
    assert train.pixels.max() == 1


def test_every_pair_is_independent_and_the_three_are_not() -> None:
    images, _ = split_images((0.5, 0.5), generator())
    rows = sample_sums(images, 100_000, generator())
    a, b, c = rows.digits.T
    assert ((a + b) % 10 == c).all()
    assert (rows.c.argmax(dim=1) == c).all()
    for x, y in itertools.combinations((a, b, c), 2):
        counts = torch.bincount(10 * x + y, minlength=100).double()
        chi_squared = ((counts - 1000) ** 2 / 1000).sum()
        assert chi_squared < 148, "the 99.9 % quantile of chi squared with 99 degrees of freedom is 148.2"


def test_images_show_the_digits() -> None:
    images, _ = split_images((0.5, 0.5), generator())
    rows = sample_sums(images, 200, generator())
    shown = {image.numpy().tobytes(): int(digit) for image, digit in zip(images.pixels, images.digits, strict=True)}
    assert [shown[image.numpy().tobytes()] for image in rows.a] == rows.digits[:, 0].tolist()
    assert [shown[image.numpy().tobytes()] for image in rows.b] == rows.digits[:, 1].tolist()


def test_wrong_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"shares=\(0.7, 0.7\)"):
        split_images((0.7, 0.7), generator())
    with pytest.raises(ValueError, match=r"no image shows \[1, 2"):
        sample_sums(DigitImages(torch.zeros(2, 64), torch.zeros(2, dtype=torch.int64)), 5, generator())


def test_the_preset_is_the_default() -> None:
    assert DigitsConfig(**yaml.safe_load((PRESETS / "digits.yaml").read_text())) == DigitsConfig()


@pytest.mark.slow
def test_symile_adds_and_clip_cannot() -> None:
    import pandas as pd

    config = DigitsConfig(repeats=1)
    rows = [row for loss in config.losses for row in run_cell(config, {"loss": loss, "repeat": 0})]
    found = summarise(pd.DataFrame(rows), config)
    assert found["symile_sum"] >= 0.90
    assert found["symile_image"] >= 0.90
    assert found["clip_sum"] < 0.15
    assert found["clip_image"] < 0.15
    assert 1.7 < found["symile_certified_nats"] < 2.3026, "the total correlation is log 10"
