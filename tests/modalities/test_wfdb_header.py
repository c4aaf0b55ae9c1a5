"""Hostile and broken WFDB headers: refused in milliseconds, before the wfdb package sees them."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import wfdb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clinical_symile.errors import UnusableFile
from clinical_symile.modalities.ecg import read_ecg
from clinical_symile.modalities.intake import resolve_inside
from clinical_symile.modalities.wfdb_header import read_header
from clinical_symile.types import ECG_LEADS

LINE = "r.dat 16 200(0)/mV 16 0 0 0 0"


def header(record_line: str = "r 12 500 5000", lines: list[str] | None = None) -> str:
    return "\n".join([record_line, *(lines or [f"{LINE} {lead}" for lead in ECG_LEADS])]) + "\n"


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """A good record: 12 leads of noise."""
    samples = np.random.default_rng(0).integers(-900, 900, (5000, 12)).astype("<i2")
    (tmp_path / "r.dat").write_bytes(samples.tobytes())
    (tmp_path / "r.hea").write_text(header())
    return tmp_path / "r"


def test_the_header_reads_as_wfdb_reads_it(record: Path) -> None:
    """Fields that may be left out, comments, CRLF, and a baseline that falls back to the ADC zero."""
    lines = ["r.dat 16+0 1.052e+02(-3)/mV 16 7 0 0 0 I", "r.dat 16 200/mv 12 -5 1 2 0 V 5 chest", "r.dat 16 200"]
    text = header("r 3 500/24000(0) 5000 15:08:24 01/02/2100", [*lines, "# a comment"]).replace("\n", "\r\n")
    record.with_suffix(".hea").write_bytes(b"# first\r\n" + text.encode())
    ours, theirs = read_header(record), wfdb.rdheader(str(record))
    assert (ours.fs_hz, ours.n_samples) == (theirs.fs, theirs.sig_len)
    assert [signal.name for signal in ours.signals] == ["I", "V 5 chest", ""]
    assert [signal.baseline for signal in ours.signals] == theirs.baseline == [-3, -5, 0]
    assert [signal.gain for signal in ours.signals] == theirs.adc_gain == [105.2, 200, 200]
    assert [signal.fmt for signal in ours.signals] == theirs.fmt
    assert [signal.unit for signal in ours.signals] == theirs.units == ["mV", "mv", "mV"]


HOSTILE = {
    "4e9 samples": (header("r 12 500 4000000000"), "number of samples"),
    "a length the file does not hold": (header("r 12 500 900000000", None), None),
    "100,000 signals": (header("r 100000 500 5000", [LINE] * 100_000), "is too large|too much"),
    "1,000 signals": (header("r 1000 500 5000", [LINE] * 1000), "number of signals"),
    "fewer lines than announced": (header(lines=[LINE]), "announces 12 signals and describes 1"),
    "negative length": (header("r 12 500 -5000"), "number of samples"),
    "no rate": (header("r 12 0 5000"), "sampling rate of 0 Hz"),
    "rate nan": (header("r 12 nan 5000"), "sampling rate 'nan' is not a number"),
    "rate inf": (header("r 12 1e999 5000"), "sampling rate '1e999' is not a number"),
    "gain nan": (header(lines=[LINE.replace("200", "nan")] * 12), "gain 'nan"),
    "gain 1e999": (header(lines=[LINE.replace("200", "1e999")] * 12), "gain '1e999'"),
    "other folder": (header(lines=[f"../{LINE}"] * 12), "plain file name"),
    "absolute path": (header(lines=[f"/etc/{LINE}"] * 12), "plain file name"),
    "address": (header(lines=[f"s3://bucket/{LINE}"] * 12), "plain file name"),
    "hidden file": (header(lines=[f".{LINE}"] * 12), "plain file name"),
    "another record": (header("q 12 500 5000"), "another record name"),
    "segments": (header("r/1000000 12 500 5000"), "several segments"),
    "empty": ("", "the file is empty"),
    "only comments": ("# nothing\n", "no record line"),
    "binary": ("\x00\x01\x02" * 100, "malformed"),
    "digits that are not ASCII": (header("r ١٢ 500 5000"), "number of signals"),
    "format with a tail": (header(lines=[LINE.replace(" 16 ", " 16x1+24evil ", 1)] * 12), "signal format"),
    "offset beyond the file": (header().replace(" 16 200", " 16+999999999999 200"), "cut short"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused_at_once(record: Path, name: str) -> None:
    text, reason = HOSTILE[name]
    record.with_suffix(".hea").write_text(text, encoding="utf-8")
    started = time.monotonic()
    if reason is None:  # only the ten seconds that are there are read
        assert read_ecg(record).adc.shape == (5000, 12)
    else:
        with pytest.raises(UnusableFile, match=reason):
            read_ecg(record)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", ["s3://bucket/r", "r.txt", "a b", "…", "r\0", "r" * 81])
def test_hostile_record_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnusableFile, match=r"not a WFDB record name|cannot be read|missing"):
        read_ecg(tmp_path / name)


def test_a_folder_that_looks_like_an_address_is_refused(tmp_path: Path, record: Path) -> None:
    folder = tmp_path / "gcs::x"
    folder.mkdir()
    (folder / "r.dat").write_bytes(record.with_suffix(".dat").read_bytes())
    (folder / "r.hea").write_text(header().replace(" 16 200", " 61 200"))  # a format that wfdb is asked to read
    with pytest.raises(UnusableFile, match="folder whose name holds '::'"):
        read_ecg(folder / "r")


def test_links_are_followed_inside_the_root_and_refused_outside(tmp_path: Path, record: Path) -> None:
    """DataLad keeps data sets as links into the same tree; a link to elsewhere could read a secret."""
    inside, outside = tmp_path / "data" / "records", tmp_path / "elsewhere"
    annex = tmp_path / "data" / "annex"
    for folder in (inside, annex, outside):
        folder.mkdir(parents=True)
    for home in (annex, outside):
        for suffix in (".hea", ".dat"):
            (home / f"object{suffix}").write_bytes(record.with_suffix(suffix).read_bytes())
    for suffix in (".hea", ".dat"):
        (inside / f"r{suffix}").symlink_to(annex / f"object{suffix}")
    assert read_ecg(inside / "r", root=tmp_path / "data").adc.shape == (5000, 12)
    with pytest.raises(UnusableFile, match=r"\.hea file leads out of its folder"):
        read_ecg(inside / "r")
    (inside / "r.dat").unlink()
    (inside / "r.dat").symlink_to(outside / "object.dat")
    with pytest.raises(UnusableFile, match=r"\.dat file leads out of its folder"):
        read_ecg(inside / "r", root=tmp_path / "data")


def test_loops_of_links_are_refused(record: Path) -> None:
    record.with_suffix(".dat").unlink()
    record.with_suffix(".dat").symlink_to(record.with_suffix(".dat"))
    with pytest.raises(UnusableFile, match=r"loop of links|missing"):
        read_ecg(record)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 700), st.sampled_from("0123456789 -+./()xe:~\nmVaN#")), min_size=1, max_size=4),
)
def test_a_damaged_header_gives_an_ecg_or_a_reason_but_never_an_accident(record: Path, changes: list[tuple[int, str]]) -> None:
    text = list(header())
    for position, character in changes:
        text[min(position, len(text) - 1)] = character
    record.with_suffix(".hea").write_text("".join(text))
    try:
        ecg = read_ecg(record)
    except UnusableFile:
        return
    assert ecg.adc.shape == (5000, 12)
    assert np.isfinite(ecg.to_mv()).all()


# ---------------------------------------------------------------------------------------------- paths from tables


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a/..", "", "a\0b", "..\\x", "C:\\x", "\\\\server\\x"])
def test_paths_that_leave_their_root_are_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnusableFile):
        resolve_inside(tmp_path, path)


@pytest.mark.parametrize("path", ["files/p10/p10000032/s50414267/x.jpg", "..%2fetc", "ü/é", "a..b/c", "~root/x", "./a"])
def test_paths_inside_their_root_are_joined(tmp_path: Path, path: str) -> None:
    assert resolve_inside(tmp_path, path) == tmp_path.resolve() / path


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    with pytest.raises(UnusableFile, match="through a link"):
        resolve_inside(root, "out/secret.jpg")
