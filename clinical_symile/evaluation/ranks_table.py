"""``ranks.parquet``: where the positive of every query stood, for each model.

One row per scorer and query: ``scorer`` (a run's name, or ``oracle``), ``role`` (``run``, ``baseline``, ``oracle``),
``hadm_id``, ``subject_id``, and for the candidate sets and the bank the three counts of ``Ranks``: ``sets_higher``,
``sets_tied``, ``sets_candidates``, ``bank_higher``, ``bank_tied``, ``bank_candidates``. The file's own metadata name the
dataset's digest, the split and the run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clinical_symile.errors import IncompleteStage, InputError
from clinical_symile.evaluation.findings import Finding
from clinical_symile.evaluation.ranks import Ranks
from clinical_symile.evaluation.schema import Report
from clinical_symile.evaluation.task import RetrievalTask
from clinical_symile.stage import atomic_path

RANKS = "ranks.parquet"
_FACTS = b"clinical_symile"
_COUNTS = ("higher", "tied", "candidates")


def write_ranks(file: Path, report: Report, task: RetrievalTask, findings: Mapping[str, Finding], oracle: Finding | None) -> None:
    """Writes the table of an evaluation."""
    lines = [(name, "run" if name == report.run else "baseline", finding) for name, finding in findings.items()]
    if oracle is not None:
        lines.append(("oracle", "oracle", oracle))
    parts = []
    for scorer, role, finding in lines:
        columns: dict[str, object] = {
            "scorer": [scorer] * len(task),
            "role": [role] * len(task),
            "hadm_id": task.hadm_ids[task.queries],
            "subject_id": task.query_subjects,
        }
        for kind, ranks in (("sets", finding.sets), ("bank", finding.bank)):
            columns |= {f"{kind}_{name}": getattr(ranks, name) for name in _COUNTS}
        parts.append(pa.table(columns))
    facts = {"dataset_digest": report.data.dataset_digest, "split": report.split, "run": report.run}
    table = pa.concat_tables(parts).replace_schema_metadata({_FACTS: json.dumps(facts, sort_keys=True).encode()})
    with atomic_path(file) as temporary:
        pq.write_table(table, temporary)


@dataclass(frozen=True)
class RunRanks:
    """One run's own rows of ``ranks.parquet``.

    Attributes:
        run: its name.
        dataset_digest: the data it was evaluated on.
        split: and the split.
        hadm_ids: (q,) ascending.
        subjects: (q,).
        sets: ranks within the candidate sets.
        bank: ranks within the bank.
    """

    run: str
    dataset_digest: str
    split: str
    hadm_ids: NDArray[np.int64]
    subjects: NDArray[np.int64]
    sets: Ranks
    bank: Ranks


def read_ranks(file: Path) -> RunRanks:
    """Reads the rows of the run that a report is about.

    Raises:
        IncompleteStage: there is no such file.
        InputError: it was not written by ``evaluate``.
    """
    try:
        table = pq.read_table(file)
        facts = json.loads((table.schema.metadata or {})[_FACTS])
        own = table.filter(pc.equal(table["role"], "run")).sort_by("hadm_id")
        columns = {name: own[name].to_numpy() for name in own.column_names}
        sets, bank = (Ranks(*(columns[f"{kind}_{name}"] for name in _COUNTS)) for kind in ("sets", "bank"))
        return RunRanks(
            facts["run"], facts["dataset_digest"], facts["split"], columns["hadm_id"], columns["subject_id"], sets, bank
        )
    except FileNotFoundError:
        raise IncompleteStage(f"{file}: is missing; run 'clinical-symile evaluate' for this run first") from None
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{file}: is not the table of ranks of an evaluation ({error}); evaluate the run again") from None
