"""The MONAI transforms give what the pure functions give, and the pure functions never import MONAI."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wfdb
from PIL import Image

from clinical_symile.modalities import cxr, ecg
from clinical_symile.modalities.labs import LabStatistics, encode
from clinical_symile.types import ECG_LEADS, LAB_ITEM_IDS


def test_the_pure_functions_need_neither_monai_nor_torch_nor_scikit_learn() -> None:
    program = (
        "import sys, clinical_symile.modalities.cxr, clinical_symile.modalities.ecg, clinical_symile.modalities.labs;"
        "print([name for name in ('monai', 'torch', 'sklearn', 'wfdb', 'pandas') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_monai_pipeline_gives_the_encoders_inputs(tmp_path: Path) -> None:
    pytest.importorskip("monai")
    from monai.transforms import CenterSpatialCropd, Compose

    from clinical_symile.modalities.transforms import LabVectord, LoadCXRd, LoadECGd, NormaliseCXRd

    rng = np.random.default_rng(5)
    Image.fromarray(rng.integers(0, 256, (400, 500)).astype(np.uint8)).save(tmp_path / "cxr.png")
    wfdb.wrsamp(
        "ecg", 500, ["mV"] * 12, list(ECG_LEADS), p_signal=rng.normal(size=(5000, 12)), fmt=["16"] * 12, write_dir=str(tmp_path)
    )
    statistics = LabStatistics.fit(rng.normal(size=(30, 50)), LAB_ITEM_IDS)
    values = np.where(rng.random(50) < 0.3, np.nan, rng.normal(size=50))
    pipeline = Compose(
        [
            LoadCXRd("cxr"),
            CenterSpatialCropd("cxr", 320),
            NormaliseCXRd("cxr"),
            LoadECGd("ecg"),
            LabVectord("labs", statistics, allow_missing_keys=True),
        ]
    )
    sample = {"cxr": tmp_path / "cxr.png", "ecg": tmp_path / "ecg", "labs": values, "hadm_id": 7}
    out = pipeline(sample)

    stored = cxr.to_store(cxr.read_cxr(tmp_path / "cxr.png"))
    record = ecg.read_ecg(tmp_path / "ecg")
    np.testing.assert_array_equal(out["cxr"], cxr.normalise(cxr.crop(stored)))
    np.testing.assert_array_equal(out["ecg"], ecg.encode(record.adc, record.gain, record.baseline))
    np.testing.assert_array_equal(out["labs"], encode(*statistics.transform(values[None]))[0])
    assert out["hadm_id"] == 7
    assert sample["ecg"] == tmp_path / "ecg", "the caller's dictionary stays as it was"
    assert "labs" not in pipeline({key: sample[key] for key in ("cxr", "ecg")})
    with pytest.raises(RuntimeError, match="LoadECGd") as raised:  # MONAI's Compose wraps what a transform raises
        pipeline({"cxr": tmp_path / "cxr.png"})
    assert isinstance(raised.value.__cause__, KeyError)
