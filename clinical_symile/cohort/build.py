"""The stage ``cohort``: from a hospital's tables to the admissions that take part."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clinical_symile.cohort import schema
from clinical_symile.cohort.hospital import Hospital, find_hospital
from clinical_symile.cohort.selection import EcgCheck, select_admissions
from clinical_symile.cohort.source import connect
from clinical_symile.cohort.splits import assign_split, draw_candidates
from clinical_symile.config import CohortConfig, ExperimentConfig
from clinical_symile.stage import Rejects, RunOptions, Stage, StageRun, Workspace, atomic_path, digest_file, write_json
from clinical_symile.types import LAB_ITEM_IDS, SPLITS

logger = logging.getLogger(__name__)

_BYTES_PER_SECOND: Final = 20_000_000
"""Of gzipped tables, on one core (all of MIMIC-IV's labevents: two minutes)."""


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
    hospital = find_hospital(config, workspace)
    facts = hospital.facts(workspace.root.resolve())
    stage = Stage(
        "cohort",
        workspace.cohort,
        inputs={name: digest_file(file) for name, file in hospital.tables.items()}
        | {"ecg files": "opened" if ecg_is_usable else "not opened"},
        config={"cohort": config.cohort.model_dump(mode="json"), "hospital": facts},
        options=options,
    )
    if options.dry_run:
        size = sum(file.stat().st_size for file in hospital.tables.values())
        minutes = size / _BYTES_PER_SECOND / 60
        stage.announce(
            {"tables": ", ".join(hospital.tables), "MB to read": round(size / 10**6, 1), "minutes, roughly": round(minutes, 1)}
        )
        return {}
    if stage.should_skip():
        return stage.manifest()
    with stage.writing() as writing:
        writing.facts["hospital"] = facts
        _write(writing, hospital, config.cohort, ecg_is_usable, options)
    return stage.manifest()


def _write(
    writing: StageRun, hospital: Hospital, rules: CohortConfig, ecg_is_usable: EcgCheck | None, options: RunOptions
) -> None:
    with connect(writing.output / ".partial", threads=options.jobs) as connection:
        source = hospital.load(connection, rules)
        chosen, attrition, unusable = select_admissions(connection, source, rules, ecg_is_usable, options)
    admissions = _with_splits(chosen, rules)
    _write_table(writing.output / "admissions.parquet", admissions, schema.ADMISSIONS)
    _write_table(writing.output / "candidates.parquet", _candidates(admissions, rules), schema.CANDIDATES)
    write_json(writing.output / "attrition.json", attrition.steps)
    rejects = Rejects()
    for item, path, reason in (*source.rejects, *unusable):
        rejects.add(item, path, reason)
    rejects.write(writing.output / "rejects.parquet")
    _count(writing, admissions, rejects, rules)
    if rejects.rows:
        logger.warning("cohort: files or rows could not be used, for %d reasons; see rejects.parquet", len(rejects.rows))


def _with_splits(admissions: pa.Table, rules: CohortConfig) -> pa.Table:
    # By the hospital's own id: the number that stands for it may change when other patients are added.
    ids = zip(admissions["subject_key"].to_pylist(), admissions["subject_id"].to_pylist(), strict=True)
    subjects = [str(number) if key is None else str(int(key)) if key.isdecimal() else key for key, number in ids]
    split_of = {s: assign_split(s, rules.seed, rules.val_fraction, rules.test_fraction) for s in set(subjects)}
    return admissions.append_column("split", pa.array([split_of[subject] for subject in subjects], pa.string()))


def _candidates(admissions: pa.Table, rules: CohortConfig) -> pa.Table:
    """Candidate sets of val and test; none for a cohort without X-rays."""
    if "cxr" not in rules.require:
        return schema.CANDIDATES.empty_table()
    frame = admissions.select(["hadm_id", "subject_id", "split", "cxr_path"]).to_pandas()
    sets = [draw_candidates(frame, split, rules.candidates, rules.seed) for split in SPLITS if split != "train"]
    return pa.Table.from_pandas(pd.concat(sets), preserve_index=False)


def _count(writing: StageRun, admissions: pa.Table, rejects: Rejects, rules: CohortConfig) -> None:
    splits = admissions["split"].to_pylist()
    writing.counts.update(
        admissions=len(admissions),
        subjects=pc.count_distinct(admissions["subject_id"]).as_py(),
        rejected=len(rejects.rows),
        **{split: splits.count(split) for split in SPLITS},
    )
    if "labs" in rules.require:
        measured = sum(admissions[itemid].length() - admissions[itemid].null_count for itemid in LAB_ITEM_IDS)
        writing.counts["labs_per_admission"] = round(measured / len(admissions), 2)


def _write_table(file: Path, table: pa.Table, layout: pa.Schema) -> None:
    with atomic_path(file) as temporary:
        pq.write_table(table.select(layout.names).cast(layout), temporary)
