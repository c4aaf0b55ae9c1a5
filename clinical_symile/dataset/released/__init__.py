"""Symile-MIMIC as its authors released it: tensors and tables, checked and taken over into the store."""

from clinical_symile.dataset.released.importing import import_released_dataset

__all__ = ["import_released_dataset"]
