"""What the files hold: MIMIC's layout, readable by the libraries that read MIMIC, labelled as simulated."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
import wfdb
from PIL import Image
from pydicom.pixels import apply_voi_lut

from clinical_symile.simulation.tables import chexpert_labels, study_time
from clinical_symile.types import CHEXPERT_LABELS, ECG_LEADS, LAB_ITEM_IDS

COLUMNS = {
    "patients": "subject_id gender anchor_age anchor_year anchor_year_group dod",
    "admissions": "subject_id hadm_id admittime dischtime deathtime admission_type admit_provider_id admission_location "
    "discharge_location insurance language marital_status race edregtime edouttime hospital_expire_flag",
    "labevents": "labevent_id subject_id hadm_id specimen_id itemid order_provider_id charttime storetime value valuenum "
    "valueuom ref_range_lower ref_range_upper flag priority comments",
    "d_labitems": "itemid label fluid category",
}


def table(hospital: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(hospital / "mimic-iv" / "hosp" / f"{name}.csv.gz", low_memory=False)


def metadata(hospital: Path) -> pd.DataFrame:
    return pd.read_csv(hospital / "mimic-cxr" / "mimic-cxr-2.0.0-metadata.csv.gz")


def image_path(hospital: Path, row: pd.Series) -> Path:
    subject = str(row.subject_id)
    return hospital / "mimic-cxr" / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{row.study_id}" / f"{row.dicom_id}.jpg"


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_mimic_iv(hospital: Path, name: str) -> None:
    assert list(table(hospital, name).columns) == COLUMNS[name].split()


@pytest.mark.realdata
def test_columns_equal_the_real_ones(hospital: Path, real_data: Path) -> None:
    for name in COLUMNS:
        real = pd.read_csv(real_data / "labs" / "mimic-iv-clinical-database-demo-2.2" / "hosp" / f"{name}.csv.gz", nrows=5)
        assert list(real.columns) == list(table(hospital, name).columns), name


def test_identifiers_and_dates(hospital: Path) -> None:
    admissions, patients = table(hospital, "admissions"), table(hospital, "patients")
    ecgs, cxrs = pd.read_csv(hospital / "mimic-ecg" / "record_list.csv"), metadata(hospital)
    for ids, first in ((admissions.subject_id, "1"), (admissions.hadm_id, "2"), (ecgs.study_id, "4"), (cxrs.study_id, "5")):
        assert ids.astype(str).str.fullmatch(rf"{first}\d{{7}}").all()
    assert admissions.hadm_id.is_unique
    assert patients.subject_id.is_unique
    assert ecgs.study_id.is_unique
    assert cxrs.dicom_id.is_unique
    assert cxrs.dicom_id.str.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}").all()
    assert set(admissions.subject_id) == set(patients.subject_id)
    years = pd.to_datetime(admissions.admittime).dt.year
    assert years.between(2110, 2200).all()
    assert (admissions.dischtime > admissions.admittime).all()
    last_year = years.groupby(admissions.subject_id).max()
    died = patients.dropna(subset="dod").set_index("subject_id").dod.str[:4].astype(int)
    assert (died > last_year[died.index]).all()


def test_labevents_look_like_mimic(hospital: Path) -> None:
    labs = table(hospital, "labevents")
    assert 0.15 < labs.hadm_id.isna().mean() < 0.4
    assert 0.03 < labs.valuenum.isna().mean() < 0.2
    hidden = labs[(labs.value == "___") & labs.itemid.astype(str).isin(LAB_ITEM_IDS)]
    assert hidden.valuenum.notna().mean() > 0.9, "a masked text keeps its number"
    shown = labs[labs.valuenum.notna() & (labs.value != "___")]
    np.testing.assert_array_equal(shown.value.astype(float), shown.valuenum)
    assert labs.labevent_id.is_unique
    assert not labs.charttime.is_monotonic_increasing
    assert (labs.storetime >= labs.charttime).all()
    assert set(labs[labs.itemid == 51249].valueuom) == {"g/dL", "%"}
    assert set(LAB_ITEM_IDS) <= set(table(hospital, "d_labitems").itemid.astype(str))


def test_missingness_is_that_of_symile_mimic(hospital: Path) -> None:
    """16 items in nearly every admission, about 35 of the 50 on average, serum indices in a tenth."""
    labs = table(hospital, "labevents").dropna(subset=["valuenum", "hadm_id"])
    labs = labs[labs.itemid.astype(str).isin(LAB_ITEM_IDS)]
    counts = labs.groupby("hadm_id").itemid.nunique()
    assert 30 < counts.mean() < 39
    shares = labs.groupby("itemid").hadm_id.nunique() / labs.hadm_id.nunique()
    assert (shares > 0.8).sum() >= 16


def test_every_record_is_a_wfdb_record_of_mimic(hospital: Path) -> None:
    records = pd.read_csv(hospital / "mimic-ecg" / "record_list.csv")
    assert list(records.columns) == ["subject_id", "study_id", "file_name", "ecg_time", "path"]
    clean = records[records.subject_id < 19_500_000]
    for row in clean.itertuples():
        assert re.fullmatch(rf"files/p{str(row.subject_id)[:4]}/p{row.subject_id}/s{row.study_id}/{row.study_id}", row.path)
        record = wfdb.rdrecord(str(hospital / "mimic-ecg" / row.path))
        assert tuple(record.sig_name) == ECG_LEADS
        assert (record.fs, record.sig_len, set(record.fmt), set(record.units)) == (500, 5000, {"16"}, {"mV"})
        assert record.comments[-1] == f"<subject_id>: {row.subject_id}"
        assert "SIMULATED" in record.comments[0]
        assert record.adc_gain == [200.0] * 12
        assert np.isfinite(record.p_signal).all()
        assert str(record.base_datetime) == row.ecg_time
        digital = wfdb.rdrecord(str(hospital / "mimic-ecg" / row.path), physical=False).d_signal
        assert record.checksum == [int(c) for c in digital.sum(0).astype(np.int16)], "the header's checksums hold"


def test_metadata_describe_the_images(hospital: Path) -> None:
    rows = metadata(hospital)
    assert set(rows.ViewPosition.dropna()) <= {"AP", "PA", "LATERAL"}
    for _, row in rows[rows.subject_id < 19_500_000].iterrows():
        with Image.open(image_path(hospital, row)) as image:
            assert image.mode == "L"
            assert image.size == (row.Columns, row.Rows)
            assert b"SIMULATED" in image.info["comment"]
            assert "SIMULATED" in image.getexif()[0x010E]


def test_study_time_is_a_number_without_its_leading_zeros() -> None:
    assert study_time(np.datetime64("2150-03-01T00:00:03.500")) == 3.5
    assert study_time(np.datetime64("2150-03-01T21:30:14.531")) == 213014.531
    assert study_time(np.datetime64("2150-03-01T09:05:00.000")) == 90500.0


def test_dicom_shows_what_the_jpeg_shows(hospital: Path) -> None:
    kinds = set()
    for file in sorted(hospital.rglob("*.dcm"))[:24]:
        dataset = pydicom.dcmread(file)
        kinds.add(dataset.PhotometricInterpretation)
        assert dataset.ImageType[0] == "DERIVED"
        assert "SIMULATED" in dataset.ImageComments
        assert (dataset.PatientIdentityRemoved, dataset.BurnedInAnnotation, str(dataset.PatientName)) == ("YES", "NO", "")
        assert (dataset.BitsStored, dataset.HighBit) == (12, 11)
        shown = apply_voi_lut(dataset.pixel_array, dataset)
        grey = (shown - shown.min()) / np.ptp(shown)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            grey = 1 - grey
        jpeg = np.asarray(Image.open(file.with_suffix(".jpg"))) / 255
        assert np.corrcoef(grey.ravel(), jpeg.ravel())[0, 1] > 0.99
    assert kinds == {"MONOCHROME1", "MONOCHROME2"}


def test_chexpert_labels_agree_with_the_findings(hospital: Path) -> None:
    labels = pd.read_csv(hospital / "mimic-cxr" / "mimic-cxr-2.0.0-chexpert.csv.gz")
    assert list(labels.columns) == ["subject_id", "study_id", *CHEXPERT_LABELS]
    assert set(np.unique(labels[list(CHEXPERT_LABELS)].to_numpy())[:3]) == {-1.0, 0.0, 1.0}
    rng = np.random.default_rng(0)
    for _ in range(50):
        ill = chexpert_labels((0.7, 0.0, 0.9, 0.0, 0.0), False, rng)
        assert ill["Cardiomegaly"] != 0.0
        assert ill["Pleural Effusion"] != 0.0
        assert ill["Edema"] in (0.0, None)
        assert ill["No Finding"] is None
    well = [chexpert_labels((0.0, 0.0, 0.0, 0.0, 0.8), False, rng)["No Finding"] for _ in range(50)]
    assert well.count(1.0) > 35


def test_readme_says_what_this_is(hospital: Path) -> None:
    assert (hospital / "README.txt").read_text().startswith("SIMULATED")
