"""Every real ECG of the open files: the ordinary ones load, each quirk has its expected fate.

Needs ``CLINICAL_SYMILE_REAL_DATA``. The fates are written down by name; a quirk that is not in the list must still load
or be refused with a reason.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import wfdb

from clinical_symile.modalities.ecg import encode, examine, read_ecg
from clinical_symile.types import ECG_LEADS

pytestmark = pytest.mark.realdata

ROOT = Path(os.environ.get("CLINICAL_SYMILE_REAL_DATA", "")) / "ecg"
ORDINARY = sorted(
    path.relative_to(ROOT).with_suffix("") for folder in ("ludb", "cinc2021") for path in (ROOT / folder).rglob("*.hea")
)
SAMPLES = "quirks/wfdb-sample-data"

QUIRKS = {
    # One 12-lead ECG of 38.4 s at 1000 Hz with three Frank leads in a second file: resampled, its first 10 s.
    f"{SAMPLES}/s0010_re": None,
    f"{SAMPLES}/100": "lacks the leads I, II, III",
    f"{SAMPLES}/100-no-len": "lacks the leads I, II, III",
    f"{SAMPLES}/100skew": "lacks the leads I, II, III",
    f"{SAMPLES}/12726": "lacks the leads I, II, III",
    f"{SAMPLES}/3000003_0003": "lacks the leads I, III",
    f"{SAMPLES}/a103l": "lacks the leads I, III",
    f"{SAMPLES}/binformats": "lacks the leads I, II, III",
    f"{SAMPLES}/flac_3_constant": "stored in format 508, which is not read here",
    f"{SAMPLES}/multi-segment/041s/041s": "is a record of several segments",
    f"{SAMPLES}/multi-segment/041s/041s01": "lacks the leads II, aVR",
    f"{SAMPLES}/multi-segment/041s/041s02": "lacks the leads II, aVR",
    "quirks/cpsc2021/data_8_4": "lacks the leads III, aVR",
}


@pytest.mark.parametrize("record_path", ORDINARY, ids=str)
def test_every_ordinary_record_loads_without_loss(real_data: Path, record_path: Path) -> None:
    record = read_ecg(real_data / "ecg" / record_path)
    reference = wfdb.rdrecord(str(real_data / "ecg" / record_path))
    column = {name.lower(): k for k, name in enumerate(reference.sig_name)}
    physical = reference.p_signal[:, [column[lead.lower()] for lead in ECG_LEADS]]
    assert record.source_fs_hz == 500
    np.testing.assert_allclose(record.to_mv(), physical, rtol=1e-7, atol=0)
    papers = 2 * (physical - physical.min()) / (physical.max() - physical.min()) - 1
    np.testing.assert_allclose(encode(record.adc, record.gain, record.baseline)[0], papers, rtol=0, atol=6e-8)


def test_einthovens_law_holds_so_the_leads_are_the_leads(real_data: Path) -> None:
    """III = II - I and aVL + aVR + aVF = 0: true only if each lead has its own name's signal."""
    for record_path in ORDINARY:
        if record_path.parts[0] != "cinc2021" or not record_path.name.startswith("HR"):
            continue  # PTB-XL computes the derived leads exactly; other recorders filter each lead by itself
        mv = dict(zip(ECG_LEADS, read_ecg(real_data / "ecg" / record_path).to_mv().T, strict=True))
        assert np.abs(mv["II"] - mv["I"] - mv["III"]).max() < 0.006, record_path
        assert np.abs(mv["aVR"] + mv["aVL"] + mv["aVF"]).max() < 0.012, record_path


def test_flat_leads_of_one_record_are_named(real_data: Path) -> None:
    path = real_data / "ecg" / "cinc2021" / "JS20004"
    if not path.with_suffix(".hea").exists():
        pytest.skip("JS20004 is not in this part of the files")
    assert read_ecg(path).flat_leads == ("V2", "V4", "V6")


@pytest.mark.parametrize(("name", "reason"), QUIRKS.items(), ids=list(QUIRKS))
def test_each_quirk_has_its_fate(real_data: Path, name: str, reason: str | None) -> None:
    path = real_data / "ecg" / name
    if not path.with_suffix(".hea").exists():
        pytest.skip(f"{name} is not in this part of the files")
    if reason is None:
        assert read_ecg(path).adc.shape == (5000, 12)
    else:
        assert reason in str(examine(path).fault)


def test_the_resampled_record_keeps_its_shape(real_data: Path) -> None:
    """s0010_re against every second of its own samples, which its 1000 Hz allow: the QRS loses less than 50 µV."""
    path = real_data / "ecg" / SAMPLES / "s0010_re"
    if not path.with_suffix(".hea").exists():
        pytest.skip("s0010_re is not in this part of the files")
    record = read_ecg(path)
    reference = wfdb.rdrecord(str(path), sampto=10_000, channels=[0])
    assert record.source_fs_hz == 1000
    assert np.abs(record.to_mv()[:, 0] - reference.p_signal[::2, 0]).max() < 0.05


def test_every_other_file_loads_or_says_why_not(real_data: Path) -> None:
    for path in sorted((real_data / "ecg" / "quirks").rglob("*")):
        reason = examine(path).fault if path.is_file() else None
        if reason is not None:
            assert len(reason) > 15
            assert str(path) not in reason
