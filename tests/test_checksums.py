"""SHA256SUMS.txt as sha256sum writes it and as releases ship it."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from clinical_symile.checksums import CHECKSUMS_FILE, expected_digests
from clinical_symile.errors import InputError

A, B = "a" * 64, "b" * 64


def write(folder: Path, text: str) -> Path:
    (folder / CHECKSUMS_FILE).write_text(text, encoding="utf-8", newline="")
    return folder


def test_no_file_is_none(tmp_path: Path) -> None:
    assert expected_digests(tmp_path, ["x.csv"]) is None


@pytest.mark.parametrize(
    "line",
    [
        f"{A}  data/x.csv\n",
        f"{A} *data/x.csv\n",
        f"{A} data/x.csv\n",
        f"{A}\tdata/x.csv\n",
        f"{A}  ./data/x.csv\n",
        f"{A.upper()}  data/x.csv\n",
        f"{A}  data/x.csv\r\n",
        f"{A}  data/x.csv",
        f"\ufeff{A}  data/x.csv\n",
        f"# a comment\n\n{A}  data/x.csv\n",
        f"SHA256 (data/x.csv) = {A}\n",
        f"SHA256 (./data/x.csv) = {A}\n",
        f"{B}  other.csv\n{A}  data/x.csv\n{A}  data/x.csv\n",
    ],
)
def test_formats(tmp_path: Path, line: str) -> None:
    assert expected_digests(write(tmp_path, line), ["data/x.csv", "not listed.csv"]) == {"data/x.csv": A}


def test_names_with_spaces_and_escapes(tmp_path: Path) -> None:
    write(tmp_path, f"{A}  a file (1).csv\n\\{B}  new\\nline\\\\.csv\n")
    assert expected_digests(tmp_path, ["a file (1).csv", "new\nline\\.csv"]) == {"a file (1).csv": A, "new\nline\\.csv": B}


def test_nothing_else_is_kept(tmp_path: Path) -> None:
    assert expected_digests(write(tmp_path, f"{A}  x\n{B}  y\n"), ["y"]) == {"y": B}
    assert expected_digests(tmp_path, []) == {}


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / CHECKSUMS_FILE).write_bytes(A.encode() + b"  \xff.jpg\n" + B.encode() + b"  y\n")
    assert expected_digests(tmp_path, ["y"]) == {"y": B}


@pytest.mark.parametrize("line", ["<html>", f"{A[:63]}  x", f"{A}g  x", f"{A}", f"{A}  ", "x  " + A])
def test_line_that_is_no_checksum(tmp_path: Path, line: str) -> None:
    write(tmp_path, f"{B}  y\n{line}\n")
    with pytest.raises(InputError, match=r"SHA256SUMS\.txt: line 2 is no checksum .* download it again"):
        expected_digests(tmp_path, ["y"])


def test_contradiction(tmp_path: Path) -> None:
    write(tmp_path, f"{A}  x\n{B}  x\n")
    assert expected_digests(tmp_path, ["y"]) == {}
    with pytest.raises(InputError, match="line 2 gives x another digest"):
        expected_digests(tmp_path, ["x"])


def test_folder_in_its_place(tmp_path: Path) -> None:
    (tmp_path / CHECKSUMS_FILE).mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        expected_digests(tmp_path, ["x"])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed")
@pytest.mark.parametrize("option", ["--text", "--binary", "--tag"])
def test_what_sha256sum_writes(tmp_path: Path, option: str) -> None:
    files = {"plain.csv": b"1", "with space.csv": b"2"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    printed = subprocess.run(["sha256sum", option, *files], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert expected_digests(write(tmp_path, printed), list(files)) == {
        name: hashlib.sha256(content).hexdigest() for name, content in files.items()
    }


def test_half_a_million_lines_take_little_memory(tmp_path: Path) -> None:
    with (tmp_path / CHECKSUMS_FILE).open("w") as handle:
        handle.writelines(f"{number:064x} files/p10/p{number}/s{number}/{number:044x}.jpg\n" for number in range(400_000))
    tracemalloc.start()
    found = expected_digests(tmp_path, [f"files/p10/p399999/s399999/{399_999:044x}.jpg"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert list((found or {}).values()) == [f"{399_999:064x}"]
    assert peak < 2_000_000
