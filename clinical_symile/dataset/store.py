"""The array store: a folder of ``.npy`` memory maps and a Parquet table, one row per admission.

=====================  =================================================================================
``manifest.parquet``   one row per admission: ids, split, place and size of the image, who the patient is
``cxr.npy``            all images one after the other, flat uint8; short side 320, aspect kept
``ecg.npy``            (n, 5000, 12) int16, leads in the order of ``types.ECG_LEADS``, 500 Hz
``ecg_scale.npy``      (n, 12, 2) float64: gain in ADC units per mV, baseline; where the manifest says
                       ``ecg_units: arbitrary``, per unit of a scale that each record has to itself
``labs.npy``           (n, 50) float32 percentiles; the mean percentile of train where nothing was measured
``labs_observed.npy``  (n, 50) uint8, 1 = measured
``labs_values.npy``    (n, 50) float32 as measured, NaN where nothing was
``access.json``        access class of the data
``candidates.parquet`` (split, query_hadm_id, position, candidate_hadm_id, is_positive)
=====================  =================================================================================
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clinical_symile.errors import InputError
from clinical_symile.modalities.ecg import to_mv
from clinical_symile.stage import require_complete
from clinical_symile.types import CXR_SIZE, ECG_LEADS, ECG_SAMPLES, LAB_ITEM_IDS

Rows = NDArray[np.int64]


class ArrayStore:
    """A prepared dataset, read-only and memory-mapped.

    Attributes:
        folder: where it lies.
        manifest: the stage's manifest.
        table: one row per admission, in row order.
        ecg_adc: (n, 5000, 12) int16.
        ecg_scale: (n, 12, 2) float64, gain and baseline.
        labs: (n, 50) float32 percentiles.
        labs_observed: (n, 50) uint8, 1 = measured.
        labs_values: (n, 50) float32, NaN = not measured.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.table = pd.read_parquet(folder / "manifest.parquet")
        self._cxr = self._map("cxr.npy")
        self.ecg_adc = self._map("ecg.npy")
        self.ecg_scale = self._map("ecg_scale.npy")
        self.labs = self._map("labs.npy")
        self.labs_observed = self._map("labs_observed.npy")
        self.labs_values = self._map("labs_values.npy")
        self._check()
        self._offsets = self.table["cxr_offset"].to_numpy()
        self._shapes = self.table[["cxr_height", "cxr_width"]].to_numpy()

    @classmethod
    def open(cls, folder: Path) -> ArrayStore:
        """Opens the output of ``prepare``.

        Raises:
            IncompleteStage: it is not finished.
            InputError: its arrays do not fit its table.
        """
        return cls(folder, require_complete(folder, "prepare"))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def digest(self) -> str:
        """Digest of every array and table in it."""
        return str(self.manifest["digest"])

    @property
    def access(self) -> str:
        """Access class of the data, which everything derived from it inherits."""
        return str(self.manifest["access"])

    @property
    def ecg_is_calibrated(self) -> bool:
        """Whether amplitudes are mV; those of the imported Symile-MIMIC release are not."""
        return bool(self.manifest.get("ecg_units", "mV") == "mV")

    def rows(self, split: str) -> Rows:
        """Rows of a split, ascending."""
        return np.flatnonzero(self.table["split"].to_numpy() == split).astype(np.int64)

    def cxr(self, row: int) -> NDArray[np.uint8]:
        """(h, w) grey image with short side 320."""
        height, width = self._shapes[row]
        start = self._offsets[row]
        image: NDArray[np.uint8] = self._cxr[start : start + height * width].reshape(height, width)
        return image

    def ecg_mv(self, row: int) -> NDArray[np.float32]:
        """(5000, 12) in mV, or in arbitrary units if not ``ecg_is_calibrated``."""
        return to_mv(self.ecg_adc[row], self.ecg_scale[row, :, 0], self.ecg_scale[row, :, 1])

    def candidates(self, split: str) -> tuple[Rows, Rows, Rows]:
        """The candidate sets of a split.

        Returns:
            Queries (q,) and candidates (q, c) as rows, and (q,) the position of each query's own among its candidates.
        """
        return self._candidate_sets.get(split, (np.empty(0, np.int64), np.empty((0, 0), np.int64), np.empty(0, np.int64)))

    @cached_property
    def _candidate_sets(self) -> dict[str, tuple[Rows, Rows, Rows]]:
        row_of = pd.Series(np.arange(len(self.table), dtype=np.int64), index=self.table["hadm_id"])
        sets = pd.read_parquet(self.folder / "candidates.parquet").sort_values(["split", "query_hadm_id", "position"])
        found = {}
        for split, part in sets.groupby("split"):
            size = int(part["position"].max()) + 1
            queries = part["query_hadm_id"].to_numpy()[::size]
            found[str(split)] = (
                row_of.loc[queries].to_numpy(),
                row_of.loc[part["candidate_hadm_id"]].to_numpy().reshape(-1, size),
                part["is_positive"].to_numpy().reshape(-1, size).argmax(axis=1).astype(np.int64),
            )
        return found

    def _map(self, name: str) -> NDArray[Any]:
        try:
            mapped: NDArray[Any] = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.folder / name}: cannot be read ({error}); run 'clinical-symile prepare --overwrite'"
            ) from None
        return mapped

    def _check(self) -> None:
        n, labs = len(self.table), len(LAB_ITEM_IDS)
        pixels = int((self.table["cxr_height"] * self.table["cxr_width"]).sum())
        expected = {
            "cxr.npy": (self._cxr, (pixels,), np.uint8),
            "ecg.npy": (self.ecg_adc, (n, ECG_SAMPLES, len(ECG_LEADS)), np.int16),
            "ecg_scale.npy": (self.ecg_scale, (n, len(ECG_LEADS), 2), np.float64),
            "labs.npy": (self.labs, (n, labs), np.float32),
            "labs_observed.npy": (self.labs_observed, (n, labs), np.uint8),
            "labs_values.npy": (self.labs_values, (n, labs), np.float32),
        }
        for name, (array, shape, dtype) in expected.items():
            if array.shape != shape or array.dtype != dtype:
                raise InputError(
                    f"{self.folder / name}: holds {array.shape} {array.dtype}, but its table asks for {shape} "
                    f"{np.dtype(dtype)}; run 'clinical-symile prepare --overwrite'"
                )
        if n and self.table[["cxr_height", "cxr_width"]].min(axis=None) < CXR_SIZE:
            raise InputError(f"{self.folder / 'manifest.parquet'}: holds an image smaller than {CXR_SIZE} pixels")
