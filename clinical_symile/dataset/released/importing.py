"""Symile-MIMIC 1.0.0 as the stages ``cohort`` and ``prepare`` would have written it, from the tensors of the release."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clinical_symile.cohort import schema
from clinical_symile.cohort.attrition import Attrition, write_attrition
from clinical_symile.cohort.imported import RELEASED
from clinical_symile.cohort.parquet_cache import forget_tables
from clinical_symile.config import ExperimentConfig
from clinical_symile.dataset.assembly import LabArrays, assemble
from clinical_symile.dataset.released.chunks import ImportTask, import_chunk, load_fidelity
from clinical_symile.dataset.released.digests import hash_files, promised_digests, verify
from clinical_symile.dataset.released.layout import FULL, Part, Release, find_release, tensor_name
from clinical_symile.dataset.released.panels import Panels, read_panels
from clinical_symile.dataset.released.report import count_candidates, describe_fidelity, what_was_lost
from clinical_symile.dataset.released.rows import (
    TensorPair,
    find_places,
    open_tensors,
    read_row_keys,
    require_equal_repeats,
)
from clinical_symile.dataset.released.tables import ReleasedTables, read_tables
from clinical_symile.dataset.released.tensors import read_keys
from clinical_symile.errors import InputError
from clinical_symile.execution import map_items
from clinical_symile.stage import (
    MANIFEST,
    Rejects,
    RunOptions,
    Stage,
    StageRun,
    Workspace,
    atomic_path,
    digest_json,
    track,
)
from clinical_symile.types import CXR_SIZE, ECG_LEADS, ECG_SAMPLES, LAB_ITEM_IDS, SPLITS

logger = logging.getLogger(__name__)

CHUNK: Final = 64
"""Admissions per chunk: a second or two of work, 15 MB on disk; one row at a time is in memory as float32."""

_STORED_BYTES: Final = CXR_SIZE**2 + ECG_SAMPLES * len(ECG_LEADS) * 2
"""Of an admission in the store."""

_HASHED_PER_SECOND: Final = 400_000_000
_SECONDS_PER_ADMISSION: Final = 0.02


def import_released_dataset(config: ExperimentConfig, workspace: Workspace, options: RunOptions, folder: Path) -> dict[str, Any]:
    """Writes ``workspace.cohort`` and ``workspace.dataset`` from the release of Symile-MIMIC.

    Args:
        config: ``hospital.access`` (default: credentialed), ``prepare.max_reject_share`` and, for the seed of replaced
            candidates, ``cohort.seed``.
        workspace: receives both; they are finished as if by ``cohort`` and ``prepare``.
        options: how to run.
        folder: the root of the release, which holds ``symile_mimic_data.csv``.

    Returns:
        The dataset's manifest, in which ``fidelity`` says how exactly the tensors were kept and ``lost`` what the release
        itself no longer has; empty for a dry run.

    Raises:
        InputError: a file is missing, damaged, not listed in ``SHA256SUMS.txt``, or contradicts another; or the workspace
            holds another hospital's data.
        TooManyRejects: a larger share of the admissions than ``prepare.max_reject_share`` cannot be used.
    """
    release = find_release(folder)
    _require_free(workspace, options)
    promised = promised_digests(release)
    if options.dry_run:
        _announce(release, promised, config, workspace, options)
        return {}
    if promised is None:
        digests = dict(hash_files({name: release.path(name) for name in (*release.small, *release.big)}, options))
    else:
        verify(release, promised, release.small, RunOptions(quiet=True, jobs=options.jobs))
        digests = promised
    cohort, dataset = _stages(release, digests, config, workspace, options)
    cohort_done = cohort.should_skip()
    if dataset.should_skip() and cohort_done:
        return dataset.manifest()
    tables = read_tables(release)
    keys = read_row_keys(release, tables)
    panels = read_panels(release, tables, keys)
    tensors = open_tensors(release, keys)
    if not cohort_done:
        with cohort.writing() as writing:
            forget_tables(workspace.tables)  # another hospital's, of another access class
            _write_cohort(writing, tables, _facts(config) | {"tables": cohort.inputs}, folder=release.folder)
    with dataset.writing() as writing:
        if promised is not None:
            verify(release, promised, release.big, options, notes=writing.output / ".partial" / "checksums")
        compared = require_equal_repeats(tensors, keys)
        # From the file, as ``prepare`` does, so that the columns have the same types.
        admissions = pd.read_parquet(workspace.cohort / "admissions.parquet")
        _write_dataset(writing, admissions, tables, keys, tensors, panels, config, options)
        writing.facts["hospital"] = _facts(config) | {"tables": cohort.inputs}  # goes along with whatever derives from it
        writing.facts["source"] = {
            "folder": str(release.folder),
            "checksums": "SHA256SUMS.txt" if promised is not None else "none came with the release",
            "repeated_rows_compared": compared,
        }
    return dataset.manifest()


def _require_free(workspace: Workspace, options: RunOptions) -> None:
    """Refuses to replace another hospital's cohort or dataset unasked."""
    if options.overwrite or options.dry_run:
        return
    for place in (workspace.cohort, workspace.dataset):
        manifest = place / MANIFEST
        if manifest.is_file() and f'"{RELEASED}"' not in manifest.read_text(encoding="utf-8"):
            raise InputError(
                f"{place}: holds the data of another hospital; choose another --workspace, or replace them with --overwrite"
            )


