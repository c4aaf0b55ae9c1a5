"""The stage ``cohort``: from a hospital's tables to the admissions that take part."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clinical_symile.cohort import schema
from clinical_symile.cohort.attrition import write_attrition
from clinical_symile.cohort.division import Division, divide, split_tables
from clinical_symile.cohort.ecg_checks import EcgCheck
from clinical_symile.cohort.hospital import Hospital, find_hospital
from clinical_symile.cohort.imported import is_imported, keep_imported
from clinical_symile.cohort.integrity import digest_tables
from clinical_symile.cohort.parquet_cache import ParquetCache
from clinical_symile.cohort.selection import select_admissions
from clinical_symile.cohort.source import connect
from clinical_symile.config import CohortConfig, ExperimentConfig
from clinical_symile.errors import ClinicalSymileError
from clinical_symile.stage import Rejects, RunOptions, Stage, StageRun, Workspace, atomic_path, write_json
from clinical_symile.types import LAB_ITEM_IDS, SPLITS

logger = logging.getLogger(__name__)

_BYTES_PER_SECOND: Final = 20_000_000
"""Of gzipped tables that are not yet kept as Parquet, on two cores (all of MIMIC-IV: a minute and a half)."""


def build_cohort(
    config: ExperimentConfig, workspace: Workspace, options: RunOptions, examine_ecg: EcgCheck | None = None
) -> dict[str, Any]:
    """Writes ``workspace.cohort``.

    Args:
        config: sections ``hospital`` and ``cohort``.
        workspace: receives the cohort; its simulated hospital is used when ``hospital`` names no files.
        options: how to run.
        examine_ecg: takes an ECG record's path and its root, and says what is wrong with it; without it no ECG is opened.

    Returns:
        The manifest; empty for a dry run.

    Raises:
        IncompleteStage: no hospital is named, and none was simulated.
        ConfigError: the options of ``hospital`` contradict one another.
        InputError: a table is missing, damaged or not what it should be; no admission is left; a split is too small.
    """
    if is_imported(workspace):
        return keep_imported("cohort", workspace.cohort, options, config)
    hospital = find_hospital(config, workspace)
    facts = hospital.facts(workspace.root.resolve())
    split_files = split_tables(config.cohort)
    digests = digest_tables(hospital.tables, options)
    stage = Stage(
        "cohort",
        workspace.cohort,
        inputs=digests | digest_tables(split_files, options) | {"ecg files": "opened" if examine_ecg else "not opened"},
        # Split files count by what they hold, not by where they are.
        config={"cohort": config.cohort.model_dump(mode="json", exclude={"splits_from"}), "hospital": facts},
        options=options,
    )
    if options.dry_run:
        size = sum(file.stat().st_size for file in hospital.tables.values())
        minutes = size / _BYTES_PER_SECOND / 60
        tables = ", ".join([*hospital.tables, *split_files])
        stage.announce({"tables": tables, "MB to read": round(size / 10**6, 1), "minutes, roughly": round(minutes, 1)})
        return {}
    if stage.should_skip():
        return stage.manifest()
    cache = ParquetCache(workspace.tables, digests, options)
    # Before an earlier cohort is cleared away: this refuses a folder that holds somebody's own files.
    cache.belong_to(digests["admissions" if hospital.kind == "mimic" else "manifest"])
    with stage.writing() as writing:
        writing.facts["hospital"] = facts | {"tables": digests}  # goes along with whatever derives from the cohort
        _write(writing, hospital, config.cohort, cache, examine_ecg, workspace.tables / "ecg_checks.jsonl", options)
    return stage.manifest()


def _write(
    writing: StageRun,
    hospital: Hospital,
    rules: CohortConfig,
    cache: ParquetCache,
    examine_ecg: EcgCheck | None,
    ecg_log: Path,
    options: RunOptions,
) -> None:
    with connect(writing.output / ".partial", threads=options.jobs) as connection, _database_errors(cache.folder):
        source = hospital.load(connection, rules, cache)
        chosen, attrition, unusable = select_admissions(connection, source, rules, examine_ecg, options, ecg_log)
    division = divide(chosen, rules, attrition)
    _write_division(writing, division)
    members = zip(division.admissions["subject_id"].to_pylist(), division.admissions["split"].to_pylist(), strict=True)
    write_attrition(writing.output, attrition, members)
    rejects = Rejects()
    for item, path, reason in (*source.rejects, *unusable):
        rejects.add(item, path, reason)
    rejects.write(writing.output / "rejects.parquet")
    _count(writing, division.admissions, rejects, rules)
    if rejects.rows:
        logger.warning("cohort: files or rows could not be used, for %d reasons; see rejects.parquet", len(rejects.rows))


@contextmanager
def _database_errors(tables: Path) -> Iterator[None]:
    """Says what to do where DuckDB gives up.

    Raises:
        ClinicalSymileError: it did.
    """
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise ClinicalSymileError(
            "the tables need more memory than they may take, or the disk of the workspace, to which they spill, is full; free "
            "some space, or try --jobs 1"
        ) from None
    except duckdb.IOException as error:
        raise ClinicalSymileError(
            f"{tables}: a table that is kept here as Parquet cannot be read, or the disk is full ({type(error).__name__}); "
            "free some space, or make it again with --overwrite"
        ) from None
    except duckdb.InvalidInputException as error:
        raise ClinicalSymileError(
            f"{tables}: a table that is kept here as Parquet is damaged ({type(error).__name__}); --overwrite makes it again"
        ) from None


def _write_division(writing: StageRun, division: Division) -> None:
    _write_table(writing.output / "admissions.parquet", division.admissions, schema.ADMISSIONS)
    _write_table(writing.output / "candidates.parquet", division.candidates, schema.CANDIDATES)
    if division.strata is not None:
        write_json(writing.output / "strata.json", division.strata.to_dict("records"))
    if division.absent is not None:
        with atomic_path(writing.output / "absent.parquet") as temporary:
            division.absent.to_parquet(temporary, index=False)
        writing.counts["absent"] = len(division.absent)
    if division.facts:
        writing.facts["splits"] = division.facts


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
