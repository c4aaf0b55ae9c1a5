"""A folder laid out like Symile-MIMIC 1.0.0 on PhysioNet, written the way its authors' scripts do; and how fast it is imported.

    python tests/benchmarks/released_dataset.py [--admissions 1000] [--jobs 2] [--folder /tmp/released]

writes a made-up release into a new folder (about 2 MB per admission), imports it with ``clinical-symile import dataset`` in a
process of its own, prints the rate and the peak memory, and removes the folder. ``write_release`` also serves the tests. Nothing
of the real release is here: it is credentialed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

MEAN, STD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)

LABS = [
    "51221", "51265", "50912", "50971", "51222", "51301", "51249", "51279", "51250", "51248", "51277", "51006", "50983",
    "50902", "50882", "50868", "50931", "50960", "50893", "50970", "51237", "51274", "51275", "51146", "51256", "51254",
    "51200", "51244", "52172", "50934", "51678", "50947", "50861", "50878", "50813", "50863", "50885", "50820", "50862",
    "50802", "50821", "50804", "50818", "52075", "52073", "52074", "52069", "51133", "50910", "52135",
]  # fmt: skip
"""In the order of the authors' constants, which is not the order of the tensors."""

FINDINGS = [
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum", "Fracture", "Lung Lesion",
    "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
]  # fmt: skip
FINDINGS_KEPT = ["Atelectasis", "Cardiomegaly", "Edema", "Lung Opacity", "No Finding", "Pleural Effusion"]

Signal = Callable[[int], np.ndarray]
"""hadm_id -> a tensor row."""


def everyone(admissions: pd.DataFrame) -> pd.DataFrame:
    """``symile_mimic_data.csv``: 94 columns, from the columns of our own ``cohort/admissions.parquet``."""
    a = admissions
    year = pd.to_datetime(a.admittime).dt.year
    columns = {
        "subject_id": a.subject_id, "hadm_id": a.hadm_id, "admittime": a.admittime,
        "dischtime": a.admittime + pd.Timedelta(days=5), "deathtime": None, "admission_type": "URGENT",
        "admission_location": "EMERGENCY ROOM", "discharge_location": "HOME", "race": a.race, "hospital_expire_flag": 0,
        "gender": a.gender, "anchor_age": a.age, "anchor_year": year, "dod": None, "admittime_year": year, "age": a.age,
        "cxr_24_72_hr": a.cxr_dicom_id, "cxr_dicom_id": a.cxr_dicom_id, "cxr_study_id": a.cxr_study_id,
        "cxr_ViewPosition": a.cxr_view, "cxr_ViewCodeSequence_CodeMeaning": "antero-posterior", "cxr_StudyDateTime": a.cxr_time,
        "cxr_path": a.cxr_path, "study_id": a.cxr_study_id, **{name: a[name] for name in FINDINGS},
        "ecg_adm": a.ecg_study_id.astype(float), "ecg_study_id": a.ecg_study_id, "ecg_file_name": a.ecg_study_id,
        "ecg_time": a.ecg_time, "ecg_path": a.ecg_path, **{item: a[item] for item in LABS}, "labs_all_nan": 0,
    }  # fmt: skip
    return pd.DataFrame(columns)