def _facts(config: ExperimentConfig) -> dict[str, Any]:
    """The hospital's facts, as ``cohort`` records them."""
    access = config.hospital.access or "credentialed"
    return {"kind": RELEASED, "cxr_root": None, "ecg_root": None, "access": access, "simulated_truth": None}


def _stages(
    release: Release, digests: dict[str, str], config: ExperimentConfig, workspace: Workspace, options: RunOptions
) -> tuple[Stage, Stage]:
    hospital = _facts(config)
    cohort = Stage(
        "cohort",
        workspace.cohort,
        inputs={name: digests.get(name, "not computed") for name in release.small},
        config={
            "cohort": {"rules": "symile-mimic, as released: splits and candidate sets are the authors'"},
            "hospital": hospital,
        },
        options=options,
    )
    dataset = Stage(
        "prepare",
        workspace.dataset,
        inputs={
            "cohort": cohort.key,
            "hospital": digest_json(hospital),
            "seed": str(config.cohort.seed),
            **{name: digests.get(name, "not computed") for name in release.big},
        },
        config=config.prepare,
        options=options,
    )
    return cohort, dataset


def _announce(
    release: Release, promised: dict[str, str] | None, config: ExperimentConfig, workspace: Workspace, options: RunOptions
) -> None:
    cohort, dataset = _stages(release, promised or {}, config, workspace, options)
    admissions = {part: len(set(read_keys(release.path(tensor_name("hadm_id", part))).tolist())) for part in FULL}
    total = sum(admissions.values())
    read = release.size(release.small) + release.size(release.big)
    minutes = (read / _HASHED_PER_SECOND + total * _SECONDS_PER_ADMISSION) / options.jobs / 60
    cohort.announce({"tables": ", ".join(name for name in release.small if name.endswith(".csv"))})
    dataset.announce(
        {
            "admissions": f"{total} ({', '.join(f'{part} {count}' for part, count in admissions.items())})",
            "MB to read": read // 10**6,
            "MB to write, roughly": total * _STORED_BYTES // 10**6,
            "MB needed while it runs, roughly": 2 * total * _STORED_BYTES // 10**6,
            "minutes, roughly": round(minutes, 1),
        }
    )


def _write_cohort(writing: StageRun, tables: ReleasedTables, hospital: dict[str, Any], folder: Path) -> None:
    admissions = tables.admissions
    _write_table(writing.output / "admissions.parquet", admissions, schema.ADMISSIONS)
    _write_table(writing.output / "candidates.parquet", tables.candidates, schema.CANDIDATES)
    attrition = Attrition(tables.everyone, tables.patients)
    attrition.keep(
        "in a split", len(admissions), "in no split of the release, where each patient's admissions are in one split only"
    )
    write_attrition(writing.output, attrition, zip(admissions["subject_id"].tolist(), admissions["split"].tolist(), strict=True))
    Rejects().write(writing.output / "rejects.parquet")
    measured = int(admissions[list(LAB_ITEM_IDS)].notna().to_numpy().sum())
    writing.counts.update(
        admissions=len(admissions),
        subjects=int(admissions["subject_id"].nunique()),
        rejected=0,
        **{split: int((admissions["split"] == split).sum()) for split in SPLITS},
        labs_per_admission=round(measured / len(admissions), 2),
    )
    writing.facts.update(hospital=hospital, source={"folder": str(folder)})


def _write_dataset(
    writing: StageRun,
    admissions: pd.DataFrame,
    tables: ReleasedTables,
    keys: dict[Part, Any],
    tensors: dict[Part, TensorPair],
    panels: Panels,
    config: ExperimentConfig,
    options: RunOptions,
) -> None:
    places = find_places(tables, keys)
    partial = writing.output / ".partial"
    tasks = [
        ImportTask(partial / f"{first:08d}.npz", first, tuple(places[first : first + CHUNK]), tensors)
        for first in range(0, len(places), CHUNK)
    ]
    chunks = map_items(import_chunk, tasks, jobs=options.jobs, preload=("clinical_symile.dataset.released.chunks",))
    files = list(track(chunks, len(tasks), f"import, chunks of {CHUNK} admissions", options))

    def labs(table: pd.DataFrame, left: pd.DataFrame) -> LabArrays:
        rows = left.index.to_numpy()
        arrays = panels.arrays
        return arrays._replace(percentiles=arrays.percentiles[rows], observed=arrays.observed[rows], values=arrays.values[rows])

    assemble(writing, files, admissions, tables.candidates, labs, _facts(config), config, released_sets=True)
    fidelity = describe_fidelity(load_fidelity(files), panels)
    lost = what_was_lost(fidelity)
    writing.facts.update(
        ecg_units="arbitrary",
        fidelity=fidelity,
        candidates=count_candidates(tables, pd.read_parquet(writing.output / "candidates.parquet")),
        lost=lost,
    )
    for sentence in lost:
        logger.info("import: %s", sentence)


def _write_table(file: Path, table: pd.DataFrame, layout: pa.Schema) -> None:
    # Without pandas' own notes, so that it is read back with the types of a cohort from raw files.
    plain = pa.Table.from_pandas(table[layout.names], schema=layout, preserve_index=False).replace_schema_metadata(None)
    with atomic_path(file) as temporary:
        pq.write_table(plain, temporary)
