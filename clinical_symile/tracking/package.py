"""A model's folder as an MLflow pyfunc: signature, requirements, the file that serves it, and the folder itself."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from clinical_symile import __version__
from clinical_symile.tracking.store import import_mlflow
from clinical_symile.types import CXR_SIZE, ECG_LEADS, ECG_SAMPLES, LAB_ITEM_IDS

SERVED_MODEL = Path(__file__).with_name("served_model.py")
MODEL_IN_PACKAGE = Path("artifacts") / "model"
"""Where the model's own folder lies within the package."""


def package_model(model_dir: Path, folder: Path, metadata: Mapping[str, Any]) -> None:
    """Writes the package of a model.

    There is no input example: MLflow would keep it with the model, and it must never be a patient's.

    Args:
        model_dir: a folder written by ``models.save_model``.
        folder: the package; replaced if it is there (an interrupted attempt).
        metadata: facts that MLflow shows with the model.
    """
    mlflow = import_mlflow()
    shutil.rmtree(folder, ignore_errors=True)
    staged = folder.parent / f".{folder.name}.tmp"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True, mode=0o700)
    # MLflow takes the artifact's folder name over, so the source must be called as it shall be called in the package.
    source = staged / MODEL_IN_PACKAGE.name
    shutil.copytree(model_dir, source)
    with _temporary_files_in(staged), warnings.catch_warnings():
        # It asks for an input example and for type hints that it cannot express; the signature says more than both.
        warnings.simplefilter("ignore", UserWarning)
        mlflow.pyfunc.save_model(
            path=str(folder),
            python_model=str(SERVED_MODEL),
            artifacts={"model": str(source)},
            signature=signature(),
            pip_requirements=[f"clinical-symile[app]=={__version__}"],
            metadata=dict(metadata),
        )
    shutil.rmtree(staged)


def signature() -> Any:
    """What the served model takes and gives: n queries, g candidates, scores (n, g)."""
    import_mlflow()
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    float32 = np.dtype(np.float32)
    inputs = [
        TensorSpec(float32, (-1, 1, ECG_SAMPLES, len(ECG_LEADS)), "ecg"),
        TensorSpec(float32, (-1, 2 * len(LAB_ITEM_IDS)), "labs"),
        TensorSpec(float32, (-1, 3, CXR_SIZE, CXR_SIZE), "cxr"),
    ]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema([TensorSpec(float32, (-1, -1))]))


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """Keeps Python's temporary files in a folder: weights of credentialed data do not belong into ``/tmp``."""
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
