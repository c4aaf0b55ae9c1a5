"""The rules as a plain, slow program that follows the paper's sentences and those of the README: the oracle of the SQL.

It knows nothing of the SQL: loops and ``min`` over rows, one admission at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

Row = dict[str, Any]
DAY = timedelta(hours=24)
ALWAYS = datetime.max


@dataclass
class Tables:
    """Rows of a hospital in the order of their files.

    Admissions: subject, hadm, time, end (None: not known). Images: subject, hadm (None: by time), dicom, study, path, view, time,
    place, on_disk. Records: subject, hadm, study, path, time, place, bad, flat. Results: subject, item, time, value, unit, place.
    ``labelled`` are the studies with findings; None where an image needs none.
    """

    admissions: list[Row] = field(default_factory=list)
    images: list[Row] = field(default_factory=list)
    records: list[Row] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)
    labelled: set[int] | None = None


def naive_cohort(
    tables: Tables, limits: dict[str, tuple[float, float]], wrong_units: Collection[tuple[str, str]], on: Collection[str] = ()
) -> tuple[dict[int, Row], dict[int, str]]:
    """Applies the rules, and the strict ones in ``on``.

    Returns:
        What was chosen for each admission of the cohort, and at which step each other admission left.
    """
    cohort, left = {}, {}
    for patient in patients(tables):
        image_owner = owners(patient, patient.images, in_cxr_window, "cxr_during_stay" in on)
        record_owner = owners(patient, patient.records, in_ecg_window, False)
        for admission in patient.admissions:
            outcome = one_admission(admission, patient, limits, wrong_units, on, image_owner, record_owner)
            if isinstance(outcome, str):
                left[admission["hadm"]] = outcome
            else:
                cohort[admission["hadm"]] = outcome
    return cohort, left


def patients(tables: Tables) -> Iterator[Tables]:
    """Each patient's rows."""
    of: dict[Any, Tables] = {}
    for name in ("admissions", "images", "records", "results"):
        for row in getattr(tables, name):
            patient = of.setdefault(row["subject"], Tables(labelled=tables.labelled))
            getattr(patient, name).append(row)
    return iter(of.values())


def one_admission(admission, tables, limits, wrong_units, on, image_owner, record_owner) -> Row | str:
    hadm = admission["hadm"]
    images = [image for image in own(admission, tables.images) if in_cxr_window(image, admission)]
    if not images:
        return "frontal X-ray"
    if "cxr_during_stay" in on:
        images = [image for image in images if not is_after(image, admission)]
        if not images:
            return "X-ray during the stay"
    if "one_admission_per_study" in on:
        images = [image for image in images if image_owner[study(image)] == hadm]
        if not images:
            return "X-ray of its own"
    images = [image for image in images if image["on_disk"]]
    if not images:
        return "X-ray on disk"
    image = min(images, key=lambda row: (row["time"] or ALWAYS, row["place"], row["dicom"]))
    if tables.labelled is not None and image["study"] not in tables.labelled:
        return "CheXpert labels"

    results = [row for row in tables.results if near(row, admission)]
    if not results:
        return "labs"
    if "expected_lab_units" in on:
        results = [row for row in results if (row["item"], row["unit"]) not in wrong_units]
        if not results:
            return "labs in the expected units"
    if "plausible_labs" in on:
        results = [row for row in results if limits[row["item"]][0] <= row["value"] <= limits[row["item"]][1]]
        if not results:
            return "plausible labs"
    labs: dict[str, Row] = {}
    for row in sorted(results, key=lambda row: (row["time"], row["place"], row["value"])):
        labs.setdefault(row["item"], row["value"])

    records = [record for record in own(admission, tables.records) if in_ecg_window(record, admission)]
    if not records:
        return "ECG"
    if "one_admission_per_study" in on:
        records = [record for record in records if record_owner[study(record)] == hadm]
        if not records:
            return "ECG of its own"
    records = [record for record in records if not record["bad"]]
    if not records:
        return "usable ECG"
    if "no_flat_ecg_leads" in on:
        records = [record for record in records if not record["flat"]]
        if not records:
            return "ECG without flat leads"
    record = min(records, key=lambda row: (row["time"] or ALWAYS, row["place"], row["path"]))
    return {"cxr": image["path"], "ecg": record["path"], "labs": labs}


def own(admission: Row, rows: list[Row]) -> Iterator[Row]:
    """All rows of the patient; where a hospital ties a file to an admission, that admission's only."""
    return (row for row in rows if row["hadm"] in (None, admission["hadm"]))


def near(row: Row, admission: Row) -> bool:
    return abs(row["time"] - admission["time"]) <= DAY


def in_cxr_window(image: Row, admission: Row) -> bool:
    tied = image["hadm"] is not None
    view = image["view"] in ("AP", "PA") or (tied and image["view"] is None)
    return view and ((tied and image["time"] is None) or DAY < image["time"] - admission["time"] <= 3 * DAY)


def in_ecg_window(record: Row, admission: Row) -> bool:
    return (record["hadm"] is not None and record["time"] is None) or near(record, admission)


def is_after(row: Row, admission: Row) -> bool:
    return row["time"] is not None and admission["end"] is not None and row["time"] > admission["end"]


def is_during(row: Row, admission: Row) -> bool:
    known = row["time"] is not None and admission["end"] is not None
    return known and admission["time"] <= row["time"] <= admission["end"]


def study(row: Row) -> Any:
    return row["path"] if row["study"] is None else row["study"]


def owners(tables: Tables, rows: list[Row], in_window, only_during_stay: bool) -> dict[Any, int]:
    """The one admission that each study belongs to: taken during its stay, else nearest to its beginning, else the smaller id."""
    best: dict[Any, tuple[Any, ...]] = {}
    for admission in tables.admissions:
        for row in own(admission, rows):
            if not in_window(row, admission) or (only_during_stay and is_after(row, admission)):
                continue
            distance = abs(row["time"] - admission["time"]) if row["time"] else timedelta.max
            rank = (not is_during(row, admission), distance, admission["hadm"])
            best[study(row)] = min(rank, best.get(study(row), rank))
    return {name: rank[-1] for name, rank in best.items()}
