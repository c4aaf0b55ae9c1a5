"""The learning rate as a function of the step."""

from __future__ import annotations

import math
from typing import Literal

WARM_UP_SHARE = 0.05


def learning_rate(step: int, total_steps: int, peak: float, schedule: Literal["constant", "cosine"]) -> float:
    """The learning rate of one step.

    ``cosine`` rises linearly over the first 5 % of the steps and then falls along half a cosine,
    ``peak (1 + cos(pi t)) / 2`` with t from 0 to 1; the last step still learns a little.

    Args:
        step: counted from 0.
        total_steps: of the whole run.
        peak: the largest learning rate.
        schedule: ``constant`` or ``cosine``.
    """
    if schedule == "constant":
        return peak
    warm_up = max(1, round(WARM_UP_SHARE * total_steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * (1 + math.cos(math.pi * (step - warm_up + 1) / (total_steps - warm_up + 1))) / 2
