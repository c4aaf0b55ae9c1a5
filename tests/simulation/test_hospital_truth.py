"""The hospital as a whole: the cohort rules find what was planned, the truth is what the files show, quirks meet their fate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, UnidentifiedImageError

from clinical_symile.simulation import CHANNEL_NAMES, Oracle, oracle_accuracy
from clinical_symile.simulation.quirks import QUIRKS


@pytest.fixture(scope="module")
def truth(hospital: Path) -> pd.DataFrame:
    return pd.read_parquet(hospital / "truth.parquet").set_index("hadm_id")


@pytest.fixture(scope="module")
def quirks(hospital: Path) -> list[dict]:
    return json.loads((hospital / "quirks.json").read_text())


def test_the_rules_find_the_complete_admissions_and_the_kept_quirks(
    cohort: pd.DataFrame, truth: pd.DataFrame, quirks: list[dict]
) -> None:
    complete = set(truth.index[truth.kind == "complete"])
    assert len(complete) == 24
    expected = complete | {quirk["hadm_id"] for quirk in quirks if quirk["fate"] in ("kept", "rejected")}
    assert set(cohort.index) == expected


@pytest.mark.parametrize("name", [quirk.name for quirk in QUIRKS] + ["ecg_of_two_admissions"])
def test_each_quirk_meets_its_fate(name: str, cohort: pd.DataFrame, quirks: list[dict], hospital: Path) -> None:
    entries = [quirk for quirk in quirks if quirk["quirk"] == name]
    assert entries
    for quirk in entries:
        if quirk["fate"] == "excluded":
            assert quirk["hadm_id"] not in cohort.index
            continue
        row = cohort.loc[quirk["hadm_id"]]
        assert {key: row[key] for key in quirk["chosen"]} == quirk["chosen"]
        (file,) = hospital.rglob(f"{row.cxr_dicom_id}.jpg")
        if quirk["fate"] == "rejected":
            with pytest.raises((OSError, UnidentifiedImageError)):
                Image.open(file).load()
        else:
            Image.open(file).load()


def test_the_earliest_labs_show_the_truth(cohort: pd.DataFrame, truth: pd.DataFrame) -> None:
    """Reading the first value in the window, not the last, gives the sign."""
    clean = cohort.index[truth.loc[cohort.index].kind == "complete"]
    values, signs = cohort.loc[clean], truth.loc[clean]
    read = {
        "cardiomegaly": values["50912"] > 1.5,
        "edema": values["51222"] < 11.7,
        "effusion": values["50983"] < 134.5,
        "consolidation": values["51301"] > 11.2,
        "hyperinflation": values["50882"] > 28.5,
    }
    for name, sign in read.items():
        agreement = (sign == (signs[f"labs_{name}"] == 1)).mean()
        assert agreement > 0.9, f"{name}: {agreement:.2f}"


def test_truth_table_is_consistent(truth: pd.DataFrame) -> None:
    for modality in ("ecg", "labs", "cxr"):
        for name in CHANNEL_NAMES:
            sign, severity = truth[f"{modality}_{name}"], truth[f"{modality}_{name}_severity"]
            np.testing.assert_array_equal(sign, severity > 0)
            assert severity[sign == 1].between(0.5, 1).all()


def test_oracle_loads_and_beats_chance(hospital: Path, cohort: pd.DataFrame) -> None:
    oracle = Oracle.load(hospital)
    ids = cohort.index.to_numpy()
    sets = np.stack([np.roll(ids, -i)[:10] for i in range(len(ids))])
    accuracy = oracle.expected_accuracy(ids, sets, np.zeros(len(ids), dtype=int))
    assert 0.3 < accuracy <= 1
    law = json.loads((hospital / "law.json").read_text())
    assert law["accuracy_10way"]["oracle"] == pytest.approx(oracle_accuracy(0.6))


def test_quirks_leave_the_clean_part_alone(hospital: Path, quirks: list[dict], truth: pd.DataFrame) -> None:
    odd = {quirk["subject_id"] for quirk in quirks}
    assert not odd & set(truth.subject_id[~truth.kind.str.startswith("quirk")])
