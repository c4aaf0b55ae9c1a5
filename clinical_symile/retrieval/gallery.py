"""The gallery: X-rays embedded once by one model, and bound to that model and to the data they came from."""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from clinical_symile.errors import IncompleteStage, InputError
from clinical_symile.models import score
from clinical_symile.retrieval.index import ExactIndex
from clinical_symile.stage import Workspace, digest_file, require_complete
from clinical_symile.types import Modality

logger = logging.getLogger(__name__)

EMBEDDINGS = "embeddings.npy"
MEANS = "mean_embeddings.npy"
TABLE = "manifest.parquet"
QUERY_MODALITIES: Final[tuple[Modality, ...]] = ("ecg", "labs")


@dataclass(frozen=True)
class Gallery:
    """Embedded X-rays, ready to be searched.

    Attributes:
        table: one row for each X-ray, in order of position: position, row (of the dataset), hadm_id, subject_id, cxr_dicom_id,
            cxr_view, split.
        index: scores a query against all of them.
        mean_embeddings: the mean ECG and labs embedding over the gallery's admissions, each (1, d): what stands in for a
            modality that a query lacks.
        facts: the manifest: digests of the model and the dataset, loss, access class.
    """

    table: pd.DataFrame
    index: ExactIndex
    mean_embeddings: Mapping[Modality, Tensor]
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path, *, model: str | None = None, dataset: str | None = None) -> Gallery:
        """Opens a finished gallery and verifies it.

        Args:
            folder: ``gallery/<run>`` of a workspace.
            model: digest of the model that will embed the queries (``model_digest``); the gallery must have been made by it.
            dataset: digest of the dataset whose images will be shown; the gallery must have been made from it.

        Raises:
            IncompleteStage: the gallery is missing or unfinished.
            InputError: it belongs to another model or dataset, or a file was changed since it was written.
        """
        manifest = require_complete(folder, "index")
        for what, expected in (("model", model), ("dataset", dataset)):
            if expected is not None and manifest["inputs"][what] != expected:
                raise InputError(f"{folder}: was made from another {what}; run 'clinical-symile index' again for this one")
        for name, entry in manifest["outputs"].items():
            if digest_file(folder / name) != entry["sha256"]:
                raise InputError(f"{folder / name}: was changed since it was written; run 'clinical-symile index --overwrite'")
        means = torch.from_numpy(np.load(folder / MEANS, allow_pickle=False))
        return cls(
            table=pd.read_parquet(folder / TABLE),
            index=ExactIndex(
                np.load(folder / EMBEDDINGS, mmap_mode="r", allow_pickle=False), functools.partial(score, manifest["loss"])
            ),
            mean_embeddings={modality: means[[row]] for row, modality in enumerate(QUERY_MODALITIES)},
            facts=manifest,
        )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def digest(self) -> str:
        """Digest of the gallery's contents."""
        return str(self.facts["digest"])

    @property
    def access(self) -> str:
        """The class of the data it was made from: synthetic, open or credentialed."""
        return str(self.facts["access"])

    def where(
        self,
        *,
        views: Collection[str] | None = None,
        exclude_subject: int | None = None,
        keep: Collection[int] = (),
    ) -> NDArray[np.bool_]:
        """Which X-rays a query may return.

        Args:
            views: allowed views, such as ``("AP",)``; None allows all.
            exclude_subject: the subject whose X-rays are left out.
            keep: positions that ``exclude_subject`` does not leave out.

        Returns:
            (g,) bool.
        """
        allowed = np.ones(len(self), dtype=np.bool_)
        if exclude_subject is not None:
            allowed &= (self.table["subject_id"] != exclude_subject).to_numpy()
            allowed[list(keep)] = True
        if views is not None:
            allowed &= self.table["cxr_view"].isin(list(views)).to_numpy()
        return allowed


def find_gallery(workspace: Workspace, model: str) -> Path:
    """The folder of the gallery that a model made, whatever the run is called.

    Args:
        workspace: where to look.
        model: the model's digest.

    Raises:
        IncompleteStage: there is none.
    """
    for folder in sorted(workspace.gallery("*").parent.glob("*")):
        try:
            if require_complete(folder, "index")["inputs"]["model"] == model:
                return folder
        except IncompleteStage as unfinished:
            logger.debug("not a finished gallery: %s", unfinished)
    raise IncompleteStage(
        f"{workspace.gallery('')}: holds no gallery made by this model; run 'clinical-symile index' for its run"
    )


def model_digest(folder: Path) -> str:
    """What identifies a saved model: the digest of its list of checksums.

    Raises:
        InputError: the folder holds no saved model.
    """
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        raise InputError(f"{folder}: holds no saved model (SHA256SUMS is missing)")
    return digest_file(sums)
