"""The experiment on Synthetic-XNOR: its cells, its rows, its summary, and the claim it is there to check."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from scipy import stats

from clinical_symile.experiments.xnor import XnorConfig, cells, draw, run_cell, summarise

SMALL = {
    "bits": 4,
    "dimensions": 16,
    "rows_train": 256,
    "rows_validation": 64,
    "rows_test": 128,
    "batch_size": 32,
    "embed_dim": 8,
    "epochs": 2,
    "repeats": 2,
    "corruptions": (0.0, 0.5),
}


def cell(p: float = 0.5, loss: str = "gated", repeat: int = 0) -> dict:
    return {"corruption": p, "loss": loss, "repeat": repeat}


def test_cells_are_the_grid_and_plain_json() -> None:
    config = XnorConfig(**SMALL)
    found = cells(config)
    assert len(found) == 2 * 2 * 4
    assert json.loads(json.dumps(found)) == found
    assert cell(0.5, "clip", 1) in found
    assert len(cells(XnorConfig())) == 5 * 5 * 4


def test_the_preset_says_what_the_defaults_are() -> None:
    folder = Path(__file__).parents[2] / "pipelines" / "experiments"
    assert XnorConfig(**yaml.safe_load((folder / "xnor.yaml").read_text())) == XnorConfig()
    tuning = XnorConfig(**yaml.safe_load((folder / "xnor_tuning.yaml").read_text()))
    assert tuning.seed != XnorConfig().seed
    assert {len(settings) for settings in tuning.settings.values()} == {18}
    for loss, (chosen,) in XnorConfig().settings.items():
        assert chosen in tuning.settings[loss]


def test_runs_of_another_kind_have_another_folder() -> None:
    setting = {"lr": 0.01, "weight_decay": 0.0, "logit_scale_init": 0.0}
    assert XnorConfig().variant() == ""
    assert XnorConfig(hidden=(8,)).variant() == "mlp"
    assert XnorConfig(losses=["clip"], settings={"clip": [setting, setting]}).variant() == "tuning"


@pytest.mark.parametrize("loss", ["symile", "symile_pair", "gated", "clip"])
def test_a_cell_gives_the_same_row_again(loss: str) -> None:
    config = XnorConfig(**SMALL)
    (row,) = run_cell(config, cell(loss=loss))
    torch.manual_seed(123)
    (again,) = run_cell(config, cell(loss=loss))
    assert row == again, "a cell depends on the configuration alone"
    assert row | cell(loss=loss) == row
    assert 0 <= row["accuracy"] <= row["best_guess"] <= 1
    parts = [row[f"accuracy_{name}"] for name in ("clean", "b_wrong", "c_wrong")]
    assert min(parts) <= row["accuracy"] <= max(parts)
    assert json.loads(json.dumps(row)) == row
    assert ("gate_b_b_wrong" in row) == (loss == "gated")
    (other,) = run_cell(config, cell(loss=loss, repeat=1))
    assert other["best_guess"] != row["best_guess"], "another repeat has other rows"


def test_clean_rows_have_no_wrong_modality() -> None:
    (row,) = run_cell(XnorConfig(**SMALL), cell(p=0.0))
    assert row["accuracy"] == row["accuracy_clean"]
    assert math.isnan(row["accuracy_b_wrong"])
    assert "gate_b_b_wrong" not in row


def test_validation_rows_choose_the_setting() -> None:
    good = {"lr": 0.02, "weight_decay": 0.0, "logit_scale_init": 1.0}
    none = good | {"lr": 1e-9}
    settings = {"clip": [none, good]}
    config = XnorConfig(**SMALL | {"settings": settings, "losses": ["clip"], "epochs": 15, "rows_train": 1024})
    (row,) = run_cell(config, cell(loss="clip", p=0.0))
    assert row["lr"] == 0.02
    assert row["settings"] == 2
    assert row["validation_accuracy"] > 0.2


def table(accuracies: dict[tuple[str, float], list[float]]) -> pd.DataFrame:
    return pd.DataFrame(
        {"loss": loss, "corruption": p, "repeat": repeat, "accuracy": accuracy, "best_guess": 0.99}
        for (loss, p), values in accuracies.items()
        for repeat, accuracy in enumerate(values)
    )


def test_summary_compares_repeat_by_repeat() -> None:
    config = XnorConfig(**SMALL | {"losses": ["symile", "gated"], "repeats": 3})
    results = table(
        {
            ("symile", 0.0): [1.0, 0.98, 0.99],
            ("symile", 0.5): [0.8, 0.7, 0.75],
            ("gated", 0.0): [1.0, 0.99, 0.98],
            ("gated", 0.5): [0.95, 0.96, 0.94],
        }
    )
    summary = summarise(results, config)
    assert summary["symile_at_0.5"] == pytest.approx(0.75)
    assert summary["gated_lost_at_0.5"] == pytest.approx((0.05 + 0.03 + 0.04) / 3)
    saves = [0.2 - 0.05, 0.28 - 0.03, 0.24 - 0.04]
    assert summary["gated_saves_at_0.5"] == pytest.approx(sum(saves) / 3)
    interval = stats.t.interval(0.95, 2, loc=sum(saves) / 3, scale=stats.sem(saves))
    assert summary["gated_saves_at_0.5_half_width"] == pytest.approx((interval[1] - interval[0]) / 2)
    assert summary["gated_gains_at_0"] == pytest.approx(0.0)
    assert "symile_lost_at_0" not in summary
    one = summarise(table({("symile", 0.0): [1.0], ("symile", 0.5): [0.5]}), XnorConfig(**SMALL | {"losses": ["symile"]}))
    assert one == {"symile_at_0": 1.0, "symile_at_0.5": 0.5, "symile_lost_at_0.5": 0.5}


def test_the_figure_shows_every_loss_and_the_gates() -> None:
    config = XnorConfig(**SMALL | {"repeats": 2, "losses": ["gated", "clip"]})
    rows = [row for c in cells(config) for row in run_cell(config, c)]
    figure = draw(pd.DataFrame(rows), config)
    labels = {text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()}
    assert {"gated", "clip", "best guess", "chance", "b, b wrong", "c, clean"} <= labels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corruptions": (0.5, 1.5)}, "expected probabilities"),
        ({"settings": {"gated": ()}}, "settings has none for"),
        ({"batch_size": 128}, "larger than one of the samples"),
        ({"dimensions": 11}, "needs 12"),
        ({"epoch": 3}, "epoch"),
    ],
)
def test_wrong_configurations_are_named(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        XnorConfig(**SMALL | change)


@pytest.mark.slow
def test_gates_lose_less_at_one_half_and_nothing_at_zero() -> None:
    config = XnorConfig(rows_train=6000)
    asked = [("gated", 0.0), ("gated", 0.5), ("symile_pair", 0.5)]
    accuracy = {(loss, p): run_cell(config, cell(p, loss))[0]["accuracy"] for loss, p in asked}
    assert accuracy["gated", 0.0] >= 0.99
    assert accuracy["gated", 0.5] >= accuracy["symile_pair", 0.5] + 0.1
