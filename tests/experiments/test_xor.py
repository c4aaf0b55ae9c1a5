"""The experiment on the XOR family: its cells, its rows, its summary, and the claims it is there to check."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
import torch
import yaml
from click.testing import Result
from pydantic import ValidationError
from torch import nn
from typer.testing import CliRunner

from clinical_symile.cli.main import app
from clinical_symile.errors import ConfigError
from clinical_symile.experiments import xor
from clinical_symile.experiments.intervals import half_width
from clinical_symile.experiments.xor import XorConfig, cells, draw, run_cell, summarise
from clinical_symile.simulation.xor import xor_bayes_accuracy

PRESETS = Path(__file__).resolve().parents[2] / "pipelines" / "experiments"
TINY = {"bits": (2,), "repeats": 2, "rows_train": 200, "rows_test": 50, "epochs": 1, "batch_size": 50, "embed_dim": 4}


def cell(p_hat: float = 1.0, bits: int = 2, loss: str = "symile", repeat: int = 0, **more: float) -> dict:
    return {"bits": bits, "p_hat": p_hat, **more, "loss": loss, "repeat": repeat}


def signs(config: XorConfig, bits: int) -> nn.Sequential:
    """The encoder whose products are the best guess: 0 and 1 become -1 and 1, up to a sign."""
    linear = nn.Linear(bits, bits)
    with torch.no_grad():
        linear.weight.copy_(-2 * torch.eye(bits))
        linear.bias.fill_(1.0)
    return nn.Sequential(linear)


def results_of(config: XorConfig) -> pd.DataFrame:
    return pd.DataFrame([row for work in cells(config) for row in run_cell(config, work)])


def test_cells_are_the_grid_and_plain_json() -> None:
    found = cells(XorConfig())
    assert len(found) == 5 * 2 * 11 * 2
    assert json.loads(json.dumps(found)) == found
    assert cell(0.3, 5, "clip", 4) in found
    missing = cells(XorConfig(missing=(0.0, 0.7)))
    assert len(missing) == 3 * 2 * 4
    assert cell(1.0, 5, "symile_masked", 2, missing=0.7) in missing


def test_presets() -> None:
    found = {name: XorConfig(**yaml.safe_load((PRESETS / f"{name}.yaml").read_text())) for name in
             ("xor", "xor_parity", "xor_missing", "xor_paper")}  # fmt: skip
    assert found["xor"] == XorConfig()
    assert found["xor_parity"] == XorConfig(modalities=8)
    assert found["xor_missing"] == XorConfig(missing=(0, 0.3, 0.5, 0.7))
    assert [config.variant() for config in found.values()] == ["", "parity8", "missing", ""]


def test_what_a_user_sets_comes_before_the_defaults_of_the_kind() -> None:
    config = XorConfig(modalities=4, lr=0.5)
    assert config.lr == 0.5
    assert not config.unit_vectors
    # The runner hands configurations on as JSON.
    for given in (config, XorConfig(missing=(0.5,)), XorConfig()):
        assert XorConfig.model_validate_json(given.model_dump_json()) == given


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"p_hat": (1.5,)}, r"p_hat=\[1.5\]"),
        ({"bits": (11,)}, r"bits=\[11\]"),
        ({"missing": (1.0,)}, "leaves nothing to train on"),
        ({"modalities": 4, "p_hat": (0.5,)}, "defined as a parity"),
        ({"losses": ("symile_masked",)}, "choose from"),
        ({"missing": (0.5,), "losses": ("symile",)}, "symile_stand_in"),
        ({"rows_train": 10}, "smaller than batch_size"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        XorConfig(**settings)


@pytest.mark.parametrize("p_hat", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("bits", [1, 3])
def test_the_best_guess_is_in_reach_of_linear_encoders(monkeypatch: pytest.MonkeyPatch, p_hat: float, bits: int) -> None:
    """Planted encoders give the Bayes accuracy of the closed form to the last digit, and close to it on test rows."""
    monkeypatch.setattr(xor, "_encoder", signs)
    monkeypatch.setattr(xor, "_fit", lambda *arguments: None)
    (row,) = run_cell(XorConfig(rows_test=4_000), cell(p_hat, bits))
    assert row["exact_accuracy"] == pytest.approx(xor_bayes_accuracy(bits, p_hat), abs=1e-12)
    assert row["bayes_accuracy"] == xor_bayes_accuracy(bits, p_hat)
    assert row["accuracy"] == pytest.approx(row["bayes_accuracy"], abs=0.04)


def test_rows_do_not_depend_on_what_ran_before() -> None:
    config = XorConfig(**TINY)
    torch.manual_seed(1)
    first = run_cell(config, cell())
    torch.rand(3)
    assert run_cell(config, cell()) == first
    assert run_cell(config, cell(repeat=1)) != first
    assert run_cell(XorConfig(**TINY, seed=1), cell()) != first


def test_results_summary_and_figure() -> None:
    config = XorConfig(**TINY, p_hat=(0.0, 1.0))
    results = results_of(config)
    found = summarise(results, config)
    assert found["points"] == 2
    values = results[(results["loss"] == "symile") & (results["p_hat"] == 1.0)]["accuracy"].tolist()
    assert found["symile_bits2_at_1"] == pytest.approx(sum(values) / 2)
    # Two points share the 5 %.
    assert found["symile_bits2_at_1_half_width"] == pytest.approx(half_width(values, 0.975))
    one = results[(results["loss"] == "clip")].groupby("p_hat")[["bayes_accuracy", "exact_accuracy"]].mean()
    assert found["clip_bits2_short_of_bayes"] == pytest.approx((one["bayes_accuracy"] - one["exact_accuracy"]).max())
    figure = draw(results, config)
    assert len(figure.axes) == 2
    assert "I(a; c)" in [text.get_text() for text in figure.axes[1].get_legend().get_texts()]


def test_points_are_counted_where_the_interval_covers_the_line() -> None:
    config = XorConfig(bits=(1,), p_hat=(0.5, 1.0), losses=("symile",), repeats=3)
    shares = {0.5: (0.74, 0.75, 0.76), 1.0: (0.90, 0.91, 0.90)}
    rows = [
        {**cell(p_hat, 1, repeat=repeat), "accuracy": accuracy, "exact_accuracy": accuracy, "chance": 0.5,
         "bayes_accuracy": xor_bayes_accuracy(1, p_hat)}
        for p_hat, accuracies in shares.items()
        for repeat, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    found = summarise(pd.DataFrame(rows), config)
    assert found["symile_points_at_bayes"] == 1, "at 0.5, not at 1"
    assert found["symile_points_at_chance"] == 0
    assert found["symile_bits1_short_of_bayes"] == pytest.approx(1 - 2.71 / 3)


def test_parity_asks_for_every_modality() -> None:
    config = XorConfig(**TINY, modalities=4)
    results = results_of(config)
    assert sorted(set(results["target"])) == ["m1", "m2", "m3", "m4"]
    found = summarise(results, config)
    mean = results[results["loss"] == "symile"]["accuracy"].mean()
    assert found["symile_bits2"] == pytest.approx(mean)
    assert len(draw(results, config).axes) == 1


def test_missing_modalities(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {}

    def looks(encoders, loss, scale, data, **options):
        given[looks.loss] = (data, options)

    monkeypatch.setattr(xor, "fit_encoders", looks)
    config = XorConfig(**{**TINY, "rows_train": 1_000}, missing=(0.5,))
    for loss in config.losses:
        looks.loss = loss
        (row,) = run_cell(config, cell(loss=loss, missing=0.5))
        assert row["missing"] == 0.5
    for loss in ("symile_masked", "symile_stand_in", "clip"):
        data, options = given[loss]
        assert len(data["a"]) == 1_000
        assert 0.4 < torch.stack(list(options["present"].values())).double().mean() < 0.6
    assert given["symile_stand_in"][1]["fill"] is not None
    assert given["symile_masked"][1]["fill"] is None
    data, options = given["symile_complete"]
    complete = torch.stack(list(given["clip"][1]["present"].values())).all(dim=0)
    assert torch.equal(data["b"], given["clip"][0]["b"][complete])
    assert options["present"] is None
    steps = options["epochs"] * (len(data["b"]) // options["batch_size"])
    assert 18 <= steps <= 20, "as many as 1,000 rows in batches of 50 give"


def test_too_few_complete_rows_are_named() -> None:
    config = XorConfig(**TINY, missing=(0.99,))
    with pytest.raises(ValueError, match=r"0 of 200 rows have all modalities"):
        run_cell(config, cell(loss="symile_complete", missing=0.99))


def test_missing_is_drawn_over_the_share() -> None:
    config = XorConfig(**TINY, missing=(0.0, 0.5))
    results = results_of(config)
    found = summarise(results, config)
    assert {"symile_masked_bits2_missing_0.5", "clip_bits2_missing_0"} <= set(found)
    with mpl.rc_context():
        assert draw(results, config).axes[0].get_xlabel() == "share of training rows that lack each modality"


@pytest.mark.slow
def test_symile_reaches_the_best_guess_and_clip_stays_at_chance() -> None:
    config = XorConfig(repeats=1)
    for p_hat, tolerance in ((1.0, 0.0), (0.5, 0.01), (0.1, 0.01)):
        (row,) = run_cell(config, cell(p_hat, 5))
        assert row["bayes_accuracy"] - row["exact_accuracy"] <= tolerance + 1e-9
    assert row["p_hat"] == 0.1
    (row,) = run_cell(config, cell(1.0, 5))
    assert row["accuracy"] >= 0.99
    (row,) = run_cell(config, cell(1.0, 5, "clip"))
    assert row["accuracy"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["symile_stand_in", "symile_masked", "symile_complete"])
def test_symile_learns_where_half_of_every_modality_is_missing(loss: str) -> None:
    (row,) = run_cell(XorConfig(missing=(0.5,)), cell(1.0, 5, loss, missing=0.5))
    assert row["accuracy"] >= 0.99


@pytest.mark.slow
def test_parity_of_seven_is_learned() -> None:
    rows = run_cell(XorConfig(modalities=8), cell(1.0, 1))
    assert [row["accuracy"] for row in rows] == [1.0] * 8


def run_cli(*arguments: str) -> Result:
    """In this process: what the command line makes of errors is the business of other tests."""
    return CliRunner().invoke(app, ["experiment", "xor", *arguments])


@pytest.mark.parametrize(
    ("arguments", "folder", "count"),
    [
        ((), "xor", 220),
        (("--modalities", "8"), "xor_parity8", 10),
        (("--missing", "0", "--missing", "0.7"), "xor_missing", 24),
        (("--config", "xor_paper"), "xor", 66),
    ],
)
def test_options_choose_the_kind(tmp_path: Path, arguments: tuple[str, ...], folder: str, count: int) -> None:
    done = run_cli(*arguments, "--dry-run", "--workspace", str(tmp_path / "ws"))
    assert done.exit_code == 0, done.output
    assert f"{folder}\n" in done.output
    assert f"cells: {count}, of which 0 are done" in done.output
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--modalities", "2"), "modalities = 2"),
        (("--missing", "1"), "missing=1 leaves nothing to train on"),
        (("--modalities", "4", "--set", "p_hat=[0.5]"), "more than 3 modalities are defined as a parity"),
        (("--set", "p_hats=[0.5]"), "did you mean 'p_hat'?"),
    ],
)
def test_a_wrong_option_is_one_message(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run_cli(*arguments, "--workspace", str(tmp_path / "ws"))
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert not (tmp_path / "ws").exists()


@pytest.mark.slow
def test_from_end_to_end_twice_to_the_byte(tmp_path: Path) -> None:
    settings = [f"--set={key}={json.dumps(value)}" for key, value in TINY.items()]
    for name in ("one", "two"):
        done = run_cli(*settings, "--missing", "0.3", "--workspace", str(tmp_path / name), "--jobs", "1")
        assert done.exit_code == 0, done.output
        assert "symile_masked_bits2" in done.output
    one, two = (tmp_path / name / "experiments" / "xor_missing" for name in ("one", "two"))
    for name in ("results.csv", "summary.json", "figure.svg"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
