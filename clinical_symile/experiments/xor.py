"""Experiment ``xor``: figure 3 of the paper, with the best possible guess beside it.

Linear encoders learn from ``a``, ``b`` and ``c`` of the XOR family (``simulation.xor``) and are asked for ``b`` given ``a`` and
``c``, every vector being a candidate. The best guess is ``b = a xor c`` whatever p; it is right with probability
``2^-d + p (1 - 2^-d)``. The score of a linear encoder can express it: with signs A, B, C of the bits,
``sum_j A_j B_j C_j`` is largest there. A sum of scores of pairs cannot express it, and pairs give it nothing to learn: b is
independent of a, and of c. What such a sum then guesses is decided by noise, and right by chance on average over fits; a single
fit of 1 bit, asked only four different questions, can be right in up to three of them.

Three kinds, each with defaults of its own:

* three modalities, over p;
* ``modalities`` > 3: parity, where any modality follows from all the others and from no fewer;
* ``missing``: each modality is absent from a share of the training rows; three ways to use what is left.

Source: Saporta et al. 2024, https://arxiv.org/abs/2411.01053, figure 3; the sharing of missing modalities as in figure 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from clinical_symile.contrastive import (
    LogitScale,
    MissingRepresentation,
    PairwiseCLIPLoss,
    SymileLoss,
    pairwise_retrieval_scores,
    retrieval_scores,
)
from clinical_symile.experiments.fitting import UnitVectors, embed, fit_encoders, weights_from
from clinical_symile.experiments.intervals import half_width, mean_with_half_width
from clinical_symile.experiments.running import ExperimentConfig
from clinical_symile.simulation.xor import NAMES, all_bit_vectors, bit_vector_rows, sample_xor, xor_information

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LossName = Literal["symile", "clip", "symile_stand_in", "symile_masked", "symile_complete"]
_WITH_MISSING: Final = ("symile_stand_in", "symile_masked", "symile_complete", "clip")
_PARITY: Final[Mapping[str, Any]] = {
    "p_hat": (1.0,),
    "bits": (1,),
    "epochs": 10,
    "lr": 0.03,
    "weight_decay": 0.01,
    "logit_scale_init": 0.0,
    # The product of 8 unit vectors of 16 numbers has next to no gradient; free lengths let it grow.
    "unit_vectors": False,
}
_MISSING: Final[Mapping[str, Any]] = {
    "p_hat": (1.0,),
    "bits": (5,),
    "losses": _WITH_MISSING,
    "repeats": 3,
    "weight_decay": 0.3,
}
"""What other defaults a kind has."""


class XorConfig(ExperimentConfig):
    """The XOR family. Defaults depend on ``modalities`` and ``missing``; those below are of three modalities, none missing."""

    modalities: int = Field(3, ge=3, le=16, description="3, or more for parity")
    missing: tuple[float, ...] = Field((), description="shares of training rows that lack each modality; none: all complete")
    p_hat: tuple[float, ...] = Field(tuple(k / 10 for k in range(11)), min_length=1, description="probability of c = a xor b")
    bits: tuple[int, ...] = Field((1, 5), min_length=1, description="d, bits of each vector, at most 10")
    losses: tuple[LossName, ...] = Field(
        ("symile", "clip"), min_length=1, description="with missing modalities: symile_stand_in, _masked, _complete and clip"
    )
    repeats: int = Field(5, ge=1, description="fits with other rows and other first weights; intervals are over them")
    rows_train: int = Field(10_000, ge=2)
    rows_test: int = Field(5_000, ge=1, description="complete, whatever is missing in training")
    embed_dim: int = Field(16, ge=1)
    unit_vectors: bool = Field(True, description="encoders end in an L2 norm")
    epochs: int = Field(40, ge=1)
    batch_size: int = Field(250, ge=2)
    lr: float = Field(0.1, gt=0)
    weight_decay: float = Field(1.0, ge=0, description="less lets the encoders learn 10,000 rows by heart at small p_hat")
    schedule: Literal["constant", "cosine"] = "cosine"
    logit_scale_init: float = -0.3

    def variant(self) -> str:
        """Parity and missing modalities have folders of their own."""
        parity = f"parity{self.modalities}" if self.modalities > 3 else ""
        return "_".join(part for part in (parity, "missing" if self.missing else "") if part)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kind(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        parity = isinstance(data.get("modalities"), int) and data["modalities"] > 3
        return {**(_MISSING if data.get("missing") else {}), **(_PARITY if parity else {}), **data}

    @model_validator(mode="after")
    def _fits_together(self) -> XorConfig:
        for name, values in (("p_hat", self.p_hat), ("missing", self.missing)):
            if not all(0 <= value <= 1 for value in values):
                raise ValueError(f"{name}={list(values)}; expected numbers from 0 to 1")
        if not all(1 <= bits <= 10 for bits in self.bits):
            raise ValueError(f"bits={list(self.bits)}; expected 1 to 10: all 2^bits vectors are candidates")
        if 1.0 in self.missing:
            raise ValueError("missing=1 leaves nothing to train on; stay below 1")
        if self.modalities > 3 and set(self.p_hat) != {1.0}:
            raise ValueError(f"p_hat={list(self.p_hat)}; more than 3 modalities are defined as a parity, with p_hat = 1")
        allowed = _WITH_MISSING if self.missing else ("symile", "clip")
        if not set(self.losses) <= set(allowed):
            raise ValueError(f"losses={list(self.losses)}; choose from {list(allowed)}, given missing={list(self.missing)}")
        if self.rows_train < self.batch_size:
            raise ValueError(f"rows_train={self.rows_train} is smaller than batch_size={self.batch_size}")
        return self


def cells(config: XorConfig) -> list[dict[str, Any]]:
    """One fit for each loss, setting of the law and repeat."""
    grid = product(range(config.repeats), config.missing or (None,), config.bits, config.p_hat, config.losses)
    found = []
    for repeat, missing, bits, p_hat, loss in grid:
        law = {"bits": bits, "p_hat": p_hat} if missing is None else {"bits": bits, "p_hat": p_hat, "missing": missing}
        found.append({**law, "loss": loss, "repeat": repeat})
    return found


def run_cell(config: XorConfig, cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Trains once and asks for ``b``; for every modality in turn where it is parity."""
    # Equal rows, absences and first weights for the losses of one repeat; rows at two p_hat differ only by their coins.
    generator = torch.Generator().manual_seed(1_000 * config.seed + cell["repeat"])
    names = NAMES if config.modalities == 3 else tuple(f"m{k}" for k in range(1, config.modalities + 1))
    bits, p_hat, loss = cell["bits"], cell["p_hat"], cell["loss"]
    train, test = (
        dict(zip(names, sample_xor(n, bits, p_hat, generator, config.modalities), strict=True))
        for n in (config.rows_train, config.rows_test)
    )
    present = None
    if "missing" in cell:
        present = {name: torch.rand(config.rows_train, generator=generator) >= cell["missing"] for name in names}
    with weights_from(generator):
        encoders = nn.ModuleDict({name: _encoder(config, bits) for name in names})
    logit_scale = LogitScale(config.logit_scale_init)
    _fit(config, loss, encoders, logit_scale, train, present, generator)
    right = {target: _right(loss, encoders, test, target, bits) for target in (("b",) if len(names) == 3 else names)}
    row = {**cell, "chance": 2.0**-bits, "logit_scale": logit_scale().item()}
    if len(names) > 3:
        return [{**row, "target": target, "accuracy": share, "bayes_accuracy": 1.0} for target, share in right.items()]
    known = xor_information(bits, p_hat)
    return [
        {
            **row,
            "target": "b",
            "accuracy": right["b"],
            "exact_accuracy": _exact_accuracy(loss, encoders, bits, p_hat),
            "bayes_accuracy": known.bayes_accuracy,
            "total_correlation": known.total_correlation,
            "i_ac": known.i_ac,
            "i_bc": known.i_bc,
            "i_bc_given_a": known.i_bc_given_a,
        }
    ]


