"""Experiment ``xnor``: how much accuracy each loss gives up when one modality is sometimes wrong.

``a`` is retrieved from ``b`` and ``c`` among the rows of a test batch, on Synthetic-XNOR (``simulation.xnor``). For every
probability of corruption, in training and test alike, four losses train the same encoders on the same rows:

    symile        the Symile loss, all N^2 tuples as negatives
    symile_pair   Symile's score with the negatives of Gated Symile (other rows of the target): what the gate starts from
    gated         Gated Symile: the same, with gates
    clip          the pairwise losses

Source: Rheude et al. 2026, https://arxiv.org/abs/2604.05834, the benchmark Synthetic-XNOR.
"""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from clinical_symile.config import Section
from clinical_symile.contrastive import LogitScale, PairwiseCLIPLoss, SymileLoss, pairwise_retrieval_scores, retrieval_scores
from clinical_symile.contrastive.gate_alarm import collapse_alarm, gate_report
from clinical_symile.contrastive.gated_loss import GatedSymileLoss
from clinical_symile.contrastive.gated_scores import gated_retrieval_scores
from clinical_symile.contrastive.gates import Gates
from clinical_symile.experiments.fitting import UnitVectors, embed, fit_encoders, weights_from
from clinical_symile.experiments.intervals import mean_with_half_width
from clinical_symile.experiments.running import ExperimentConfig
from clinical_symile.simulation.xnor import NAMES, XnorSample, matching_accuracy, sample_xnor

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LossName = Literal["symile", "symile_pair", "gated", "clip"]
TARGET: Final = "a"
QUERY: Final = ("b", "c")
WRONG: Final = ("clean", "b_wrong", "c_wrong")
_OPEN: Final = -50.0
"""Strength of gates that are not applied at all: alpha = 2e-22."""


class Setting(Section):
    """How one loss is trained."""

    lr: float = Field(gt=0, description="AdamW's learning rate at its highest, of encoders, scale and gates")
    weight_decay: float = Field(ge=0, description="AdamW's, of the encoders")
    logit_scale_init: float = Field(description="logarithm of the scale at the start; scores of products count d for M = 3")
    gate_strength: float = Field(3.0, description="where the logit of alpha starts; for gated alone, as the next")
    gate_temperature: float = Field(0.8, gt=0, description="where the gates' temperature starts")


def _one(lr: float, weight_decay: float, logit_scale_init: float) -> tuple[Setting, ...]:
    return (Setting(lr=lr, weight_decay=weight_decay, logit_scale_init=logit_scale_init),)


class XnorConfig(ExperimentConfig):
    """Synthetic-XNOR. Where a loss has several settings, validation rows choose among them in every cell."""

    corruptions: tuple[float, ...] = Field((0.0, 0.25, 0.5, 0.75, 1.0), description="p: rows with one wrong modality")
    losses: tuple[LossName, ...] = Field(("symile", "symile_pair", "gated", "clip"), min_length=1)
    repeats: int = Field(5, ge=1, description="fits with different rows and first weights; intervals are over them")
    bits: int = Field(16, ge=1, description="of u and of v")
    dimensions: int = Field(128, ge=3, description="of each modality; what the signal leaves is noise")
    noise: float = Field(3.0, ge=0, description="standard deviation of the noise; the signal has size 1")
    rows_train: int = Field(10_000, ge=2)
    rows_validation: int = Field(2_560, ge=2)
    rows_test: int = Field(5_120, ge=2)
    embed_dim: int = Field(64, ge=1, description="d, and the rows of the gates' matrices")
    hidden: tuple[int, ...] = Field((), description="widths of the encoders' hidden layers; none: linear encoders")
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(128, ge=2, description="of training, and the number of candidates in the test")
    settings: dict[LossName, tuple[Setting, ...]] = Field(
        {
            "symile": _one(0.002, 5.0, 0.0),
            "symile_pair": _one(0.002, 5.0, 0.0),
            "gated": _one(0.012, 5.0, -1.5),
            "clip": _one(0.002, 5.0, 1.0),
        },
        description="chosen on validation rows at p = 0.5, see pipelines/experiments/xnor_tuning.yaml",
    )

    def variant(self) -> str:
        """``tuning`` where settings are chosen from several, ``mlp`` for encoders with hidden layers."""
        return "tuning" if any(len(settings) > 1 for settings in self.settings.values()) else "mlp" if self.hidden else ""

    @model_validator(mode="after")
    def _fits_together(self) -> XnorConfig:
        if any(not 0 <= p <= 1 for p in self.corruptions) or not self.corruptions:
            raise ValueError(f"corruptions={self.corruptions}; expected probabilities in [0, 1]")
        lacking = [loss for loss in self.losses if not self.settings.get(loss)]
        if lacking:
            raise ValueError(f"settings has none for {lacking}; give each loss at least one")
        smallest = min(self.rows_train, self.rows_validation, self.rows_test)
        if smallest < self.batch_size:
            raise ValueError(f"batch_size={self.batch_size} is larger than one of the samples, of {smallest} rows")
        if self.dimensions < 3 * self.bits:
            raise ValueError(f"dimensions={self.dimensions}, but the signal of {self.bits} bits needs {3 * self.bits}")
        return self


