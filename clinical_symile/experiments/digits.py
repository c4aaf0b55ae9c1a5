"""Experiment ``digits``: two real handwritten digits and their sum modulo 10, of which no pair tells anything.

Symile and CLIP train the same encoders on the same pairs of images. The test images were not among those that the training
pairs were made of. Two questions are asked:

    sum      which of the 10 sums fits the two images?
    image    of all test images, which one fits the other image and the sum? Right if it shows the right digit.

Chance is 1 in 10 for both, and so is what a loss on pairs can learn: each pair is independent, so its best score is constant.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from clinical_symile.contrastive import (
    LogitScale,
    PairwiseCLIPLoss,
    SymileLoss,
    certify_total_correlation,
    pairwise_retrieval_scores,
    retrieval_scores,
)
from clinical_symile.experiments.fitting import UnitVectors, embed, fit_encoders, weights_from
from clinical_symile.experiments.intervals import mean_with_half_width
from clinical_symile.experiments.running import ExperimentConfig
from clinical_symile.simulation.digits import CLASSES, PIXELS, DigitImages, DigitSums, sample_sums, split_images

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LossName = Literal["symile", "clip"]
QUESTIONS = ("sum", "image")


class DigitsConfig(ExperimentConfig):
    """Adding handwritten digits."""

    losses: tuple[LossName, ...] = Field(("symile", "clip"), min_length=1)
    repeats: int = Field(5, ge=1, description="fits with another division of the images and other first weights")
    share_train: float = Field(0.6, gt=0, lt=1, description="of the images")
    share_test: float = Field(0.4, gt=0, lt=1, description="of the images")
    rows_train: int = Field(200_000, ge=2, description="pairs of images, drawn from those for training")
    rows_test: int = Field(5_000, ge=10)
    embed_dim: int = Field(64, ge=1)
    hidden: int = Field(256, ge=1, description="width of the hidden layer of the image encoders")
    epochs: int = Field(2, ge=1, description="few, so that no pair is learned by heart")
    batch_size: int = Field(500, ge=2)
    lr: float = Field(0.003, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    logit_scale_init: float = 2.5

    @model_validator(mode="after")
    def _fits_together(self) -> DigitsConfig:
        if self.share_train + self.share_test > 1:
            raise ValueError(f"share_train={self.share_train} and share_test={self.share_test} add up to more than 1")
        if self.rows_train < self.batch_size:
            raise ValueError(f"rows_train={self.rows_train} is smaller than batch_size={self.batch_size}")
        return self


def cells(config: DigitsConfig) -> list[dict[str, Any]]:
    """One fit per loss and repeat."""
    return [{"loss": loss, "repeat": repeat} for repeat, loss in product(range(config.repeats), config.losses)]


def run_cell(config: DigitsConfig, cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Trains on pairs of training images and asks both questions about pairs of test images."""
    # Equal rows and first weights for the losses of one repeat.
    generator = torch.Generator().manual_seed(1_000 * config.seed + cell["repeat"])
    train, test = split_images((config.share_train, config.share_test), generator)
    rows_train, rows_test = (
        sample_sums(part, n, generator) for part, n in ((train, config.rows_train), (test, config.rows_test))
    )
    with weights_from(generator):
        encoders = nn.ModuleDict({"a": _image_encoder(config), "b": _image_encoder(config), "c": _sum_encoder(config)})
    logit_scale = LogitScale(config.logit_scale_init)
    fit_encoders(
        encoders,
        SymileLoss("n") if cell["loss"] == "symile" else PairwiseCLIPLoss(),
        logit_scale,
        rows_train.modalities(),
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=config.lr,
        weight_decay=config.weight_decay,
        generator=generator,
    )
    row: dict[str, Any] = {**cell, **_accuracies(cell["loss"], encoders, test, rows_test)}
    row["logit_scale"] = logit_scale().item()
    # Test rows share images, so they are no independent draws of images: the certificate is about this bank of images.
    row["certified_nats"] = math.nan
    if cell["loss"] == "symile":
        rows = embed(encoders, rows_test.modalities())
        row["certified_nats"] = certify_total_correlation(rows, logit_scale().detach(), generator=generator).certified
    return [row]


def _image_encoder(config: DigitsConfig) -> nn.Sequential:
    layers = nn.Linear(PIXELS, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.embed_dim)
    return nn.Sequential(*layers, UnitVectors())


def _sum_encoder(config: DigitsConfig) -> nn.Sequential:
    return nn.Sequential(nn.Linear(CLASSES, config.embed_dim), UnitVectors())


def _accuracies(loss: LossName, encoders: nn.ModuleDict, images: DigitImages, rows: DigitSums) -> dict[str, float]:
    """The share of right answers to each question."""
    score = retrieval_scores if loss == "symile" else pairwise_retrieval_scores
    query = embed(encoders, rows.modalities())
    sums = embed(encoders, {"c": torch.eye(CLASSES)})["c"]
    bank = embed(encoders, {"b": images.pixels})["b"]
    found_sum = score(sums, [query["a"], query["b"]]).argmax(dim=1)
    found_digit = images.digits[score(bank, [query["a"], query["c"]]).argmax(dim=1)]
    return {"accuracy_sum": _share(found_sum == rows.digits[:, 2]), "accuracy_image": _share(found_digit == rows.digits[:, 1])}


def _share(right: Tensor) -> float:
    return right.double().mean().item()


def summarise(results: pd.DataFrame, config: DigitsConfig) -> dict[str, float]:
    """Mean accuracies over repeats with 95 % intervals, and the information that is certified (at most log 10 = 2.303)."""
    metrics: dict[str, float] = {"chance": 1 / CLASSES}
    for loss in config.losses:
        rows = results[results["loss"] == loss]
        for question in QUESTIONS:
            metrics |= mean_with_half_width(f"{loss}_{question}", rows[f"accuracy_{question}"].tolist())
    if "symile" in config.losses:
        metrics["symile_certified_nats"] = results[results["loss"] == "symile"]["certified_nats"].mean()
    return metrics


def draw(results: pd.DataFrame, config: DigitsConfig) -> Figure:
    """Accuracy of both losses at both questions, beside chance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.5), layout="constrained")
    axes = figure.subplots()
    metrics = summarise(results, config)
    for place, loss in enumerate(config.losses):
        x = [question + 0.3 * (place - (len(config.losses) - 1) / 2) for question in range(len(QUESTIONS))]
        means = [metrics[f"{loss}_{question}"] for question in QUESTIONS]
        bars = [metrics.get(f"{loss}_{question}_half_width", 0.0) for question in QUESTIONS]
        axes.bar(x, means, width=0.28, yerr=bars, capsize=3, label=loss, color=("#0072B2", "#D55E00")[place])
    axes.axhline(metrics["chance"], color="#7a7a7a", linestyle=":", label="chance, and what a loss on pairs can learn")
    axes.set_xticks(range(len(QUESTIONS)), ["sum from two images", "image from image and sum"])
    axes.set(ylabel="accuracy on held-out images", ylim=(0, 1.02))
    axes.legend()
    return figure
