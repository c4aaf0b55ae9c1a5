"""Random changes of a training batch that leave what it shows as it is: the same patient, a little differently recorded."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clinical_symile.config import AugmentConfig


def augment(
    batch: dict[str, Tensor], config: AugmentConfig, missing_labs: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Changes each admission of a batch independently of the others.

    Args:
        batch: ``cxr`` (n, 3, 320, 320), ``ecg`` (n, 1, 5000, 12), ``labs`` (n, 100), as ``make_batch`` gives
            them, or some of these.
        config: how much; 0 leaves a modality as it is.
        missing_labs: (50,) the percentile that stands for "not measured".
        generator: source of randomness.

    Returns:
        A batch of the same shapes; the given one is not changed.
    """
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "cxr": lambda x: expose(shift(x, config.cxr_shift, generator), config.cxr_exposure, generator),
        "ecg": lambda x: add_noise(roll(x, generator) if config.ecg_roll else x, config.ecg_noise, generator),
        "labs": lambda x: drop_labs(x, config.lab_dropout, missing_labs, generator),
    }
    return {modality: changes[modality](values) for modality, values in batch.items()}


def shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shifts each image (n, c, h, w) by up to ``pixels`` down and right or up and left; what comes in repeats the edge."""
    if pixels == 0:
        return images
    out = torch.empty_like(images)
    steps = torch.randint(-pixels, pixels + 1, (len(images), 2), generator=generator)
    for image, target, (down, right) in zip(images, out, steps.tolist(), strict=True):
        _shift_into(image, target, down, right)
    return out


def _shift_into(image: Tensor, target: Tensor, down: int, right: int) -> None:
    """Whole blocks are copied, then the edges filled: several times as fast as indexing each pixel."""
    height, width = image.shape[-2:]
    top, bottom = max(down, 0), height + min(down, 0)
    left, end = max(right, 0), width + min(right, 0)
    target[:, top:bottom, left:end] = image[:, top - down : bottom - down, left - right : end - right]
    target[:, top:bottom, :left] = target[:, top:bottom, left : left + 1]
    target[:, top:bottom, end:] = target[:, top:bottom, end - 1 : end]
    target[:, :top] = target[:, top : top + 1]
    target[:, bottom:] = target[:, bottom - 1 : bottom]


def expose(images: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """``x (1 + spread z1) + spread z2`` with two standard normal numbers for each image (n, c, h, w)."""
    if spread == 0:
        return images
    contrast, brightness = spread * torch.randn((2, len(images)), generator=generator)
    out = torch.empty_like(images)
    for image, target, factor, offset in zip(images, out, 1 + contrast, brightness, strict=True):
        torch.mul(image, factor, out=target).add_(offset)
    return out


def roll(records: Tensor, generator: torch.Generator) -> Tensor:
    """Begins each record (n, 1, t, l) at a sample of its own; all leads together, and what was before follows the end."""
    starts = torch.randint(records.shape[2], (len(records),), generator=generator)
    return torch.stack([record.roll(-start, dims=1) for record, start in zip(records, starts.tolist(), strict=True)])


def add_noise(records: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """Adds white noise of standard deviation ``spread``."""
    if spread == 0:
        return records
    return torch.randn(records.shape, generator=generator).mul_(spread).add_(records)


def drop_labs(labs: Tensor, chance: float, missing: Tensor, generator: torch.Generator) -> Tensor:
    """Takes each measured test, with the given chance, as not measured: its percentile becomes that of missing values.

    Args:
        labs: (n, 100), 50 percentiles, then 50 indicators of what was measured.
        chance: in [0, 1).
        missing: (50,) percentile of missing values.
        generator: source of randomness.
    """
    if chance == 0:
        return labs
    percentiles, observed = labs.chunk(2, dim=1)
    kept = torch.rand(observed.shape, generator=generator) >= chance
    return torch.cat([torch.where(kept, percentiles, missing), observed * kept], dim=1)
