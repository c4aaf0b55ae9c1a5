"""Random numbers that depend on where training is, not on how it got there: the basis of exact resumption.

Nothing draws from torch's global generator. Each draw has a generator of its own, seeded by the run's seed, the purpose and
the position (epoch or step), so an interrupted run draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Purpose(IntEnum):
    """What a draw is for. The numbers are part of what a seed means; do not renumber."""

    INITIALISATION = 0
    CROPS = 1
    NEGATIVES = 2
    VALIDATION = 3
    AUGMENTATION = 4


def generator(seed: int, purpose: Purpose, position: int = 0) -> torch.Generator:
    """A generator on the CPU for one draw."""
    return torch.Generator().manual_seed(_derive(seed, purpose, position))


@contextmanager
def seeded_initialisation(seed: int) -> Iterator[None]:
    """Lets modules initialise from the seed (they know only the global generator), and leaves the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_derive(seed, Purpose.INITIALISATION, 0))
        yield


def _derive(seed: int, purpose: Purpose, position: int) -> int:
    """SeedSequence mixes well: neighbouring seeds and positions give unrelated streams."""
    return int(np.random.SeedSequence([seed, int(purpose), position]).generate_state(1, np.uint64)[0] >> 1)
