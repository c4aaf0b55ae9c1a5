"""The scale of the logits, learned as its logarithm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class LogitScale(nn.Module):
    """``s = exp(min(logit_scale, log maximum))``: the inverse temperature by which losses multiply their scores.

    The paper's experiments differ only in where it starts, because the size of a product depends on the embedding:
    -0.3 for unit vectors of 16 numbers (XOR), -6 for Symile-M3, -7 for Symile-MIMIC (LayerNorm outputs, d = 8192, whose
    product of three has a standard deviation of about 90).

    Args:
        init: the logarithm of the scale at the start.
        learned: whether it is a parameter that the optimizer may change.
        maximum: largest scale (not its logarithm), such as CLIP's 100; ``None`` for no limit, as in the paper. The gradient
            is 0 beyond it, so call ``clamp_`` after each step, which lets the scale come down again.

    Raises:
        ValueError: ``init`` is not finite, or ``maximum`` is not positive or is smaller than ``exp(init)``.

    Example:
        >>> LogitScale(0.0)().item()
        1.0

    Source: Radford et al. 2021, section 2.5; the starting values: the code of Saporta et al. 2024.
    """

    def __init__(self, init: float, *, learned: bool = True, maximum: float | None = None) -> None:
        super().__init__()
        if not math.isfinite(init):
            raise ValueError(f"init={init}; expected a finite logarithm of the scale, such as 0")
        if maximum is not None and not (maximum > 0 and init <= math.log(maximum)):
            raise ValueError(f"maximum={maximum}; expected at least exp(init) = {math.exp(init):g}, or None")
        self.maximum = maximum
        self.logit_scale = nn.Parameter(torch.tensor(float(init)), requires_grad=learned)

    def forward(self) -> Tensor:
        """The scale itself, a scalar."""
        logarithm = self.logit_scale
        return logarithm.exp() if self.maximum is None else logarithm.clamp(max=math.log(self.maximum)).exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Brings the parameter back to the maximum; for after an optimizer's step."""
        if self.maximum is not None:
            self.logit_scale.clamp_(max=math.log(self.maximum))

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"init={self.logit_scale.item():g}, learned={self.logit_scale.requires_grad}, maximum={self.maximum}"
