"""The parts of the import: ADC lattices, grey pictures, CSV text, checksums, tensors that are larger than memory."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.dataset.batch import scale_records
from clinical_symile.dataset.released.csv_text import read_csv
from clinical_symile.dataset.released.digests import BLOCK, hash_files
from clinical_symile.dataset.released.lattice import MAX_STEPS, Recovered, find_steps, recover_ecg
from clinical_symile.dataset.released.pictures import recover_picture
from clinical_symile.dataset.released.tensors import open_tensor
from clinical_symile.errors import InputError, UnusableFile
from clinical_symile.modalities.cxr import normalise
from clinical_symile.modalities.ecg import read_ecg
from clinical_symile.stage import RunOptions

QUIET = RunOptions(quiet=True, jobs=2)


def released(adc: np.ndarray, gain: float = 200.0, baseline: int = 0) -> np.ndarray:
    """The authors' tensor of a record, from wfdb's physical signal."""
    signal = (adc - baseline) / gain
    return (2 * (signal - signal.min()) / (signal.max() - signal.min()) - 1).astype(np.float32)


def stored(found: Recovered) -> np.ndarray:
    """What the store's batches make of a record."""
    scale = np.stack([found.record.gain, found.record.baseline], axis=-1)
    return scale_records(torch.from_numpy(found.record.adc[None]), torch.from_numpy(scale[None]))[0, 0].numpy()


# --- ECG -----------------------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    low=st.integers(-32_767, 32_766),
    spread=st.integers(1, MAX_STEPS),
    levels=st.integers(2, 4000),
    gain=st.sampled_from([200.0, 1000.0, 4.88, 1 / 3]),
    seed=st.integers(0, 99),
)
def test_adc_values_of_one_gain_are_recovered(low: int, spread: int, levels: int, gain: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    high = min(low + spread, 32_767)
    adc = rng.choice(rng.integers(low, high + 1, levels), (5000, 12))
    adc[0, 0], adc[1, 1], adc[2, 2] = low, high, min(low + 1, high)
    tensor = released(adc, gain, baseline=17)
    found = recover_ecg(tensor, "x")
    assert found.on_lattice
    assert np.ptp(found.record.adc.astype(np.int64) - adc) == 0, "the record, but for its offset"
    np.testing.assert_allclose(stored(found), tensor, rtol=0, atol=6e-8)
    np.testing.assert_allclose(found.record.to_mv(), tensor, rtol=0, atol=6e-8)


def test_a_common_divisor_goes_and_the_tensor_stays() -> None:
    adc = np.random.default_rng(0).integers(-200, 200, (5000, 12)) * 5
    found = recover_ecg(released(adc), "x")
    assert np.ptp(found.record.adc) == np.ptp(adc) / 5
    np.testing.assert_allclose(stored(found), released(adc), rtol=0, atol=6e-8)


def test_other_signals_are_stored_in_full_range_steps() -> None:
    tensor = np.random.default_rng(2).uniform(-1, 1, (5000, 12)).astype(np.float32)
    tensor.flat[:2] = -1, 1
    found = recover_ecg(tensor, "x")
    assert not found.on_lattice
    assert found.record.adc.min() == -32_767, "-32768 marks a missing sample"
    assert np.abs(stored(found) - tensor).max() <= 2**-15


def test_two_levels_are_one_step() -> None:
    assert find_steps(np.array([-1.0, 1.0, 1.0])) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x * np.nan, "NaN throughout: the record was constant"),
        (lambda x: np.where(np.arange(12) == 3, np.nan, x), "holds NaN or infinity"),
        (lambda x: x * 0.9, "does not reach from -1 to 1"),
        (lambda x: x * 0, "does not reach from -1 to 1"),
        (lambda x: x * np.inf, "holds NaN or infinity"),
        (lambda x: x * 2, "does not reach from -1 to 1"),
    ],
)
def test_signals_that_the_authors_cannot_have_written(change, reason: str) -> None:
    tensor = released(np.random.default_rng(3).integers(1, 99, (5000, 12)))
    with np.errstate(invalid="ignore"), pytest.raises(UnusableFile, match=reason):
        recover_ecg(change(tensor).astype(np.float32), "x")


@pytest.mark.realdata
def test_real_records_of_one_gain_are_recovered(real_data: Path) -> None:
    """A real record has no common divisor: its neighbouring samples differ by single ADC units."""
    seen = 0
    for header in sorted((real_data / "ecg" / "cinc2021").rglob("*.hea")):
        try:
            record = read_ecg(header)
        except UnusableFile:
            continue
        found = recover_ecg(released(record.adc.astype(np.int64), record.gain[0]), header)
        assert found.on_lattice
        assert np.ptp(found.record.adc.astype(np.int64) - record.adc) == 0
        seen += 1
    assert seen > 10


# --- CXR -----------------------------------------------------------------------------------------------------------------------


