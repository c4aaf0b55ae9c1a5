"""Wrong, damaged and foreign files: one clear message each, naming the file and the column, and no patient."""

from __future__ import annotations

import gzip
import shutil

import pytest

from clinical_symile.cohort.csv_table import find_table, load_csv
from clinical_symile.cohort.mimic import find_mimic
from clinical_symile.cohort.selection import missing_file
from clinical_symile.cohort.source import connect
from clinical_symile.errors import InputError

PATIENT, ADMISSION = 10_000_032, 20_000_001


@pytest.fixture
def connection(tmp_path):
    with connect(tmp_path / "spill", threads=2) as opened:
        yield opened


def value(connection, expression: str, *arguments: object):
    return connection.execute(f"SELECT {expression}", list(arguments)).fetchone()[0]


@pytest.mark.parametrize("text", ["1.5", "1e3", " 12", "007", "12.0", "1_0", "", "9223372036854775808", None])
def test_ids_are_exact_or_nothing(connection, text):
    assert value(connection, "as_id(?::VARCHAR)", text) is None


@pytest.mark.parametrize(
    "text",
    [
        "2150-03-01",
        "2150-03-01 10:00:00+02:00",
        "2150-03-01 10:00+02",
        "2150-03-01T10:00:00Z",
        "infinity",
        "50-03-01 10:00",
        "01.03.2150 10:00",
        "2150-02-30 10:00",
        "2150-03-01 24:00",
    ],
)
def test_a_time_has_a_time_of_day_and_no_offset(connection, text):
    """DuckDB's own cast takes +02:00 for the local time, and a date for midnight."""
    assert value(connection, "as_time(?)", text) is None


@pytest.mark.parametrize("text", ["2150-03-01 10:00", "2150-03-01T10:00:00", "2150-03-01 10:00:00.000"])
def test_times_are_read(connection, text):
    assert str(value(connection, "as_time(?)", text)) == "2150-03-01 10:00:00"


@pytest.mark.parametrize("text", [">5", "1_000", "1,5", "nan", "inf", "1e999", "___"])
def test_what_is_no_finite_number_is_no_number(connection, text):
    assert value(connection, "as_number(?)", text) is None


@pytest.mark.parametrize(
    ("date", "clock"), [("21500301", "236000"), ("21500301", "1234567"), ("21500301", "-3"), ("2150301", "3"), ("21500229", "3")]
)
def test_an_impossible_study_time_is_not_cut_to_fit(connection, date, clock):
    assert value(connection, "as_study_time(?, ?)", date, clock) is None


def test_mimic_iv_may_be_given_as_hosp_or_its_parent_plain_or_gzipped(hospital):
    hospital.complete(PATIENT, ADMISSION)
    hospital.write()
    parent = find_mimic(hospital.mimic_iv, None, None)
    assert find_mimic(hospital.mimic_iv / "hosp", None, None) == parent
    packed = parent["labevents"]
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert find_mimic(hospital.mimic_iv, None, None)["labevents"].name == "labevents.csv"


def test_a_missing_table_and_a_missing_folder_are_named(hospital):
    hospital.complete(PATIENT, ADMISSION)
    hospital.write()
    (hospital.mimic_iv / "hosp/labevents.csv.gz").unlink()
    with pytest.raises(InputError, match=r"hosp: labevents\.csv\.gz is missing"):
        find_mimic(hospital.mimic_iv, None, None)
    with pytest.raises(InputError, match="nowhere: there is no such folder; --mimic-iv takes"):
        find_mimic(hospital.root / "nowhere", None, None)


def test_a_missing_column_is_named_with_those_that_are_there(hospital):
    hospital.complete(PATIENT, ADMISSION)
    hospital.write()
    file = hospital.mimic_ecg / "record_list.csv"
    file.write_text(file.read_text().replace("ecg_time", "time"))
    with pytest.raises(
        InputError, match=r"record_list\.csv: lacks the column\(s\) ecg_time\. It has: subject_id, study_id, time, path"
    ):
        reread(hospital)


