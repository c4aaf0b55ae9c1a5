"""Rows of the store to the tensors that the encoders take: crop and scaling happen here, not in the store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clinical_symile.dataset.store import ArrayStore
from clinical_symile.modalities.cxr import IMAGENET_MEAN, IMAGENET_STD, crop
from clinical_symile.modalities.labs import encode as encode_labs
from clinical_symile.types import CXR_SIZE


def make_batch(
    store: ArrayStore, rows: NDArray[np.integer] | Sequence[int], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Reads admissions as the model's input.

    Args:
        store: the dataset.
        rows: n rows of it.
        generator: draws the corner of each X-ray's crop; ``None`` crops the centre.

    Returns:
        ``cxr`` (n, 3, 320, 320), ImageNet-normalised; ``ecg`` (n, 1, 5000, 12), each record in [-1, 1]; ``labs`` (n, 100),
        50 percentiles, then 50 indicators of what was measured. All float32.
    """
    index = np.asarray(rows)
    return {
        "cxr": normalise_crops(torch.from_numpy(_crops(store, index, generator))),
        "ecg": scale_records(torch.from_numpy(store.ecg_adc[index]), torch.from_numpy(store.ecg_scale[index])),
        "labs": torch.from_numpy(encode_labs(store.labs[index], store.labs_observed[index])),
    }


def normalise_crops(crops: Tensor) -> Tensor:
    """``modalities.cxr.normalise`` for a batch, with the same bits: (x / 255 - mean) / std in float32.

    Args:
        crops: (n, h, w) uint8.

    Returns:
        (n, 3, h, w) float32.
    """
    out = torch.empty((len(crops), 3, *crops.shape[1:]), dtype=torch.float32)
    channels = [(torch.tensor(mean), torch.tensor(std)) for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    # One image at a time stays in the processor's cache; here and below that is what makes it fast.
    for image, target in zip(crops, out, strict=True):
        grey = image.to(torch.float32).div_(255)
        for channel, (mean, std) in zip(target, channels, strict=True):
            torch.sub(grey, mean, out=channel).div_(std)
    return out


def scale_records(adc: Tensor, scale: Tensor) -> Tensor:
    """``modalities.ecg.encode`` for a batch, as one affine map per lead instead of a pass through millivolts.

    With x = (adc - baseline) / gain and low, high the extremes of x over the whole record,
    2 (x - low) / (high - low) - 1 = adc * a + c, where a = 2 / (gain (high - low)) and
    c = -2 (baseline / gain + low) / (high - low) - 1. The extremes of x lie where those of adc lie, lead by lead.

    Args:
        adc: (n, 5000, 12) int16.
        scale: (n, 12, 2): gain in ADC units per mV, and baseline.

    Returns:
        (n, 1, 5000, 12) float32; computed in float64.
    """
    gain, baseline = scale.double().unbind(dim=-1)
    ends = torch.stack([adc.amin(dim=1), adc.amax(dim=1)], dim=-1).double()
    ends_mv = (ends - baseline[..., None]) / gain[..., None]
    low, high = ends_mv.amin(dim=(1, 2)), ends_mv.amax(dim=(1, 2))
    spread = (high - low)[:, None]
    slope = 2 / (gain * spread)
    offset = -2 * (baseline / gain + low[:, None]) / spread - 1
    out = torch.empty((len(adc), 1, *adc.shape[1:]), dtype=torch.float32)
    for record, target, a, c in zip(adc, out, slope, offset, strict=True):
        target[0] = record.double().mul_(a).add_(c)
    return out


def _crops(store: ArrayStore, rows: NDArray[np.integer], generator: torch.Generator | None) -> NDArray[np.uint8]:
    """(n, 320, 320). Two random numbers are drawn for each row whatever its shape, so rows do not disturb one another."""
    out = np.empty((len(rows), CXR_SIZE, CXR_SIZE), dtype=np.uint8)
    corners = torch.rand((len(rows), 2), generator=generator).numpy() if generator is not None else None
    for number, row in enumerate(rows):
        image = store.cxr(int(row))
        if corners is None:
            out[number] = crop(image)
        else:
            room = np.array(image.shape) - CXR_SIZE + 1
            top, left = np.minimum((corners[number] * room).astype(int), room - 1)
            out[number] = crop(image, corner=(int(top), int(left)))
    return out
