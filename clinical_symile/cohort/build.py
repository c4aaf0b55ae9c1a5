"""The stage ``cohort``: from a hospital's tables to the admissions that take part."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from clinical_symile.cohort.manifest import load_manifest
from clinical_symile.cohort.mimic import find_mimic, load_mimic
from clinical_symile.cohort.selection import EcgCheck, select_admissions
from clinical_symile.cohort.source import Source, connect
from clinical_symile.cohort.splits import assign_split, draw_candidates
from clinical_symile.config import ExperimentConfig, HospitalConfig
from clinical_symile.errors import ConfigError, InputError
from clinical_symile.stage import Rejects, RunOptions, Stage, Workspace, atomic_path, digest_file, require_complete, write_json
from clinical_symile.types import LAB_ITEM_IDS, SPLITS

logger = logging.getLogger(__name__)


def build_cohort(
    config: ExperimentConfig, workspace: Workspace, options: RunOptions, ecg_is_usable: EcgCheck | None = None
) -> dict[str, Any]:
    """Writes ``workspace.cohort``.

    Args:
        config: sections ``hospital`` and ``cohort``.
        workspace: receives the cohort; its simulated hospital is used when ``hospital`` names no files.
        options: how to run.
        ecg_is_usable: takes an ECG record's path and its root, and says why it cannot be used; without it no ECG is opened.

    Returns:
        The manifest; empty for a dry run.

    Raises:
        IncompleteStage: no hospital is named, and none was simulated.
        ConfigError: the options of ``hospital`` contradict one another.
        InputError: a table is missing, damaged or not what it should be; no admission is left; a split is too small.
    """
    hospital = _locate(config, workspace)
    files = _tables(hospital)
    stage = Stage(
        "cohort",
        workspace.cohort,
        inputs={name: digest_file(file) for name, file in files.items()}
        | {"ecg files": "opened" if ecg_is_usable else "not opened"},
        config={"cohort": config.cohort.model_dump(mode="json"), "kind": hospital.kind, "access": hospital.access},
        options=options,
    )
    if options.dry_run:
        size = sum(file.stat().st_size for file in files.values())
        stage.announce({"tables": ", ".join(files), "MB to read": round(size / 10**6, 1)})
        return {}
    if stage.should_skip():
        return stage.manifest()
    with stage.writing() as writing:
        connection = connect()
        try:
            source = _load(connection, hospital, files)
            admissions, attrition, unusable = select_admissions(connection, source, config.cohort, ecg_is_usable, options)
            admissions = _with_splits(admissions, config)
            if source.keys:
                admissions = _with_keys(connection, admissions)
        finally:
            connection.close()
        _write_table(writing.output / "admissions.parquet", admissions)
        _write_table(writing.output / "candidates.parquet", _candidates(admissions, config))
        write_json(writing.output / "attrition.json", attrition.steps)
        rejects = Rejects()
        for item, path, reason in (*source.rejects, *unusable):
            rejects.add(item, path, reason)
        rejects.write(writing.output / "rejects.parquet")
        writing.counts.update(
            admissions=len(admissions),
            subjects=int(admissions["subject_id"].nunique()),
            rejected=len(rejects.rows),
            **{split: int((admissions["split"] == split).sum()) for split in SPLITS},
        )
        if "labs" in config.cohort.require:
            measured = admissions[list(LAB_ITEM_IDS)].notna().sum(axis=1)
            writing.counts.update(labs_per_admission=round(float(measured.mean()), 2))
        writing.facts["hospital"] = _facts(hospital, source, workspace)
        if rejects.rows:
            logger.warning("cohort: %d files or rows could not be used; the reasons are in rejects.parquet", len(rejects.rows))
    return stage.manifest()


def _locate(config: ExperimentConfig, workspace: Workspace) -> HospitalConfig:
    """The hospital with all its paths and its access class."""
    hospital = config.hospital
    if hospital.kind == "manifest":
        if hospital.manifest is None or hospital.labs is None:
            raise ConfigError("a manifest hospital needs both files: --manifest admissions.csv --labs labs.csv")
        return hospital.model_copy(update={"mimic_iv": None, "access": hospital.access or "credentialed"})
    if hospital.mimic_iv is None:
        if hospital.mimic_cxr or hospital.mimic_ecg:
            raise ConfigError("--mimic-iv is missing: the admissions and labs are in MIMIC-IV")
        require_complete(workspace.hospital, "simulate")
        simulated = {name: workspace.hospital / name.replace("_", "-") for name in ("mimic_iv", "mimic_cxr", "mimic_ecg")}
        return hospital.model_copy(update={**simulated, "access": hospital.access or "synthetic"})
    for modality, option in (("cxr", "mimic_cxr"), ("ecg", "mimic_ecg")):
        if modality in config.cohort.require and getattr(hospital, option) is None:
            raise ConfigError(f"--{option.replace('_', '-')} is missing: cohort.require asks for each admission's {modality}")
    return hospital.model_copy(update={"access": hospital.access or "credentialed"})


def _tables(hospital: HospitalConfig) -> dict[str, Path]:
    """Name -> file of each table, found before anything is read, so that a missing one is known at once."""
    if hospital.mimic_iv is not None:
        return find_mimic(hospital.mimic_iv, hospital.mimic_cxr, hospital.mimic_ecg)
    files = {name: file for name, file in (("manifest", hospital.manifest), ("labs", hospital.labs)) if file is not None}
    for file in files.values():
        if not file.is_file():
            raise InputError(f"{file}: there is no such file")
    return files


def _load(connection: duckdb.DuckDBPyConnection, hospital: HospitalConfig, files: dict[str, Path]) -> Source:
    if hospital.kind == "manifest":
        return load_manifest(connection, files["manifest"], files["labs"])
    return load_mimic(connection, files, hospital.mimic_cxr, hospital.mimic_ecg)


def _with_splits(admissions: pd.DataFrame, config: ExperimentConfig) -> pd.DataFrame:
    rules = config.cohort
    subjects = admissions["subject_id"].unique()
    split_of = {int(s): assign_split(int(s), rules.seed, rules.val_fraction, rules.test_fraction) for s in subjects}
    admissions.insert(2, "split", admissions["subject_id"].map(split_of))
    return admissions


def _candidates(admissions: pd.DataFrame, config: ExperimentConfig) -> pd.DataFrame:
    """Candidate sets of val and test; none for a cohort without X-rays."""
    if "cxr" not in config.cohort.require:
        columns = {"split": str, "query_hadm_id": "int64", "position": "int64", "candidate_hadm_id": "int64", "is_positive": bool}
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in columns.items()})
    sets = [draw_candidates(admissions, split, config.cohort.candidates, config.cohort.seed) for split in ("test", "val")]
    return pd.concat(sets, ignore_index=True)


def _with_keys(connection: duckdb.DuckDBPyConnection, admissions: pd.DataFrame) -> pd.DataFrame:
    for column in ("subject", "hadm"):
        keys = dict(connection.execute(f"SELECT id, key FROM {column}_keys").fetchall())  # noqa: S608 - constants
        admissions[f"{column}_key"] = admissions[f"{column}_id"].map(keys)
    return admissions


def _facts(hospital: HospitalConfig, source: Source, workspace: Workspace) -> dict[str, Any]:
    simulated = hospital.mimic_iv is not None and hospital.mimic_iv.is_relative_to(workspace.hospital)
    return {
        "kind": source.kind,
        "cxr_root": str(source.cxr_root) if source.cxr_root else None,
        "ecg_root": str(source.ecg_root) if source.ecg_root else None,
        "access": hospital.access,
        "simulated_truth": str(workspace.hospital / "truth.parquet") if simulated else None,
    }


def _write_table(file: Path, table: pd.DataFrame) -> None:
    with atomic_path(file) as temporary:
        table.to_parquet(temporary, index=False)
