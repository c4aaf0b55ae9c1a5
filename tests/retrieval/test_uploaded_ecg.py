"""Uploaded ECGs: a real pair of files is read, anything else is refused, and nothing stays on the disk."""

from __future__ import annotations

import numpy as np
import pytest
import wfdb

from clinical_symile.errors import InputError
from clinical_symile.retrieval import read_uploaded_ecg
from clinical_symile.types import ECG_LEADS, ECG_SAMPLES


@pytest.fixture
def pair(tmp_path) -> dict[str, bytes]:
    """A 12-lead record with the leads in another order than ours, as its two files."""
    leads = sorted(ECG_LEADS)
    signal = np.stack([np.sin(np.arange(ECG_SAMPLES) / 50) * (ECG_LEADS.index(lead) + 1) / 10 for lead in leads], axis=1)
    wfdb.wrsamp("rec", fs=500, units=["mV"] * 12, sig_name=leads, p_signal=signal, fmt=["16"] * 12, write_dir=str(tmp_path))
    return {name: (tmp_path / name).read_bytes() for name in ("rec.hea", "rec.dat")}


def test_leads_are_found_by_name(pair, tmp_path):
    ecg_mv = read_uploaded_ecg(pair, tmp_path / "scratch").to_mv()
    assert ecg_mv.shape == (ECG_SAMPLES, 12)
    assert np.ptp(ecg_mv, axis=0) == pytest.approx(np.arange(1, 13) / 5, rel=0.01)


def test_nothing_stays_on_the_disk(pair, tmp_path):
    scratch = tmp_path / "scratch"
    read_uploaded_ecg(pair, scratch)
    with pytest.raises(InputError):
        read_uploaded_ecg({**pair, "rec.dat": b"too short"}, scratch)
    assert list(scratch.iterdir()) == []
    assert scratch.stat().st_mode & 0o077 == 0, "others can look into the folder of uploads"


def test_error_names_the_files_and_not_the_folder(pair, tmp_path):
    with pytest.raises(InputError) as error:
        read_uploaded_ecg({**pair, "rec.dat": pair["rec.dat"][:1000]}, tmp_path)
    assert "rec.hea with rec.dat: its signal file is cut short" in str(error.value)
    assert str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("names", [["rec.hea"], ["rec.dat"], ["rec.hea", "rec.dat", "rec2.dat"], ["rec.hea", "rec2.hea"], []])
def test_not_a_pair_is_refused(pair, tmp_path, names):
    with pytest.raises(InputError, match=r"header \(.hea\) and its signals"):
        read_uploaded_ecg({name: pair.get(name, b"0") for name in names}, tmp_path)


@pytest.mark.parametrize(
    "name", ["../rec.hea", "/etc/rec.hea", "rec.hea\x00", "s3:rec.hea", "rec.exe", "räc.hea", "a b.hea", ".hea"]
)
def test_other_file_names_are_refused_before_anything_is_written(pair, tmp_path, name):
    with pytest.raises(InputError, match="name of a WFDB file"):
        read_uploaded_ecg({name: pair["rec.hea"], "rec.dat": pair["rec.dat"]}, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_files_of_two_records_are_refused(pair, tmp_path):
    with pytest.raises(InputError, match="missing"):
        read_uploaded_ecg({"rec.hea": pair["rec.hea"], "other.dat": pair["rec.dat"]}, tmp_path)


def test_renamed_header_is_refused(pair, tmp_path):
    with pytest.raises(InputError, match="another record name"):
        read_uploaded_ecg({"new.hea": pair["rec.hea"], "rec.dat": pair["rec.dat"]}, tmp_path)


@pytest.mark.realdata
@pytest.mark.parametrize(("group", "suffix"), [("ludb", "dat"), ("cinc2021", "mat")])
def test_real_records_can_be_uploaded(real_data, tmp_path, group, suffix):
    header = sorted((real_data / "ecg" / group).rglob("*.hea"))[0]
    signals = header.with_suffix(f".{suffix}")
    record = read_uploaded_ecg({path.name: path.read_bytes() for path in (header, signals)}, tmp_path)
    assert record.adc.shape == (ECG_SAMPLES, 12)
