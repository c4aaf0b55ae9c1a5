"""Adding two handwritten digits: a tie of three modalities of which no pair tells anything, made of real images.

``a`` and ``b`` are images of digits, ``c`` is the sum of the two modulo 10. The digits are drawn uniformly and independently,
so ``c`` is uniform whatever ``a`` is, and whatever ``b`` is: every pair is independent, and the total correlation is log 10,
all of it of higher order. A loss on pairs has nothing to learn and stays at chance, 1 in 10.

The 1,797 images (8 x 8, from 43 writers) are those that scikit-learn brings along; nothing is downloaded.

Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CLASSES = 10
PIXELS = 64
NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class DigitImages:
    """Images of handwritten digits.

    Attributes:
        pixels: (n, 64) float32 from 0 to 1.
        digits: (n,) int64 from 0 to 9.
    """

    pixels: Tensor
    digits: Tensor


@dataclass(frozen=True)
class DigitSums:
    """Pairs of images and the sum of what they show.

    Attributes:
        a: (n, 64) pixels.
        b: (n, 64) pixels.
        c: (n, 10) one-hot, the sum modulo 10.
        digits: (n, 3) int64, what ``a``, ``b`` and ``c`` show.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    digits: Tensor

    def modalities(self) -> dict[str, Tensor]:
        """What the encoders take, by name."""
        return {"a": self.a, "b": self.b, "c": self.c}


def split_images(shares: tuple[float, ...], generator: torch.Generator) -> list[DigitImages]:
    """The images, divided at random digit by digit, so that every part has its share of every digit.

    Args:
        shares: of each part; they add up to at most 1.
        generator: decides who goes where.

    Raises:
        ValueError: a share that is not positive, or shares of more than 1.
    """
    if any(share <= 0 for share in shares) or sum(shares) > 1 + 1e-9:
        raise ValueError(f"shares={shares}; expected positive numbers that add up to at most 1")
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(pixels).float() / 16, torch.from_numpy(digits).long()
    parts: list[list[Tensor]] = [[] for _ in shares]
    for digit in range(CLASSES):
        rows = (labels == digit).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        start, total = 0, 0.0
        for part, share in zip(parts, shares, strict=True):
            total += share
            stop = round(total * len(rows))
            part.append(rows[start:stop])
            start = stop
    chosen = [torch.cat(part) for part in parts]
    return [DigitImages(images[rows], labels[rows]) for rows in chosen]


def sample_sums(images: DigitImages, n: int, generator: torch.Generator) -> DigitSums:
    """Pairs of images and their sums.

    Args:
        images: what to draw from; must show every digit.
        n: number of pairs.
        generator: decides which.

    Raises:
        ValueError: a digit that no image shows.
    """
    missing = sorted(set(range(CLASSES)) - set(images.digits.tolist()))
    if missing:
        raise ValueError(f"no image shows {missing}; sums are uniform only if every digit can be drawn")
    digits = torch.randint(CLASSES, (n, 2), generator=generator)
    rows = torch.empty_like(digits)
    for digit in range(CLASSES):
        shown = (images.digits == digit).nonzero().flatten()
        where = digits == digit
        rows[where] = shown[torch.randint(len(shown), (int(where.sum()),), generator=generator)]
    sums = digits.sum(dim=1) % CLASSES
    one_hot = torch.nn.functional.one_hot(sums, CLASSES).float()
    return DigitSums(images.pixels[rows[:, 0]], images.pixels[rows[:, 1]], one_hot, torch.column_stack([digits, sums]))
