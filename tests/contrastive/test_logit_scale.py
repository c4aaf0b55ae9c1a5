"""The learned scale of the logits: where it starts, whether it moves, how far it may."""

from __future__ import annotations

import math

import pytest
import torch

from clinical_symile.contrastive import LogitScale


def test_it_starts_at_the_exponential_of_init() -> None:
    assert LogitScale(-7.0)().item() == pytest.approx(math.exp(-7))
    assert [name for name, _ in LogitScale(0.0).named_parameters()] == ["logit_scale"]


def test_learned_or_not() -> None:
    scale = LogitScale(-0.3)
    scale().backward()
    assert scale.logit_scale.grad.item() == pytest.approx(math.exp(-0.3)), "d exp(x) / dx = exp(x)"
    assert not LogitScale(-0.3, learned=False)().requires_grad


def test_the_maximum_holds_and_can_be_left_again() -> None:
    scale = LogitScale(4.0, maximum=100.0)
    with torch.no_grad():
        scale.logit_scale += 3  # a step beyond the limit
    assert scale().item() == pytest.approx(100.0)
    scale.clamp_()
    assert scale.logit_scale.item() == pytest.approx(math.log(100))
    with torch.no_grad():
        scale.logit_scale -= 1
    assert scale().item() == pytest.approx(100 / math.e)


@pytest.mark.parametrize(("init", "maximum"), [(math.nan, None), (math.inf, None), (5.0, 100.0), (-1.0, -3.0)])
def test_wrong_input_is_named(init: float, maximum: float | None) -> None:
    with pytest.raises(ValueError, match=r"init=|maximum="):
        LogitScale(init, maximum=maximum)


def test_it_says_what_it_is() -> None:
    assert repr(LogitScale(-7.0, learned=False)) == "LogitScale(init=-7, learned=False, maximum=None)"