def _encoder(config: XorConfig, bits: int) -> nn.Sequential:
    linear = nn.Linear(bits, config.embed_dim)
    return nn.Sequential(linear, UnitVectors()) if config.unit_vectors else nn.Sequential(linear)


def _fit(
    config: XorConfig,
    loss: LossName,
    encoders: nn.ModuleDict,
    logit_scale: LogitScale,
    data: Mapping[str, Tensor],
    present: Mapping[str, Tensor] | None,
    generator: torch.Generator,
) -> None:
    """Trains for as many steps as there are with all rows, whatever the loss leaves out."""
    batch_size, epochs, fill = config.batch_size, config.epochs, None
    if present is not None and loss == "symile_complete":
        complete = torch.stack(list(present.values())).all(dim=0)
        data, present, rows = {name: tensor[complete] for name, tensor in data.items()}, None, int(complete.sum())
        if rows < 2:
            raise ValueError(f"{rows} of {config.rows_train} rows have all modalities; use more rows, or a smaller share missing")
        steps = epochs * (config.rows_train // batch_size)
        batch_size = min(batch_size, rows)
        epochs = max(1, steps // (rows // batch_size))
    if loss == "symile_stand_in":
        fill = MissingRepresentation(list(data), config.embed_dim, start=0.0)
    fit_encoders(
        encoders,
        PairwiseCLIPLoss() if loss == "clip" else SymileLoss("n"),
        logit_scale,
        data,
        epochs=epochs,
        batch_size=batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        generator=generator,
        present=present,
        fill=fill,
        schedule=config.schedule,
    )


def _guess(loss: LossName, encoders: nn.ModuleDict, query: Mapping[str, Tensor], target: str, bits: int) -> Tensor:
    """The best of all vectors for the target, as its row of ``all_bit_vectors``, (n,)."""
    score = pairwise_retrieval_scores if loss == "clip" else retrieval_scores
    candidates = embed(encoders, {target: all_bit_vectors(bits)})[target]
    return score(candidates, list(embed(encoders, query).values())).argmax(dim=1)


def _right(loss: LossName, encoders: nn.ModuleDict, rows: Mapping[str, Tensor], target: str, bits: int) -> float:
    """The share of rows whose target is guessed from all the other modalities."""
    query = {name: tensor for name, tensor in rows.items() if name != target}
    return (_guess(loss, encoders, query, target, bits) == bit_vector_rows(rows[target])).double().mean().item()


def _exact_accuracy(loss: LossName, encoders: nn.ModuleDict, bits: int, p_hat: float) -> float:
    """The accuracy on infinitely many rows: the law's probability of (a, guess, c), added up over all a and c."""
    vectors, count = all_bit_vectors(bits), 2**bits
    a = torch.arange(count).repeat_interleave(count)
    c = torch.arange(count).repeat(count)
    guess = _guess(loss, encoders, {"a": vectors[a], "c": vectors[c]}, "b", bits)
    probability = (p_hat * (guess == a ^ c).double() + (1 - p_hat) * (a == c).double()) / count**2
    return probability.sum().item()


def summarise(results: pd.DataFrame, config: XorConfig) -> dict[str, float]:
    """Accuracies with intervals over repeats, which hold for all points of a curve together with 95 %.

    ``<loss>_bits<d>_at_<p_hat>``, ``<loss>_missing_<share>`` or, for parity, ``<loss>_bits<d>``: mean accuracy on test rows.
    ``<loss>_bits<d>_short_of_bayes``: how far the exact accuracy, averaged over repeats, is below the best guess at the p_hat
    where it is farthest. ``<loss>_points_at_bayes`` and ``_at_chance``: at how many of ``points`` the interval covers it.
    """
    metrics: dict[str, float] = {}
    counts = {f"{loss}_points_at_{line}": 0.0 for loss in config.losses for line in ("bayes", "chance")}
    for (loss, bits), curve in results.groupby(["loss", "bits"], sort=False):
        for place, values, point in _points(curve, config):
            name = f"{loss}_bits{bits}{place}"
            metrics |= mean_with_half_width(name, values, _confidence(config))
            for line in ("bayes", "chance"):
                truth = point["bayes_accuracy" if line == "bayes" else line].iloc[0]
                counts[f"{loss}_points_at_{line}"] += _covers(values, truth, _confidence(config))
        if "exact_accuracy" in curve:
            axis = curve.groupby(["missing", "p_hat"] if config.missing else ["p_hat"])
            short = axis["bayes_accuracy"].mean() - axis["exact_accuracy"].mean()
            metrics[f"{loss}_bits{bits}_short_of_bayes"] = float(short.max())
    points = len(config.bits) * len(config.p_hat) * max(1, len(config.missing))
    return {**metrics, **(counts if config.repeats > 1 else {}), "points": float(points)}


def _points(curve: pd.DataFrame, config: XorConfig) -> list[tuple[str, list[float], pd.DataFrame]]:
    """For each point of a curve: how its name ends, the accuracies of the repeats, its rows."""
    keys = [key for key in ("missing", "p_hat") if key in curve and len(getattr(config, key)) > 1] or ["bits"]
    found = []
    for values, rows in curve.groupby(keys):
        ends = "".join(f"_{'at' if key == 'p_hat' else key}_{value:g}" for key, value in zip(keys, values, strict=True))
        accuracies = rows.groupby("repeat")["accuracy"].mean().tolist()  # the mean over targets, where there are several
        found.append(("" if keys == ["bits"] else ends, accuracies, rows))
    return found


def _confidence(config: XorConfig) -> float:
    """Of each point's interval, so that all intervals of a curve hold together with at least 95 % (Bonferroni)."""
    return 1 - 0.05 / (len(config.p_hat) * max(1, len(config.missing)))


def _covers(values: list[float], truth: float, confidence: float) -> bool:
    if len(values) < 2:
        return False
    # A little room for values that are all equal to the truth, such as 1.
    return abs(sum(values) / len(values) - truth) <= half_width(values, confidence) + 1e-9


def draw(results: pd.DataFrame, config: XorConfig) -> Figure:
    """Accuracy of each loss beside the best guess and chance; over p_hat, also what the modalities tell each other."""
    from clinical_symile.experiments.xor_figure import draw_xor

    return draw_xor(results, config, _confidence(config))