def test_every_grey_level_comes_back() -> None:
    grey = np.resize(np.arange(256, dtype=np.uint8), (320, 320))
    picture = recover_picture(normalise(grey), "x")
    np.testing.assert_array_equal(picture.grey, grey)
    assert picture.is_grey
    assert picture.error == 0.0


def test_noise_below_a_grey_level_is_measured() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (320, 320), dtype=np.uint8)
    tensor = normalise(grey) + np.float32(1e-3)
    picture = recover_picture(tensor, "x")
    np.testing.assert_array_equal(picture.grey, grey)
    assert picture.error == pytest.approx(1e-3, rel=1e-2)


def test_colours_become_luma() -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (3, 320, 320), dtype=np.uint8)
    tensor = np.stack([normalise(channel)[number] for number, channel in enumerate(rgb)])
    picture = recover_picture(tensor, "x")
    assert not picture.is_grey
    luma = (rgb.astype(np.int64) * np.array([19595, 38470, 7471])[:, None, None]).sum(axis=0) / 65536
    assert np.abs(picture.grey - luma).max() <= 1


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (np.full((3, 320, 320), np.nan, np.float32), "holds NaN or infinity"),
        (normalise(np.full((320, 320), 7, np.uint8)), "shows nothing"),
        (np.random.default_rng(2).uniform(0, 255, (3, 320, 320)).astype(np.float32), "its grey levels leave 0…255"),
    ],
)
def test_pictures_that_are_none(tensor: np.ndarray, reason: str) -> None:
    with pytest.raises(UnusableFile, match=reason):
        recover_picture(tensor, "x")


# --- CSV -----------------------------------------------------------------------------------------------------------------------


def test_csv_cells_are_read_exactly_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    text = 'id,value,when,text\n7,1.5,2150-01-02 03:04:05,"a ""b"", c\nd"\n8.0,,,\n9,-3e2,2150-01-02,NA\n'
    file.write_text("\ufeff" + text, encoding="utf-8")
    csv = read_csv(file, ["text", "id", "value", "when"])
    assert csv.ids("id").tolist() == [7, 8, 9]
    np.testing.assert_array_equal(csv.number("value"), [1.5, np.nan, -300])
    assert csv.time("when").tolist() == [pd.Timestamp("2150-01-02 03:04:05"), pd.NaT, pd.Timestamp("2150-01-02")]
    assert csv.text("text").tolist()[0] == 'a "b", c\nd'
    assert csv.text("text").isna().tolist() == [False, True, False], "NA is a text"
    with pytest.raises(InputError, match=r"column value: data row 1 is not a whole number \(1 such rows\)"):
        csv.whole("value")
    with pytest.raises(InputError, match=r"column text: data row 2 is empty"):
        csv.ids("text")


def test_a_damaged_csv_does_not_quote_a_patient(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("subject_id,hadm_id\n1,2\n10000032\n")
    with pytest.raises(InputError, match="cannot be read as CSV") as error:
        read_csv(file, ["subject_id", "hadm_id"])
    assert "10000032" not in str(error.value)


# --- files ---------------------------------------------------------------------------------------------------------------------


def test_hashes_are_those_of_hashlib_whatever_the_size(tmp_path: Path) -> None:
    files = {}
    for name, size in (("empty", 0), ("small", 5), ("block", BLOCK), ("more", BLOCK + 1), ("two", 2 * BLOCK)):
        files[name] = tmp_path / name
        files[name].write_bytes(os.urandom(size))
    expected = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    for jobs in (1, 3):
        assert dict(hash_files(files, RunOptions(quiet=True, jobs=jobs))) == expected
    assert dict(hash_files({}, QUIET)) == {}


def test_a_file_that_cannot_be_read_stops_the_hashing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(InputError, match="folder: cannot be read"):
        list(hash_files({"folder": tmp_path / "folder", "file": tmp_path / "file"}, QUIET))


def test_rows_of_a_large_tensor_do_not_stay_in_memory(tmp_path: Path) -> None:
    """A memory map would count every page that was touched."""
    file = tmp_path / "x.npy"
    rows = 600
    with file.open("wb") as handle:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, 3, 320, 320)}
        np.lib.format.write_array_header_2_0(handle, header)
        handle.truncate(handle.tell() + rows * 3 * 320 * 320 * 4)
    tensor = open_tensor(file, (3, 320, 320))
    before = psutil.Process().memory_info().rss
    for row in range(rows):
        assert not tensor.row(row).any()
    grown = psutil.Process().memory_info().rss - before
    assert grown < 50e6, f"{grown / 1e6:.0f} MB of {file.stat().st_size / 1e6:.0f} MB"


def test_row_of_a_tensor_is_numpys(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", array)
    tensor = open_tensor(tmp_path / "x.npy", (2, 3))
    for row in (6, 0, 3):
        np.testing.assert_array_equal(tensor.row(row), array[row])
    os.truncate(tmp_path / "x.npy", (tmp_path / "x.npy").stat().st_size - 1)
    with pytest.raises(InputError, match="ends within row 6"):
        tensor.row(6)
