"""Augmentation: off changes nothing; on, each change does what it says, per admission, and follows its generator."""

from __future__ import annotations

import pytest
import torch

from clinical_symile.config import AugmentConfig
from clinical_symile.training.augmentation import add_noise, augment, drop_labs, expose, roll, shift

MISSING = torch.linspace(0.3, 0.7, 50)
ALL = AugmentConfig(lab_dropout=0.3, ecg_roll=True, ecg_noise=0.1, cxr_shift=5, cxr_exposure=0.1)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    observed = (torch.rand((6, 50), generator=seeded(1)) < 0.7).float()
    percentiles = torch.where(observed > 0, torch.rand((6, 50), generator=seeded(2)), MISSING)
    return {
        "cxr": torch.randn((6, 3, 32, 32), generator=seeded(3)),
        "ecg": torch.randn((6, 1, 100, 12), generator=seeded(4)),
        "labs": torch.cat([percentiles, observed], dim=1),
    }


def test_off_is_the_identity(batch: dict[str, torch.Tensor]) -> None:
    for name, value in augment(batch, AugmentConfig(), MISSING, seeded()).items():
        assert value is batch[name]


def test_a_batch_follows_its_generator_and_is_not_changed_in_place(batch: dict[str, torch.Tensor]) -> None:
    before = {name: value.clone() for name, value in batch.items()}
    first, again, other = (augment(batch, ALL, MISSING, seeded(seed)) for seed in (0, 0, 1))
    for name, value in batch.items():
        assert torch.equal(value, before[name])
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])
        assert first[name].shape == value.shape


def test_a_dropped_test_looks_exactly_like_one_that_was_not_measured(batch: dict[str, torch.Tensor]) -> None:
    percentiles, observed = drop_labs(batch["labs"], 0.5, MISSING, seeded()).chunk(2, dim=1)
    was_percentiles, was_observed = batch["labs"].chunk(2, dim=1)
    assert ((observed == 0) | (was_observed == 1)).all(), "nothing becomes measured"
    assert torch.equal(percentiles[observed == 1], was_percentiles[observed == 1])
    assert torch.equal(percentiles[observed == 0], MISSING.expand(6, 50)[observed == 0])
    assert 0 < observed.sum() < was_observed.sum()


def test_a_shifted_image_is_the_image_elsewhere_with_repeated_edges() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    shifted = {tuple(shift(image, 1, seeded(seed)).flatten().tolist()) for seed in range(60)}
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    windows = {tuple(padded[:, :, top : top + 4, left : left + 4].flatten().tolist()) for top in range(3) for left in range(3)}
    assert shifted == windows


def test_each_image_has_its_own_exposure() -> None:
    images = torch.randn((4, 3, 8, 8), generator=seeded(5))
    exposed = expose(images, 0.2, seeded())
    for image, changed in zip(images, exposed, strict=True):
        design = torch.stack([image.flatten(), torch.ones(image.numel())], dim=1)
        fit = torch.linalg.lstsq(design, changed.flatten()[:, None])
        torch.testing.assert_close(design @ fit.solution, changed.flatten()[:, None])
    slopes = (exposed.std(dim=(1, 2, 3)) / images.std(dim=(1, 2, 3))).tolist()
    assert len({round(slope, 4) for slope in slopes}) == 4


def test_a_rolled_record_keeps_its_samples_and_the_leads_together() -> None:
    records = torch.arange(2 * 50 * 12.0).reshape(2, 1, 50, 12)
    rolled = roll(records, seeded(2))
    starts = []
    for record, changed in zip(records, rolled, strict=True):
        start = int((record[0, :, 0] == changed[0, 0, 0]).nonzero())
        torch.testing.assert_close(changed, record.roll(-start, dims=1))
        starts.append(start)
    assert starts[0] != starts[1]


def test_noise_has_the_spread_that_was_asked_for() -> None:
    noisy = add_noise(torch.zeros((4, 1, 1000, 12)), 0.1, seeded())
    assert noisy.std().item() == pytest.approx(0.1, rel=0.02)