def ecdf(train: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Right-continuous, of the measured training values; NaN where nothing was measured."""
    known = np.sort(train[~np.isnan(train)])
    return np.where(np.isnan(values), np.nan, np.searchsorted(known, values, side="right") / max(len(known), 1))


def with_negatives(frame: pd.DataFrame, candidates: int, rng: np.random.Generator) -> pd.DataFrame:
    """All queries first, then for each of them the others of its set: drawn from all other rows of the split."""
    queries = frame.assign(label_hadm_id=frame.hadm_id, label=1)
    parts = [queries]
    for position in range(len(frame)):
        others = np.delete(np.arange(len(frame)), position)
        chosen = frame.iloc[rng.choice(others, size=candidates - 1, replace=False)]
        parts.append(chosen.assign(label_hadm_id=frame.hadm_id.iloc[position], label=0))
    return pd.concat(parts, ignore_index=True)


def write_release(
    folder: Path,
    admissions: pd.DataFrame,
    cxr: Signal,
    ecg: Signal,
    *,
    candidates: int = 10,
    seed: int = 0,
    big: tuple[str, ...] = ("train", "val", "test"),
) -> None:
    """Writes a whole release.

    Args:
        folder: new.
        admissions: the columns of ``cohort/admissions.parquet``; a missing ``split`` leaves an admission out, as the authors do.
        cxr: gives (3, 320, 320) float32.
        ecg: gives (5000, 12) float32.
        candidates: of each set.
        seed: of the order of rows and of the negatives.
        big: the parts whose pictures and ECGs are written.
    """
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    full = everyone(admissions).sample(frac=1, random_state=seed)
    full.to_csv(folder / "symile_mimic_data.csv", index=False)
    kept = full[["subject_id", "hadm_id", "cxr_path", *FINDINGS_KEPT, "ecg_path", *LABS]]
    split_of = full.hadm_id.map(admissions.set_index("hadm_id")["split"])
    parts = {name: kept[split_of == name].copy() for name in ("train", "val", "test")}
    train = parts["train"]
    means = {}
    percentiles = {
        name: pd.DataFrame({f"{item}_percentile": ecdf(train[item].to_numpy(), part[item].to_numpy()) for item in LABS})
        for name, part in parts.items()
    }
    parts = {name: pd.concat([part.reset_index(drop=True), percentiles[name]], axis=1) for name, part in parts.items()}
    for item in LABS:
        means[f"{item}_percentile"] = float(parts["train"][f"{item}_percentile"].mean())
    (folder / "labs_means.json").write_text(json.dumps(means, indent=4))
    val = parts["val"]
    written = {
        "train": parts["train"],
        "val": val.assign(label_hadm_id=val.hadm_id, label=1),
        "val_retrieval": with_negatives(val, candidates, rng),
        "test": with_negatives(parts["test"], candidates, rng),
    }
    for name, frame in written.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
        _write_tensors(folder / "data_npy" / name, name, frame, means, cxr, ecg, big=name in big)
    write_sums(folder)


def write_sums(folder: Path) -> None:
    """``SHA256SUMS.txt`` of everything in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "SHA256SUMS.txt")
    lines = []
    for path in files:
        with path.open("rb") as handle:
            lines.append(f"{hashlib.file_digest(handle, 'sha256').hexdigest()} {path.relative_to(folder).as_posix()}\n")
    (folder / "SHA256SUMS.txt").write_text("".join(lines))


def _write_tensors(
    folder: Path, name: str, frame: pd.DataFrame, means: dict[str, float], cxr: Signal, ecg: Signal, *, big: bool
) -> None:
    folder.mkdir(parents=True)
    n = len(frame)
    columns = sorted(means)
    raw = frame[[column.removesuffix("_percentile") for column in columns]].to_numpy()
    values = np.where(np.isnan(raw), [means[column] for column in columns], frame[columns].to_numpy())
    small = {
        "labs_percentiles": values.astype(np.float32),
        "labs_missingness": (~np.isnan(raw)).astype(np.int64),
        "hadm_id": frame.hadm_id.to_numpy(np.int64),
    }
    if name in ("val_retrieval", "test"):
        small |= {key: frame[key].to_numpy(np.int64) for key in ("label_hadm_id", "label")}
    for key, array in small.items():
        np.save(folder / f"{key}_{name}.npy", array)
    if big:
        pictures = np.lib.format.open_memmap(folder / f"cxr_{name}.npy", mode="w+", dtype=np.float32, shape=(n, 3, 320, 320))
        records = np.lib.format.open_memmap(folder / f"ecg_{name}.npy", mode="w+", dtype=np.float32, shape=(n, 1, 5000, 12))
        for row, hadm_id in enumerate(frame.hadm_id):
            pictures[row], records[row, 0] = cxr(hadm_id), ecg(hadm_id)


