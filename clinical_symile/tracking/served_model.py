"""The model as MLflow serves it: "models from code", so what MLflow keeps is this file and the model's folder, no pickle.

MLflow runs this file by itself when a version is loaded; nothing else imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import mlflow
import numpy as np
import torch
from mlflow.pyfunc import PythonModel, PythonModelContext

from clinical_symile.models import embed, load_model, read_metadata, score


class ServedSymile(PythonModel):
    """Scores each query against each candidate X-ray."""

    def load_context(self, context: PythonModelContext) -> None:
        """Reads the model; refuses one whose files were changed."""
        folder = Path(context.artifacts["model"])
        self.loss = str(read_metadata(folder)["loss"])
        self.model = load_model(folder)

    def predict(self, context: PythonModelContext, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """The scores (n, g) of n queries against g candidates.

        Args:
            context: not used.
            model_input: ``ecg`` (n, 1, 5000, 12), ``labs`` (n, 100) and ``cxr`` (g, 3, 320, 320), float32, as the dataset's
                batches hold them. The annotation is the only one that MLflow passes over: it knows none for a mapping of
                arrays. What it enforces is the signature.
            params: not used.
        """
        arrays = cast("Mapping[str, np.ndarray]", model_input)
        batch = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        embedded = embed(self.model, [batch])
        return score(self.loss, embedded["cxr"], [embedded["ecg"], embedded["labs"]]).numpy()


mlflow.models.set_model(ServedSymile())
