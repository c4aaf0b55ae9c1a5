"""The cohort as a MEDS label set: for each admission, the time up to which a model may look.

The files satisfy ``LabelSchema`` of MEDS 0.4 (package ``meds`` 0.4.1): ``subject_id`` int64, ``prediction_time`` timestamp[us]
and, where a label is asked for, ``boolean_value``; other columns are not allowed there, and the ones that are there must not be
null. The folder is what MEDS calls ``$TASK_ROOT/$TASK_NAME``; its files are called after MEDS's splits: ``train``, ``tuning``,
``held_out``.
"""

from __future__ import annotations

import datetime as dt
import logging
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clinical_symile.config import CohortConfig
from clinical_symile.errors import ConfigError, InputError
from clinical_symile.stage import Workspace, atomic_path, code_version, digest_file, require_complete, write_json
from clinical_symile.types import CHEXPERT_LABELS

logger = logging.getLogger(__name__)

PredictionTime = Literal["admission", "window-end"]

MEDS_SPLITS: Final = {"train": "train", "val": "tuning", "test": "held_out"}
"""Our splits -> the names that MEDS reserves for them."""

_MANIFEST: Final = "manifest.json"
_KIND: Final = "meds-labels"


def export_meds_labels(
    workspace: Workspace,
    output: Path,
    *,
    at: PredictionTime = "window-end",
    label: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes ``<split>.parquet`` for each split, sorted by subject and time, and ``manifest.json`` last.

    Args:
        workspace: has a finished cohort.
        output: new folder, readable by this user alone.
        at: ``window-end``: the end of the ECG's and the labs' window (24 hours after admission, as the rules have it), the first
            time at which all that the model is shown is known; the X-ray is later. ``admission``: the time of admission, at which
            most of it is not known yet.
        label: one of the CheXpert labels: 1 becomes true, 0 false; admissions whose label is uncertain or not mentioned are left
            out.
        overwrite: replaces an earlier export.

    Returns:
        The manifest.

    Raises:
        IncompleteStage: the cohort is not finished.
        ConfigError: there is no such label.
        InputError: the folder holds something else, or an earlier export without ``overwrite``; no admission has the label
            or one has no time.
    """
    if label is not None and label not in CHEXPERT_LABELS:
        raise ConfigError(f"--label {label!r}: there is no such CheXpert label; the labels are: {', '.join(CHEXPERT_LABELS)}")
    cohort = require_complete(workspace.cohort, "cohort")
    # What an imported release's manifest does not state are the paper's rules: the defaults.
    hours = _hours_after_admission(CohortConfig().model_dump(mode="json") | cohort["config"]["cohort"], at)
    columns = ["subject_id", "subject_key", "admittime", "split", *([label] if label else [])]
    admissions = pq.read_table(workspace.cohort / "admissions.parquet", columns=columns)
    if admissions["admittime"].null_count:
        raise InputError(f"{workspace.cohort / 'admissions.parquet'}: column admittime: an admission has no time")
    left_out: dict[str, int] = {}
    if label is not None:
        known = pc.is_in(admissions[label], pa.array([0.0, 1.0]))
        left_out = {split: _count(admissions.filter(pc.invert(known)), split) for split in MEDS_SPLITS}
        admissions = admissions.filter(known)
        if not len(admissions):
            raise InputError(f"{workspace.cohort / 'admissions.parquet'}: no admission is known to have or not to have {label!r}")
    _take_folder(output, overwrite)
    files = {
        name: _write_split(admissions, split, hours, label, output / f"{name}.parquet") for split, name in MEDS_SPLITS.items()
    }
    manifest = {
        "export": _KIND,
        "schema": "meds 0.4 LabelSchema",
        "at": at,
        "hours_after_admission": hours,
        "label": label,
        "access": cohort["hospital"]["access"],
        "cohort": cohort["digest"],
        "splits": MEDS_SPLITS,
        "rows": {name: rows for name, (_, rows) in files.items()},
        "left_out": {MEDS_SPLITS[split]: count for split, count in left_out.items()},
        "subject_id": _meaning_of_ids(admissions),
        "outputs": {file.name: {"sha256": digest_file(file), "bytes": file.stat().st_size} for file, _ in files.values()},
        "code": code_version(),
    }
    write_json(output / _MANIFEST, manifest)
    return manifest


def _hours_after_admission(rules: dict[str, Any], at: PredictionTime) -> float:
    if at == "admission":
        return 0.0
    windows = {"ecg": rules["ecg_window_hours"], "labs": rules["lab_window_hours"]}
    hours = float(max([hours for modality, hours in windows.items() if modality in rules["require"]], default=0.0))
    if "cxr" in rules["require"] and rules["cxr_after_hours"] < hours:
        logger.warning(
            "export: X-rays may be from %.4g hours after admission on, before the prediction time (%.4g hours): "
            "a label of such an X-ray is known already",
            rules["cxr_after_hours"],
            hours,
        )
    return hours


def _take_folder(output: Path, overwrite: bool) -> None:
    """Makes the folder, or clears it of an earlier export; the manifest goes first, so that a kill leaves no finished export."""
    if not output.exists():
        output.mkdir(parents=True, mode=0o700)
    if not output.is_dir():
        raise InputError(f"{output}: is a file; name a folder, which is made if need be")
    ours = {_MANIFEST, *(f"{name}.parquet" for name in MEDS_SPLITS.values())}
    present = {path.name for path in output.iterdir() if not path.name.endswith(".tmp")}
    if present - ours:
        raise InputError(f"{output}: holds files that are no MEDS labels ({min(present - ours)}); choose another folder")
    manifest = output / _MANIFEST
    if present and manifest.exists() and f'"{_KIND}"' not in manifest.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{manifest}: belongs to something else than an export of MEDS labels; choose another folder")
    if present and not overwrite:
        raise InputError(f"{output}: holds an export already; --overwrite replaces it")
    (output / _MANIFEST).unlink(missing_ok=True)


def _write_split(admissions: pa.Table, split: str, hours: float, label: str | None, file: Path) -> tuple[Path, int]:
    chosen = admissions.filter(pc.equal(admissions["split"], split))
    window = pa.scalar(dt.timedelta(hours=hours), pa.duration("us"))
    arrays = [chosen["subject_id"], pc.add(chosen["admittime"], window)]
    fields = [pa.field("subject_id", pa.int64(), nullable=False), pa.field("prediction_time", pa.timestamp("us"), nullable=False)]
    if label is not None:
        arrays.append(pc.equal(chosen[label], 1.0))
        fields.append(pa.field("boolean_value", pa.bool_(), nullable=False))
    table = pa.table(arrays, schema=pa.schema(fields)).sort_by([("subject_id", "ascending"), ("prediction_time", "ascending")])
    with atomic_path(file) as temporary:
        pq.write_table(table, temporary)
    return file, len(table)


def _meaning_of_ids(admissions: pa.Table) -> str:
    """MEDS's ids are numbers; a hospital's textual ids were replaced."""
    if admissions["subject_key"].null_count == len(admissions):
        return "the hospital's own"
    return "numbers that stand for the hospital's textual ids; cohort/admissions.parquet has both (subject_id, subject_key)"


def _count(admissions: pa.Table, split: str) -> int:
    return int(pc.sum(pc.equal(admissions["split"], split)).as_py() or 0)