def to_tensor(grey: np.ndarray) -> np.ndarray:
    """``ToTensor`` and ``Normalize`` of a grey picture made RGB: (h, w) uint8 -> (3, h, w) float32."""
    scaled = np.repeat(grey[None], 3, axis=0).astype(np.float32) / np.float32(255)
    return (scaled - MEAN[:, None, None]) / STD[:, None, None]


def minmax(p_signal: np.ndarray) -> np.ndarray:
    """The authors' scaling of a record, in float64, then float32."""
    return (2 * (p_signal - p_signal.min()) / (p_signal.max() - p_signal.min()) - 1).astype(np.float32)


def made_up(n: int, seed: int = 0) -> tuple[pd.DataFrame, Signal, Signal]:
    """``n`` admissions of ``n`` patients with noise for pictures and random walks of ADC units for ECGs."""
    rng = np.random.default_rng(seed)
    number = np.arange(n)
    split = np.where(number < 0.88 * n, "train", np.where(number < 0.95 * n, "val", "test"))
    admissions = pd.DataFrame(
        {
            "subject_id": 10_000_000 + number, "hadm_id": 20_000_000 + number, "split": split,
            "admittime": pd.Timestamp("2150-01-01"), "gender": "F", "age": 60, "race": "WHITE",
            "cxr_dicom_id": number.astype(str), "cxr_study_id": 50_000_000 + number, "cxr_path": number.astype(str),
            "cxr_view": "AP", "cxr_time": pd.Timestamp("2150-01-02"), "ecg_study_id": 40_000_000 + number,
            "ecg_path": number.astype(str), "ecg_time": pd.Timestamp("2150-01-01"),
        }
    )  # fmt: skip
    labs = rng.normal(100, 10, (n, len(LABS))).round(1)
    labs[rng.random(labs.shape) < 0.3] = np.nan
    admissions = admissions.join(pd.DataFrame(labs, columns=LABS)).join(pd.DataFrame(np.nan, number, FINDINGS))

    def cxr(hadm_id: int) -> np.ndarray:
        return to_tensor(np.random.default_rng(hadm_id).integers(0, 256, (320, 320), dtype=np.uint8))

    def ecg(hadm_id: int) -> np.ndarray:
        steps = np.random.default_rng(hadm_id).integers(-9, 10, (5000, 12))
        return minmax((steps.cumsum(axis=0) % 700) / 200)

    return admissions, cxr, ecg


def write_made_up(folder: Path, n: int) -> None:
    """A release of ``made_up`` admissions."""
    write_release(folder, *made_up(n))


def main() -> None:
    """Writes, imports, measures, removes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--admissions", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--folder", type=Path, help="new folder; default: a temporary one")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp()) / "released"
    if folder.exists():
        raise SystemExit(f"{folder} exists; name a new folder")
    try:
        # In a process of its own: a child starts with the peak memory of the process that makes it.
        writer = multiprocessing.get_context("spawn").Process(
            target=write_made_up, args=(folder / "release", arguments.admissions)
        )
        writer.start()
        writer.join()
        size = sum(path.stat().st_size for path in (folder / "release").rglob("*.npy"))
        command = ["import", "dataset", folder / "release", "--workspace", folder / "ws", "--jobs", arguments.jobs]
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", "clinical_symile", *map(str, command)])
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status != 0:
            raise SystemExit(f"the import failed with status {status}")
        peak = usage.ru_maxrss / 1024
        manifest = json.loads((folder / "ws" / "dataset" / "manifest.json").read_text())
        print(f"{size / 1e6:.0f} MB of tensors, {arguments.admissions} admissions, {arguments.jobs} processes")
        print(f"{seconds:.1f} s, {size / 1e6 / seconds:.0f} MB/s; peak memory of the command or a child: {peak:.0f} MB")
        print(json.dumps(manifest["fidelity"], indent=2))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
