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
    height, width = images.shape[-2:]
    out = torch.empty_like(images)
    steps = torch.randint(-pixels, pixels + 1, (len(images), 2), generator=generator)
    for image, target, (down, right) in zip(images, out, steps.tolist(), strict=True):
        rows = (torch.arange(height) - down).clamp_(0, height - 1)
        columns = (torch.arange(width) - right).clamp_(0, width - 1)
        target.copy_(image[:, rows][:, :, columns])
    return out


def expose(images: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """``x (1 + spread z1) + spread z2`` with two standard normal numbers for each image (n, c, h, w)."""
    if spread == 0:
        return images
    contrast, brightness = (spread * torch.randn((2, len(images), 1, 1, 1), generator=generator)).unbind()
    return images * (1 + contrast) + brightness


def roll(records: Tensor, generator: torch.Generator) -> Tensor:
    """Begins each record (n, 1, t, l) at a sample of its own; all leads together, and what was before follows the end."""
    starts = torch.randint(records.shape[2], (len(records),), generator=generator)
    return torch.stack([record.roll(-start, dims=1) for record, start in zip(records, starts.tolist(), strict=True)])


def add_noise(records: Tensor, spread: float, generator: torch.Generator) -> Tensor:
    """Adds white noise of standard deviation ``spread``."""
    if spread == 0:
        return records
    return records + spread * torch.randn(records.shape, generator=generator)


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