@pytest.mark.parametrize(
    ("table", "column", "cell", "message"),
    [
        ("admissions", "admittime", "2150-03-01", "column admittime: data row 1 is not a time such as"),
        ("admissions", "admittime", "", "column admittime: data row 1 is empty"),
        ("admissions", "hadm_id", "20000001.0", "column hadm_id: data row 1 is not a whole number"),
        ("labs", "valuenum", "high", "column valuenum: data row 1 is not a number"),
        ("labs", "charttime", "yesterday", "column charttime: data row 1 is not a time"),
        ("images", "StudyTime", "noon", "column StudyTime: data row 1 is no HHMMSS"),
        ("images", "dicom_id", "", "column dicom_id: data row 1 is empty"),
        ("records", "ecg_time", "12/03/2150", "column ecg_time: data row 1 is not a time"),
        ("findings", "Edema", "yes", "column Edema: data row 1 is not a number"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named_by_row_and_column(hospital, table, column, cell, message):
    hospital.complete(PATIENT, ADMISSION)
    getattr(hospital, table)[0][column] = cell
    with pytest.raises(InputError) as caught:
        hospital.select()
    assert message in str(caught.value)
    assert str(PATIENT) not in str(caught.value)


def test_two_admissions_with_one_id_are_refused(hospital):
    hospital.complete(PATIENT, ADMISSION)
    hospital.complete(PATIENT + 1, ADMISSION)
    with pytest.raises(InputError, match="column hadm_id: data rows 1 and 2 have the same value"):
        hospital.select()


def test_an_image_without_a_time_is_in_no_window(hospital):
    hospital.complete(PATIENT, ADMISSION)
    hospital.cxr(PATIENT, 29, "untimed")
    hospital.images[-1]["StudyTime"] = ""
    assert hospital.select()[0].loc[ADMISSION].cxr_dicom_id == f"image-{ADMISSION}"


def test_mimic_iii_is_recognised_by_its_names_and_by_its_columns(hospital, tmp_path):
    hospital.complete(PATIENT, ADMISSION)
    hospital.write()
    third = tmp_path / "mimic-iii"
    third.mkdir()
    with gzip.open(third / "ADMISSIONS.csv.gz", "wt") as handle:
        handle.write("row_id,subject_id,hadm_id,admittime,ethnicity\n")
    with pytest.raises(InputError, match="this looks like MIMIC-III"):
        find_mimic(third, None, None)
    shutil.copy(third / "ADMISSIONS.csv.gz", hospital.mimic_iv / "hosp/admissions.csv.gz")
    with pytest.raises(InputError, match=r"lacks the column\(s\) race; this looks like MIMIC-III"):
        reread(hospital)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[: len(data) // 2], "cut short"),
        (lambda data: data[:-6], "cut short"),
        (lambda data: gzip.decompress(data), "Not a gzipped file"),
        (lambda data: gzip.compress(gzip.decompress(data) + b"1,2\n"), "Expected Number of Columns"),
        (lambda data: gzip.compress(gzip.decompress(data) + b'1,"10000032\n'), "unterminated quote"),
        (lambda data: gzip.compress(gzip.decompress(data) + b"1,2,3,4,5,6,7\r\n"), "not RFC 4180 compliant"),
        (lambda data: b"", "lacks the column"),
    ],
    ids=["half", "no end", "not gzip", "short row", "open quote", "mixed line ends", "empty"],
)
def test_a_damaged_table_is_named_without_quoting_a_patient(hospital, damage, reason):
    for number in range(300):
        hospital.complete(PATIENT + number, ADMISSION + number)
    hospital.write()
    file = hospital.mimic_iv / "hosp/labevents.csv.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError) as caught:
        reread(hospital)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert reason in message
    assert "\n" not in message
    assert str(PATIENT) not in message


def test_lines_are_taken_as_they_are_nothing_is_guessed(connection, tmp_path):
    """DuckDB's sniffer would take '#1' for a comment. Folder names with wildcards are names."""
    folder = tmp_path / "ward [1] *"
    folder.mkdir()
    file = folder / "table.csv"
    file.write_bytes(b'\xef\xbb\xbfb,"odd ""name",a\r\n#1,x,"two\r\nlines"\r\n\r\n"",y,2')
    load_csv(connection, file, "found", ("a", "b"))
    assert connection.execute("SELECT * FROM found ORDER BY file_order").fetchall() == [("two\r\nlines", "#1", 1), ("2", None, 2)]


def test_file_order_survives_parallel_reading(connection, tmp_path):
    """Ties are broken by it. The file is larger than one of DuckDB's buffers, so that several threads read it."""
    file = tmp_path / "long.csv"
    file.write_text("n,text\n" + "".join(f"{n},{'x' * 20}\n" for n in range(1, 1_200_001)))
    load_csv(connection, file, "long", ("n",), where="n::BIGINT % 7 = 0")
    assert value(connection, "count(*) FROM long WHERE n::BIGINT <> file_order") == 0
    assert value(connection, "count(*) FROM long") == 1_200_000 // 7


def test_the_folder_that_has_no_table_is_questioned(tmp_path):
    with pytest.raises(InputError, match="is it the right folder"):
        find_table(tmp_path, "patients")


@pytest.mark.parametrize("path", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd"])
def test_a_path_that_leaves_its_root_is_no_file(tmp_path, path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret.jpg").touch()
    assert "must be relative" in missing_file(path, root)


def test_nothing_is_left_beside_the_files_nor_in_the_current_folder(hospital, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hospital.complete(PATIENT, ADMISSION)
    hospital.select()
    assert [path.name for path in tmp_path.iterdir()] == ["hospital"]


def reread(hospital) -> None:
    """Applies the rules to the files as they are now."""
    write, hospital.write = hospital.write, lambda: None
    try:
        hospital.select()
    finally:
        hospital.write = write
