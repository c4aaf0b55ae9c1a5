"""CSV tables become Parquet once; what was made of something else is never taken."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from clinical_symile.cohort import parquet_cache
from clinical_symile.cohort.csv_table import damage_reported, filled, readable
from clinical_symile.cohort.integrity import digest_tables
from clinical_symile.cohort.parquet_cache import Layout, ParquetCache, forget_tables
from clinical_symile.cohort.source import connect
from clinical_symile.errors import ClinicalSymileError, InputError
from clinical_symile.stage import RunOptions

QUIET = RunOptions(quiet=True, jobs=2)
LAYOUT = Layout(
    columns=("id", "value"),
    optional=("unit",),
    select="SELECT as_id(id) AS id, as_number(value) AS value, unit FROM csv",
    requirements=(*filled("id"), *readable("as_id", "id"), *readable("as_number", "value")),
    where="value IS NOT NULL",
    unique="id",
)


def write(file: Path, text: str) -> Path:
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def read(folder: Path, file: Path, layout: Layout = LAYOUT, options: RunOptions = QUIET) -> list[tuple[object, ...]]:
    with connect(folder / "spill", threads=2) as connection:
        cache = ParquetCache(folder / "tables", digest_tables({"results": file}, options), options)
        relation = cache.table(connection, "results", file, layout)
        return connection.execute(f"SELECT id, value, unit, file_order FROM {relation} ORDER BY file_order").fetchall()


@pytest.fixture
def count_conversions(monkeypatch) -> list[str]:
    statements: list[str] = []
    execute = parquet_cache._execute
    monkeypatch.setattr(parquet_cache, "_execute", lambda *args: (statements.append(args[1]), execute(*args))[1])
    return statements


def test_the_rows_come_typed_and_in_the_order_of_the_file(tmp_path):
    file = write(tmp_path / "results.csv.gz", "value,id,other\n3.5,7,x\n,8,no value\n-1,5,x\n2,9,x\n")
    assert read(tmp_path, file) == [(7, 3.5, None, 1), (5, -1.0, None, 2), (9, 2.0, None, 3)]


@pytest.mark.slow
def test_the_order_of_the_file_is_kept_by_every_number_of_threads(tmp_path):
    rows = "\n".join(f"{(i * 7919) % 1_000_003},{i},mg/dL" for i in range(600_000))
    file = write(tmp_path / "results.csv.gz", "id,value,unit\n" + rows + "\n")
    found = read(tmp_path, file)
    assert [value for _, value, _, _ in found] == list(range(600_000))
    assert found[123_456] == ((123_456 * 7919) % 1_000_003, 123_456.0, "mg/dL", 123_457)


def test_a_table_is_read_once(tmp_path, count_conversions):
    file = write(tmp_path / "results.csv.gz", "id,value\n1,2\n")
    assert read(tmp_path, file) == read(tmp_path, file)
    assert len(count_conversions) == 1


@pytest.mark.parametrize("change", ["file", "layout", "overwrite", "damage", "foreign"])
def test_what_was_made_of_something_else_is_made_again(tmp_path, count_conversions, change):
    file = write(tmp_path / "results.csv", "id,value\n1,2\n")
    read(tmp_path, file)
    layout, options = LAYOUT, QUIET
    cached = tmp_path / "tables" / "results.parquet"
    if change == "file":
        write(file, "id,value\n1,3\n")
    elif change == "layout":
        layout = replace(LAYOUT, where="value = '2'")
    elif change == "overwrite":
        options = replace(QUIET, overwrite=True)
    elif change == "damage":
        cached.write_bytes(cached.read_bytes()[:-20])
    else:
        pq.write_table(pq.read_table(cached).replace_schema_metadata({"other": "program"}), cached)
    assert read(tmp_path, file, layout, options) == [(1, 3.0 if change == "file" else 2.0, None, 1)]
    assert len(count_conversions) == 2


def test_what_it_keeps_is_for_this_user_alone(tmp_path):
    read(tmp_path, write(tmp_path / "results.csv", "id,value\n1,2\n"))
    assert (tmp_path / "tables").stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "tables").iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,value\n1,2\n2,x\n3,y\n", r"results\.csv: column value: data row 2 is not a number \(2 such rows\)"),
        ("id,value\n1,2\n,\n,3\n", r"column id: data row 3 is empty \(1 such rows\)"),
        ("id,value\n1,2\n7,2\n3,\n7,4\n", r"column id: data rows 2 and 4 have the same value"),
        ("id,other\n1,2\n", r"lacks the column\(s\) value"),
        ("id,value,id\n1,2,3\n", "has the column id more than once"),
        ('id,value\n1,"2\n', "cannot be read as CSV; it may be damaged"),
    ],
)
def test_a_bad_table_is_named_and_leaves_nothing(tmp_path, text, message):
    file = write(tmp_path / "results.csv", text)
    with pytest.raises(InputError, match=message):
        read(tmp_path, file)
    assert [entry.name for entry in (tmp_path / "tables").glob("*")] in ([], [".lock"])


def test_a_truncated_gzip_is_named_whatever_it_was_cut_to(tmp_path):
    rows = "\n".join(f"{i},{i * 17 % 9973}" for i in range(20_000))
    whole = gzip.compress(f"id,value\n{rows}\n".encode())
    for length in (len(whole) - 1, len(whole) - 8, len(whole) // 2, 40, 12):
        file = tmp_path / "results.csv.gz"
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"results\.csv\.gz: .*(damaged|cut short|lacks)"):
            read(tmp_path, file)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from clinical_symile.cohort import parquet_cache
from test_parquet_cache import read, LAYOUT
folder = Path({folder!r})
execute = parquet_cache._execute

def die_half_way(connection, statement, *rest):
    target = statement.split("TO '")[1].split("'")[0]
    Path(target).write_bytes(b"PAR1 half a file")
    os.kill(os.getpid(), signal.SIGKILL)

parquet_cache._execute = die_half_way
read(folder, folder / "results.csv")
"""