def cells(config: XnorConfig) -> list[dict[str, Any]]:
    """One fit, or one choice among settings, per loss, probability and repeat."""
    grid = product(range(config.repeats), config.corruptions, config.losses)
    return [{"corruption": p, "loss": loss, "repeat": repeat} for repeat, p, loss in grid]


def run_cell(config: XnorConfig, cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Fits every setting of the loss, keeps the one with the best validation accuracy, and tests it."""
    # The losses of one repeat see the same rows; the rows at two probabilities differ only by the corruption.
    rows = torch.Generator().manual_seed(1_000 * config.seed + cell["repeat"])
    sizes = (config.rows_train, config.rows_validation, config.rows_test)
    train, validation, test = (
        sample_xnor(n, config.bits, cell["corruption"], rows, dimensions=config.dimensions, noise=config.noise) for n in sizes
    )
    fits = []
    for setting in config.settings[cell["loss"]]:
        fitted = _fit(config, cell, setting, train)
        found = _found(cell["loss"], *fitted, validation, config.batch_size)
        fits.append((found.double().mean().item(), setting, fitted))
    accuracy, setting, (encoders, gates) = max(fits, key=lambda fit: fit[0])
    found = _found(cell["loss"], encoders, gates, test, config.batch_size).double()
    corrupted = test.corrupted[: len(found)]
    row: dict[str, Any] = {
        **cell,
        "accuracy": found.mean().item(),
        **{f"accuracy_{name}": _mean(found[corrupted == which]) for which, name in enumerate(WRONG)},
        "best_guess": matching_accuracy(test, config.batch_size),
        "validation_accuracy": accuracy,
        "settings": len(fits),
        **setting.model_dump(include={"lr", "weight_decay", "logit_scale_init"}),
    }
    if gates is not None:
        row |= setting.model_dump(include={"gate_strength", "gate_temperature"}) | _gates(gates, encoders, test)
    return [row]


def _fit(config: XnorConfig, cell: dict[str, Any], setting: Setting, train: XnorSample) -> tuple[nn.ModuleDict, Gates | None]:
    """The encoders after training, and the gates where the score has them."""
    # Not the generator of the rows: equal first weights and batches for all losses and settings of a repeat.
    generator = torch.Generator().manual_seed(1_000 * config.seed + 500 + cell["repeat"])
    with weights_from(generator):
        encoders = nn.ModuleDict({name: _encoder(config) for name in NAMES})
    loss = _loss(cell["loss"], setting, config.embed_dim, generator)
    # The scores of the gated loss have d^((M-1)/2) = d in them; a MIP of unit vectors is smaller by that factor.
    offset = math.log(config.embed_dim) if cell["loss"] == "symile" else 0.0
    fit_encoders(
        encoders,
        loss,
        LogitScale(setting.logit_scale_init + offset),
        train.modalities(),
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=setting.lr,
        weight_decay=setting.weight_decay,
        generator=generator,
    )
    return encoders, loss.gates if isinstance(loss, GatedSymileLoss) and cell["loss"] == "gated" else None


def _encoder(config: XnorConfig) -> nn.Sequential:
    widths = [config.dimensions, *config.hidden, config.embed_dim]
    layers: list[nn.Module] = []
    for width, following in pairwise(widths):
        layers += [nn.Linear(width, following), nn.ReLU()]
    return nn.Sequential(*layers[:-1], UnitVectors())


def _loss(name: LossName, setting: Setting, embed_dim: int, generator: torch.Generator) -> nn.Module:
    if name == "symile":
        return SymileLoss("n_squared")
    if name == "clip":
        return PairwiseCLIPLoss()
    gated = GatedSymileLoss(
        NAMES,
        embed_dim,
        key_dim=embed_dim,
        temperature=setting.gate_temperature,
        strength=setting.gate_strength if name == "gated" else _OPEN,
        generator=generator,
    )
    return gated if name == "gated" else gated.requires_grad_(False)


def _found(name: LossName, encoders: nn.ModuleDict, gates: Gates | None, rows: XnorSample, batch_size: int) -> Tensor:
    """Whether each row's own candidate scores highest in its batch, (n,) bool; a smaller last batch is left out."""
    representations = embed(encoders, rows.modalities())
    found = []
    for start in range(0, len(rows.a) - batch_size + 1, batch_size):
        batch = {key: tensor[start : start + batch_size] for key, tensor in representations.items()}
        query = {key: batch[key] for key in QUERY}
        with torch.no_grad():
            if gates is not None:
                scores = gated_retrieval_scores(gates, TARGET, batch[TARGET], query)
            else:
                score = pairwise_retrieval_scores if name == "clip" else retrieval_scores
                scores = score(batch[TARGET], list(query.values()))
        found.append(scores.argmax(dim=1) == torch.arange(batch_size))
    return torch.cat(found)


def _gates(gates: Gates, encoders: nn.ModuleDict, test: XnorSample) -> dict[str, Any]:
    """Mean gates over the true pairs of clean and of corrupted rows, and what the alarm says."""
    columns: dict[str, Any] = {"alpha": gates.alpha().item()}
    for which, name in enumerate(WRONG):
        chosen = {key: tensor[test.corrupted == which] for key, tensor in test.modalities().items()}
        if len(chosen[TARGET]) < 2:
            continue
        report = gate_report(gates, {key: tensor[:1000] for key, tensor in embed(encoders, chosen).items()})
        columns |= {f"gate_{s.modality}_{name}": s.gate_true for s in report.statistics if s.target == TARGET}
    report = gate_report(gates, {key: tensor[:1000] for key, tensor in embed(encoders, test.modalities()).items()})
    return columns | {"alarms": len(collapse_alarm(report)), "p_null": report.p_null[TARGET]}


def _mean(values: Tensor) -> float:
    return values.mean().item() if len(values) else math.nan


def summarise(results: pd.DataFrame, config: XnorConfig) -> dict[str, float]:
    """Accuracies, what corruption costs each loss, and by how much gates lower that cost, with 95 % intervals over repeats.

    ``<loss>_at_<p>``: mean accuracy. ``<loss>_lost_at_<p>``: accuracy at the lowest p minus the one at p, repeat by repeat.
    ``gated_saves_at_<p>``: what ``symile`` loses minus what ``gated`` loses. ``gated_gains_at_<p>``: accuracy of ``gated``
    minus the one of ``symile``.
    """
    table = results.pivot(index="repeat", columns=["loss", "corruption"], values="accuracy")
    lowest = min(config.corruptions)
    metrics: dict[str, float] = {}
    for loss, p in product(config.losses, config.corruptions):
        metrics |= mean_with_half_width(f"{loss}_at_{p:g}", table[loss][p].tolist())
        if p != lowest:
            metrics |= mean_with_half_width(f"{loss}_lost_at_{p:g}", (table[loss][lowest] - table[loss][p]).tolist())
    if {"symile", "gated"} <= set(config.losses):
        for p in config.corruptions:
            gains = table["gated"][p] - table["symile"][p]
            metrics |= mean_with_half_width(f"gated_gains_at_{p:g}", gains.tolist())
            if p != lowest:
                saves = gains - (table["gated"][lowest] - table["symile"][lowest])
                metrics |= mean_with_half_width(f"gated_saves_at_{p:g}", saves.tolist())
    return metrics


def draw(results: pd.DataFrame, config: XnorConfig) -> Figure:
    """Accuracy over p for each loss, with intervals, the best guess above it; beside it what the gates do."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    summary = summarise(results, config)
    for loss in config.losses:
        means = [summary[f"{loss}_at_{p:g}"] for p in config.corruptions]
        bars = [summary.get(f"{loss}_at_{p:g}_half_width", 0.0) for p in config.corruptions]
        left.errorbar(config.corruptions, means, yerr=bars, marker="o", capsize=3, label=loss.replace("_", ", "))
    best = results.groupby("corruption")["best_guess"].mean()
    left.plot(best.index, best.to_numpy(), "k--", label="best guess")
    left.axhline(1 / config.batch_size, color="grey", linestyle=":", label="chance")
    left.set(xlabel="p, rows with one wrong modality", ylabel=f"top-1 of {config.batch_size}", ylim=(0, 1.02))
    left.legend()
    gated = results[results["loss"] == "gated"].groupby("corruption").mean(numeric_only=True)
    for modality, marker, colour in zip(QUERY, "os", ("#0072B2", "#D55E00"), strict=True):
        for name, style in zip(WRONG, ("-", "--", ":"), strict=True):
            column, label = f"gate_{modality}_{name}", f"{modality}, {name.replace('_', ' ')}"
            if column in gated:
                right.plot(gated.index, gated[column], marker=marker, linestyle=style, color=colour, label=label)
    right.set(xlabel="p, rows with one wrong modality", ylabel="mean gate of the true candidate", ylim=(0, 1.02))
    if not gated.empty:
        right.legend()
    return figure
