"""A small network reads every sign from 400 examples: otherwise a failure of Symile could be a failure of the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from torch import nn

from clinical_symile.config import SimulationConfig
from clinical_symile.simulation import CHANNEL_NAMES
from clinical_symile.simulation.ecg import render_ecg
from clinical_symile.simulation.labs import lab_values
from clinical_symile.simulation.patients import build_plan
from clinical_symile.simulation.plan import Admission, generator
from clinical_symile.simulation.studies import render_image

TRAIN, TEST, SEED = 400, 200, 11


@pytest.fixture(scope="module")
def admissions() -> list[Admission]:
    plan = build_plan(SimulationConfig(admissions=TRAIN + TEST, seed=SEED))
    return [admission for admission in plan.admissions if admission.kind == "complete"]


def block(inputs: int, outputs: int, dimensions: int) -> nn.Sequential:
    convolution, norm = (nn.Conv1d, nn.BatchNorm1d) if dimensions == 1 else (nn.Conv2d, nn.BatchNorm2d)
    size = 7 if dimensions == 1 else 3
    return nn.Sequential(convolution(inputs, outputs, size, 2, size // 2), norm(outputs), nn.ReLU())


def held_out_accuracy(net: nn.Module, inputs: np.ndarray, signs: np.ndarray, epochs: int) -> dict[str, float]:
    x = torch.tensor((inputs - inputs.mean()) / inputs.std(), dtype=torch.float32)
    y = torch.tensor(signs, dtype=torch.float32)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=epochs * (TRAIN // 40))
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        net.train()
        for batch in torch.randperm(TRAIN, generator=order).split(40):
            optimiser.zero_grad()
            nn.functional.binary_cross_entropy_with_logits(net(x[batch]), y[batch]).backward()
            optimiser.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        right = (net(x[TRAIN:]) > 0) == (y[TRAIN:] > 0)
    return dict(zip(CHANNEL_NAMES, right.float().mean(0).tolist(), strict=True))


def present(severities: Sequence[tuple[float, ...]]) -> np.ndarray:
    return np.array(severities) > 0


@pytest.mark.slow
def test_a_small_cnn_reads_x_rays(admissions: list[Admission]) -> None:
    def thumbnail(admission: Admission) -> np.ndarray:
        """As the demo's encoder sees it: short side 320, centre crop, averaged to 80 x 80."""
        image = Image.fromarray(render_image(admission.images[0], SEED))
        scale = 320 / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - 320) // 2, (image.height - 320) // 2
        crop = np.asarray(image.crop((left, top, left + 320, top + 320)), dtype=np.float32)
        return crop.reshape(80, 4, 80, 4).mean((1, 3))

    torch.manual_seed(0)
    layers = [block(1, 16, 2), block(16, 32, 2), block(32, 64, 2), block(64, 64, 2)]
    net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 25, 5))
    images = np.stack([thumbnail(admission) for admission in admissions])[:, None]
    accuracy = held_out_accuracy(net, images, present([admission.cxr for admission in admissions]), epochs=30)
    assert min(accuracy.values()) > 0.95, accuracy


@pytest.mark.slow
def test_a_small_cnn_reads_ecgs(admissions: list[Admission]) -> None:
    def scaled(admission: Admission) -> np.ndarray:
        """Min-max over the whole record, as the paper's encoder sees it: the voltage itself is lost."""
        study = admission.ecgs[0]
        adc = render_ecg(study.shows, study.age, generator(SEED, "ecg", study.key)).astype(np.float32)
        return (2 * (adc - adc.min()) / np.ptp(adc) - 1).T.reshape(12, 1250, 4).mean(2)

    torch.manual_seed(0)
    layers = [block(12, 24, 1), block(24, 32, 1), block(32, 48, 1), block(48, 64, 1), block(64, 64, 1)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 5))
    ecgs = np.stack([scaled(admission) for admission in admissions])
    accuracy = held_out_accuracy(net, ecgs, present([admission.ecg for admission in admissions]), epochs=30)
    assert min(accuracy.values()) > 0.95, accuracy


def test_a_linear_model_reads_percentiles_of_labs(admissions: list[Admission]) -> None:
    severities = np.array([admission.labs for admission in admissions])
    male = np.array([admission.patient.gender == "M" for admission in admissions])
    values = lab_values(severities, male, np.arange(len(admissions)), np.random.default_rng(0))
    percentiles = rankdata(values, axis=0) / len(values)
    for channel, name in enumerate(CHANNEL_NAMES):
        sign = severities[:, channel] > 0
        model = LogisticRegression(C=100, max_iter=2000).fit(percentiles[:TRAIN], sign[:TRAIN])
        assert model.score(percentiles[TRAIN:], sign[TRAIN:]) > 0.95, name
