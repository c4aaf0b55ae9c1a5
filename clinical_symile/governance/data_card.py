"""The data card: ``governance/data_card.template.md`` filled from the dataset, the cohort and, if simulated, the law."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinical_symile.cohort.attrition import read_attrition
from clinical_symile.governance.card import fill_template
from clinical_symile.governance.documents import load_intended_use
from clinical_symile.governance.policy import Policy, load_policy
from clinical_symile.governance.privacy import suppress_table
from clinical_symile.resources import resource_root
from clinical_symile.stage import Workspace, require_complete
from clinical_symile.types import SPLITS

if TYPE_CHECKING:
    import pandas as pd

_SIMULATED = (
    "Everything in it was drawn by a computer: patients, dates, laboratory values, ECGs and X-rays. The layout of the files is "
    "MIMIC's; no data of MIMIC is in it. Figures measured on it say nothing about patients."
)
_GIVEN = (
    "It was built from files that were given to the cohort stage. Its licence, collection and consent are those of their source, "
    "whose own documentation applies."
)
_RELEASED = (
    "It was imported from Symile-MIMIC as its authors released it, with their splits and candidate sets; their documentation and "
    "licence apply. What it no longer has: "
)
_READERS = {
    "synthetic": "anyone",
    "open": "anyone who keeps to its licence",
    "credentialed": "people with an attestation of their own",
}


def render_data_card(workspace: Workspace, policy: Policy | None = None) -> str:
    """The data card of a workspace's dataset, as markdown.

    Raises:
        IncompleteStage: the cohort or the dataset is not finished.
    """
    policy = policy or load_policy()
    cohort = require_complete(workspace.cohort, "cohort")
    dataset = require_complete(workspace.dataset, "prepare")
    hospital = dataset.get("hospital", {})
    simulated = bool(hospital.get("simulated_truth"))
    groups, labs = _composition(workspace.dataset / "manifest.parquet", policy.disclosure.min_cell)
    access = str(dataset["access"])
    flow = read_attrition(workspace.cohort)
    fields = {
        "hospital": f"{hospital.get('kind', 'other')}{', simulated' if simulated else ''}",
        "access": access,
        "dataset_digest": dataset["digest"],
        "rules": _rules(cohort.get("config", {})),
        "provenance": _SIMULATED if simulated else _provenance(dataset.get("lost")),
        "splits": list(SPLITS),
        "groups": groups,
        "labs_observed": labs,
        "rejected": dataset.get("counts", {}).get("rejected", "not recorded"),
        "attrition": flow["steps"],
        "notes": [note for note in flow["notes"] if note["count"]],
        "law": _law(workspace.hospital / "law.json") if simulated else None,
        "readers": _READERS.get(access, "nobody: its class is not known"),
        "statement": load_intended_use().statement,
    }
    return fill_template(resource_root() / "governance" / "data_card.template.md", fields)


def _rules(config: Mapping[str, Any]) -> str:
    """The cohort's rules, and which of the strict ones were switched off."""
    rules = config.get("cohort", config)
    off = [switch for switch, is_on in (rules.get("strict") or {}).items() if not is_on]
    return f"{rules.get('rules', 'not recorded')}{', without ' if off else ''}{', '.join(off)}"


def _provenance(lost: list[str] | None) -> str:
    """Where the data come from; an imported release says in its manifest what it lost."""
    return _GIVEN if lost is None else f"{_RELEASED}{'. '.join(lost)}."


def _composition(table: Path, minimum: int) -> tuple[list[dict[str, Any]], str]:
    """Subjects per split, in all and by sex and view, and the laboratory tests measured."""
    import pandas as pd

    rows = pd.read_parquet(table, columns=["split", "subject_id", "gender", "cxr_view", "n_labs_observed"])
    groups = _table({"all": rows}, minimum)
    for column, label in (("gender", "sex"), ("cxr_view", "view")):
        values = rows[column].fillna("unknown").astype(str)
        # A subject with films of both views counts in both rows.
        groups += _table({f"{label} {value}": rows[values == value] for value in sorted(values.unique())}, minimum)
    observed = rows["n_labs_observed"]
    return groups, f"median {observed.median():.0f}, from {observed.min():.0f} to {observed.max():.0f}"


def _table(groups: Mapping[str, pd.DataFrame], minimum: int) -> list[dict[str, Any]]:
    counts = {name: group.groupby("split")["subject_id"].nunique().to_dict() for name, group in groups.items()}
    full = {name: {str(split): int(found.get(split, 0)) for split in SPLITS} for name, found in counts.items()}
    return [{"name": name, "counts": list(shown.values())} for name, shown in suppress_table(full, minimum).items()]


def _law(file: Path) -> Mapping[str, Any] | None:
    """What a reader must know of a simulated hospital's law; ``None`` once the hospital was removed."""
    if not file.is_file():
        return None
    law = json.loads(file.read_text(encoding="utf-8"))
    best = next(value for key, value in law.items() if key.startswith("accuracy_"))
    return {
        "synergy": f"{law['synergy']:.0%}",
        "oracle": f"{best['oracle']:.3f}",
        "pairwise": f"{best['uniform_pairwise']:.3f}",
        "chance": f"{best['chance']:.3f}",
        "channels": [{"name": name, **signs} for name, signs in law["signs"].items()],
    }
