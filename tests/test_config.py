"""The configuration: what it accepts, and that each mistake gets one message that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clinical_symile.config import ExperimentConfig, config_digest, load_config
from clinical_symile.errors import ConfigError
from clinical_symile.resources import resource_root


def test_file_and_overrides_win_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("train:\n  lr: 0.01\n  epochs: 3\n")
    config = load_config(file, ["train.epochs=5"])
    assert (config.train.lr, config.train.epochs) == (0.01, 5)
    assert config.train.batch_size == ExperimentConfig().train.batch_size


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  lrr: 1\n", "unknown key 'train.lrr'; did you mean 'lr'?"),
        ("trian:\n  lr: 1\n", "unknown key 'trian'; did you mean 'train'?"),
        ("train:\n  lr: -1\n", "train.lr = -1"),
        ("- a\n- b\n", "must hold sections"),
        ("train: {lr: 1", "not valid YAML"),
        ("cohort:\n  val_fraction: 0.6\n  test_fraction: 0.5\n", "nothing is left to train on"),
        ("train:\n  run: ../../etc\n", "train.run"),
        ("train:\n  betas: [0.9, 1.5]\n", "train.betas.1 = 1.5"),
        ("model:\n  labs_hidden: [0]\n", "model.labs_hidden.0 = 0"),
        ("evaluate:\n  recall_at: [0]\n", "evaluate.recall_at.0 = 0"),
        ("pipeline:\n  losses: []\n", "pipeline.losses"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("override", ["train.lr", "lr=1", "=1", "train..lr=1", "train.lr.deeper=1", "train.lr=[1"])
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError):
        load_config(None, [override])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such configuration file"):
        load_config(tmp_path / "absent.yaml")


def test_relative_paths_belong_to_the_file_that_names_them(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("hospital:\n  kind: manifest\n  manifest: admissions.csv\n  labs: labs.csv\n")
    assert load_config(file).hospital.manifest == tmp_path / "admissions.csv"
    file.write_text("hospital:\n  mimic_iv: ~/mimic-iv\n")
    assert load_config(file).hospital.mimic_iv == Path.home() / "mimic-iv"


@pytest.mark.parametrize("file", sorted((resource_root() / "pipelines" / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_preset_is_valid(file: Path) -> None:
    assert load_config(file) != ExperimentConfig(), "a preset that changes nothing is no preset"


@given(lr=st.floats(1e-6, 1.0), epochs=st.integers(1, 1000))
def test_the_digest_follows_the_values_and_nothing_else(lr: float, epochs: int) -> None:
    one = load_config(None, [f"train.lr={lr!r}", f"train.epochs={epochs}"])
    same = load_config(None, [f"train.epochs={epochs}", f"train.lr={lr!r}"])
    other = load_config(None, [f"train.lr={lr!r}", f"train.epochs={epochs + 1}"])
    assert config_digest(one) == config_digest(same) != config_digest(other)


def test_a_file_is_blamed_only_for_what_no_option_gave(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("train:\n  lr: fast\n")
    with pytest.raises(ConfigError) as error:
        load_config(file, ["train.epochs=x", "trian.lr=1"])
    lines = str(error.value).splitlines()
    assert len(lines) == 3
    assert [line for line in lines if str(file) in line] == [line for line in lines if "train.lr" in line]


def test_a_section_may_be_empty(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text("train:\n  # lr: 0.1\n")
    assert load_config(file) == ExperimentConfig()