def test_a_killed_conversion_is_done_again_and_leaves_nothing_behind(tmp_path):
    file = write(tmp_path / "results.csv", "id,value\n1,2\n")
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": os.getcwd()}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / "tables").glob(".results.parquet.*.tmp"))
    assert read(tmp_path, file) == [(1, 2.0, None, 1)]
    assert sorted(entry.name for entry in (tmp_path / "tables").iterdir()) == [".lock", "results.parquet"]


def test_progress_is_told_for_a_large_file(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(parquet_cache, "_SHOWN_FROM_BYTES", 0)
    file = write(tmp_path / "results.csv", "id,value\n" + "\n".join(f"{i},1" for i in range(1000)))
    with caplog.at_level("INFO"):
        read(tmp_path, file, options=RunOptions(jobs=1))
    assert "cohort: read results.csv, percent: 100/100" in caplog.text


@pytest.mark.slow
def test_the_real_layout_keeps_the_order_of_a_file_too_large_for_one_thread(tmp_path):
    """DuckDB makes a join of a long IN (…), and a join loses the order of the rows: only visible beyond some 100,000 of them."""
    from clinical_symile.cohort.mimic import _LAYOUTS

    file = tmp_path / "labevents.csv"
    with connect(tmp_path / "spill", threads=2) as connection:
        connection.execute(
            "COPY (SELECT 10000000 + i // 20 AS subject_id, '50983' AS itemid, TIMESTAMP '2150-01-01' AS charttime, "
            f"i AS valuenum, 'mEq/L' AS valueuom FROM range(3_000_000) AS t(i)) TO '{file}' (HEADER)"
        )
        cache = ParquetCache(tmp_path / "tables", digest_tables({"labevents": file}, QUIET), QUIET)
        relation = cache.table(connection, "labevents", file, _LAYOUTS["labevents"])
        out_of_order = f"SELECT count(*), count(*) FILTER (value <> file_order - 1) FROM {relation}"
        assert connection.execute(out_of_order).fetchall() == [(3_000_000, 0)]


def test_every_layout_is_read_without_a_join(tmp_path):
    from clinical_symile.cohort.mimic import _LAYOUTS

    for name, layout in _LAYOUTS.items():
        file = write(tmp_path / f"{name}.csv", ",".join((*layout.columns, *layout.optional)) + "\n")
        with connect(tmp_path / "spill") as connection:
            cache = ParquetCache(tmp_path / "tables", digest_tables({name: file}, QUIET), QUIET)
            assert connection.execute(f"SELECT count(*) FROM {cache.table(connection, name, file, layout)}").fetchall() == [(0,)]


def test_a_layout_that_needs_a_join_is_refused(tmp_path):
    file = write(tmp_path / "results.csv", "id,value\n1,2\n")
    joined = replace(LAYOUT, where="value IN (SELECT '2' UNION ALL SELECT '3')")
    with pytest.raises(ClinicalSymileError, match="lose the order of its rows"):
        read(tmp_path, file, joined)


@pytest.mark.parametrize("folder", ["unit=mg", "ws [1]", "a*b", "it's", "with ? and space"])
def test_the_name_of_a_folder_means_nothing_else(tmp_path, folder):
    (tmp_path / folder).mkdir()
    for decoy in ("ws 1", "axb", "with x and space"):
        (tmp_path / decoy / "tables").mkdir(parents=True)
        write(tmp_path / decoy / "results.csv", "id,value,unit\n66,6,x\n")
    file = write(tmp_path / folder / "results.csv", "id,value,unit\n1,2,mg/dL\n")
    assert read(tmp_path / folder, file) == [(1, 2.0, "mg/dL", 1)]
    assert read(tmp_path / folder, file) == [(1, 2.0, "mg/dL", 1)]


def test_a_full_disk_is_not_the_files_fault(tmp_path):
    error = duckdb.IOException("Could not write all bytes to file: No space left on device")
    with pytest.raises(ClinicalSymileError, match="the disk of the workspace is full"), damage_reported(tmp_path / "x.csv"):
        raise error


def test_another_hospitals_tables_are_not_kept(tmp_path):
    file = write(tmp_path / "results.csv", "id,value\n1,2\n")
    folder = tmp_path / "tables"
    cache = ParquetCache(folder, {}, QUIET)
    cache.belong_to("one")
    read(tmp_path, file)
    (folder / "ecg_checks.jsonl").touch()
    cache.belong_to("one")
    assert (folder / "results.parquet").exists()
    cache.belong_to("another")
    assert sorted(entry.name for entry in folder.iterdir()) == [".lock", "hospital.txt"]
    read(tmp_path, file)
    forget_tables(folder)
    assert [entry.name for entry in folder.iterdir()] == [".lock"]


def test_a_folder_of_somebody_else_is_not_touched(tmp_path):
    mine = tmp_path / "tables" / "my_results.parquet"
    mine.parent.mkdir()
    mine.write_text("years of work")
    forget_tables(mine.parent)
    with pytest.raises(InputError, match=r"tables: holds files that nothing here wrote \(my_results\.parquet\)"):
        ParquetCache(mine.parent, {}, QUIET).belong_to("one")
    assert mine.read_text() == "years of work"
