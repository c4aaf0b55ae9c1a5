"""MONAI dictionary transforms over the pure functions of ``cxr``, ``ecg`` and ``labs``, for ``monai.transforms.Compose``.

MONAI's own ``LoadImaged`` is not used: it transposes pictures and knows neither MONOCHROME1 nor windows.

Example::

    Compose([
        LoadCXRd("cxr"),                                   # (1, h, w) uint8, short side 320
        RandSpatialCropd("cxr", 320, random_size=False),   # MONAI's own
        NormaliseCXRd("cxr"),                              # (3, 320, 320) float32
        LoadECGd("ecg"),                                   # (1, 5000, 12) float32
        LabVectord("labs", statistics),                    # (100,) float32
    ])
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray

from clinical_symile.modalities import cxr, ecg, labs


class EntryTransform(MapTransform):
    """Replaces each entry under ``keys`` by ``convert(entry)`` and leaves the rest of the dictionary alone.

    Args:
        keys: names of the entries.
        allow_missing_keys: skip names that the dictionary lacks.
    """

    @abstractmethod
    def convert(self, entry: Any) -> NDArray[Any]:
        """The new entry."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """A new dictionary with the entries converted."""
        return {**data, **{key: self.convert(data[key]) for key in self.key_iterator(dict(data))}}


class LoadCXRd(EntryTransform):
    """A path becomes the stored picture: (1, h, w) uint8 with the short side at 320.

    Args:
        keys: entries that hold paths.
        allow_burned_in: accept DICOM that says BurnedInAnnotation = YES.
        allow_missing_keys: skip names that the dictionary lacks.
    """

    def __init__(self, keys: KeysCollection, *, allow_burned_in: bool = False, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.allow_burned_in = allow_burned_in

    def convert(self, entry: Path | str) -> NDArray[np.uint8]:
        """See ``cxr.read_cxr`` and ``cxr.to_store``."""
        return cxr.to_store(cxr.read_cxr(entry, allow_burned_in=self.allow_burned_in))[None]


class NormaliseCXRd(EntryTransform):
    """A cropped picture (1, 320, 320) uint8 becomes the encoder's input (3, 320, 320) float32."""

    def convert(self, entry: Any) -> NDArray[np.float32]:
        """See ``cxr.normalise``; MONAI's crops give tensors, which are taken as well."""
        return cxr.normalise(np.asarray(entry)[0])


class LoadECGd(EntryTransform):
    """The path of a WFDB record, without extension, becomes the encoder's input (1, 5000, 12) float32 in [-1, 1].

    Args:
        keys: entries that hold record paths.
        root: folder that the records' files must lie in.
        allow_missing_keys: skip names that the dictionary lacks.
    """

    def __init__(self, keys: KeysCollection, *, root: Path | None = None, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.root = root

    def convert(self, entry: Path | str) -> NDArray[np.float32]:
        """See ``ecg.read_ecg`` and ``ecg.encode``."""
        record = ecg.read_ecg(entry, self.root)
        return ecg.encode(record.adc, record.gain, record.baseline)


class LabVectord(EntryTransform):
    """Raw values (k,), NaN where not measured, become the encoder's input (2 k,) float32.

    Args:
        keys: entries that hold the values.
        statistics: fitted on the training admissions.
        allow_missing_keys: skip names that the dictionary lacks.
    """

    def __init__(self, keys: KeysCollection, statistics: labs.LabStatistics, *, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.statistics = statistics

    def convert(self, entry: Any) -> NDArray[np.float32]:
        """See ``labs.LabStatistics.transform`` and ``labs.encode``."""
        return labs.encode(*self.statistics.transform(np.asarray(entry)[None]))[0]
