"""Tables are what their release promises, and belong together."""

from __future__ import annotations

import csv
import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from clinical_symile.cohort import build_cohort
from clinical_symile.cohort.integrity import digest_tables
from clinical_symile.errors import InputError
from clinical_symile.stage import RunOptions, Workspace

QUIET = RunOptions(quiet=True, jobs=2)


def promise(folder: Path, *files: Path, digest: str | None = None) -> None:
    lines = [
        f"{digest or hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(folder).as_posix()}" for file in files
    ]
    (folder / "SHA256SUMS.txt").write_text("\n".join(lines) + "\n")


def rewrite(file: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    """Changes the rows of a gzipped CSV file."""
    with gzip.open(file, "rt", newline="") as handle:
        rows = change(list(csv.DictReader(handle)))
    with gzip.open(file, "wt", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def table(tmp_path) -> Path:
    file = tmp_path / "mimic-iv" / "hosp" / "patients.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"subject_id\n1\n"))
    return file


@pytest.mark.parametrize("above", [False, True])
def test_a_table_that_keeps_its_promise_passes(table, above):
    folder = table.parent.parent if above else table.parent
    promise(folder, table)
    assert digest_tables({"patients": table}, QUIET) == {"patients": hashlib.sha256(table.read_bytes()).hexdigest()}


@pytest.mark.parametrize("above", [False, True])
def test_a_table_that_breaks_its_promise_is_named(table, above):
    promise(table.parent.parent if above else table.parent, table, digest="0" * 64)
    with pytest.raises(InputError, match=r"patients\.csv\.gz: is not the file that its SHA256SUMS\.txt promises.*fetch it again"):
        digest_tables({"patients": table}, QUIET)


def test_a_table_that_nobody_promised_passes_with_a_warning(table, caplog):
    other = table.with_name("other.csv")
    other.write_text("x\n")
    promise(table.parent, other)
    assert set(digest_tables({"patients": table}, QUIET)) == {"patients"}
    assert "SHA256SUMS.txt does not list patients.csv.gz" in caplog.text


def test_the_list_above_counts_where_the_nearer_one_is_silent(table):
    other = table.with_name("other.csv")
    other.write_text("x\n")
    promise(table.parent, other)
    promise(table.parent.parent, table, digest="0" * 64)
    with pytest.raises(InputError, match="is not the file that its"):
        digest_tables({"patients": table}, QUIET)


def test_somebody_elses_list_above_stops_nobody(table, caplog):
    (table.parent.parent / "SHA256SUMS.txt").write_text("-----BEGIN PGP SIGNED MESSAGE-----\n")
    assert set(digest_tables({"patients": table}, QUIET)) == {"patients"}
    assert "passed over" in caplog.text


@pytest.fixture
def complete(hospital, tmp_path):
    """A hospital large enough for splits, written; building its cohort is a call away."""
    for number in range(60):
        hospital.complete(10_000_000 + number, 20_000_000 + number)
    for number in range(60):
        hospital.lab(10_000_000 + number, 2, 4.0, "50971")
    hospital.write()

    def build() -> dict[str, object]:
        return build_cohort(hospital.config(candidates=2), Workspace(tmp_path / "ws"), QUIET, None)

    return hospital, build


def test_the_whole_stage_checks_the_promises(complete):
    hospital, build = complete
    folder = hospital.mimic_iv
    promise(folder, *folder.glob("hosp/*.csv.gz"))
    build()
    rewrite(folder / "hosp" / "labevents.csv.gz", lambda rows: rows[:-1])
    with pytest.raises(InputError, match=r"labevents\.csv\.gz: is not the file"):
        build()


def test_an_admission_without_its_patient_means_mixed_versions(complete):
    hospital, build = complete
    rewrite(hospital.mimic_iv / "hosp" / "patients.csv.gz", lambda rows: rows[3:])
    with pytest.raises(InputError, match=r"patients\.csv\.gz: lacks 3 patients of 3 rows of admissions\.csv\.gz.*one release"):
        build()


def test_a_table_of_strangers_means_mixed_data_sets(complete):
    hospital, build = complete
    rewrite(
        hospital.mimic_iv / "hosp" / "labevents.csv.gz",
        lambda rows: [row | {"subject_id": str(int(row["subject_id"]) + 5_000_000)} for row in rows],
    )
    with pytest.raises(InputError, match=r"labevents\.csv\.gz: no row's subject_id stands in patients\.csv\.gz"):
        build()


def test_some_strangers_are_normal(complete):
    hospital, build = complete
    rewrite(
        hospital.mimic_iv / "hosp" / "labevents.csv.gz",
        lambda rows: [*rows, *(row | {"subject_id": str(int(row["subject_id"]) + 5_000_000)} for row in rows)],
    )
    assert build()["counts"]["admissions"] == 60


def test_two_versions_of_mimic_are_told_apart_by_the_providers(complete):
    hospital, build = complete
    hosp = hospital.mimic_iv / "hosp"
    rewrite(
        hosp / "admissions.csv.gz", lambda rows: [row | {"hospital_expire_flag": "0", "admit_provider_id": ""} for row in rows]
    )
    rewrite(hosp / "labevents.csv.gz", lambda rows: [row | {"specimen_id": "1"} for row in rows])
    with pytest.raises(
        InputError, match=r"labevents\.csv\.gz: lacks the column order_provider_id, though admissions\.csv\.gz has"
    ):
        build()
    rewrite(hosp / "labevents.csv.gz", lambda rows: [row | {"order_provider_id": ""} for row in rows])
    build()


def test_mimic_iv_1_is_named(complete):
    hospital, build = complete
    rewrite(
        hospital.mimic_iv / "hosp" / "admissions.csv.gz",
        lambda rows: [{("ethnicity" if name == "race" else name): cell for name, cell in row.items()} for row in rows],
    )
    with pytest.raises(InputError, match=r"lacks the column\(s\) race; this looks like MIMIC-IV 1\.0"):
        build()


@pytest.mark.parametrize("table", ["mimic-cxr-2.0.0-metadata.csv.gz", "record_list.csv"])
def test_duplicate_keys_are_named(complete, table):
    hospital, build = complete
    file = next(hospital.root.rglob(table))
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text()
    text += text.splitlines()[5] + "\n"
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    with pytest.raises(InputError, match=r"data rows 5 and 61 have the same value; it must be unique"):
        build()


def test_a_second_run_reads_no_csv_table_again(complete, monkeypatch):
    hospital, build = complete
    build()
    made = {file.name: file.stat().st_mtime_ns for file in (hospital.root.parent / "ws" / "tables").glob("*.parquet")}
    assert set(made) == {
        f"{name}.parquet" for name in ("admissions", "patients", "labevents", "metadata", "chexpert", "record_list")
    }
    build_cohort(hospital.config(candidates=3), Workspace(hospital.root.parent / "ws"), QUIET, None)
    assert made == {file.name: file.stat().st_mtime_ns for file in (hospital.root.parent / "ws" / "tables").glob("*.parquet")}
