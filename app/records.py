"""What the pages speak of: a patient, a question, an answer. Imports nothing while it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clinical_symile.retrieval import Explanation

QueryModality = Literal["ecg", "labs"]

VIEWS: Final = ("AP", "PA")
"""The views that can be chosen."""


@dataclass(frozen=True)
class Provenance:
    """What answers, and from what: the registered model, the data and the gallery, with their digests."""

    name: str
    version: int
    loss: str
    access: str
    gallery_size: int
    model_digest: str
    gallery_digest: str
    dataset_digest: str


@dataclass(frozen=True, eq=False)
class Patient:
    """What is known of the patient who is looked at.

    Attributes:
        label: a pseudonym, never an identifier.
        row: row of the dataset; None for uploaded files.
        ecg_mv: (5000, 12) mV; None when there is no ECG.
        labs_values: (50,), NaN = not measured; None when there is no laboratory panel.
        notes: how uploaded files were read.
        ecg_is_calibrated: whether ``ecg_mv`` is in mV; the released Symile-MIMIC has no amplitudes.
    """

    label: str
    row: int | None
    ecg_mv: NDArray[np.floating] | None
    labs_values: NDArray[np.floating] | None
    notes: tuple[str, ...] = ()
    ecg_is_calibrated: bool = True


@dataclass(frozen=True)
class Request:
    """What is asked: from which modalities, among which views, how many, and whether the patient's own X-ray takes part."""

    modalities: tuple[QueryModality, ...]
    views: tuple[str, ...]
    k: int
    evaluation: bool


@dataclass(frozen=True)
class Hit:
    """One X-ray in an answer.

    Attributes:
        rank: among the X-rays that took part, from 1.
        position: in the gallery.
        score: no probability; comparable within one answer only.
        percentile: share, in percent, of the gallery's other X-rays that score lower.
        view: AP, PA, or that it is unknown.
        own: whether it is the X-ray of the patient's own admission (evaluation mode).
        explanation: the parts of the score, and the scores of the ECG and of the labs alone.
    """

    rank: int
    position: int
    score: float
    percentile: float
    view: str
    own: bool
    explanation: Explanation


@dataclass(frozen=True)
class Answer:
    """The ranked X-rays.

    Attributes:
        occasion: names the press of the button that asked.
        hits: the best k.
        own: the patient's own X-ray (evaluation mode), whether or not it is among ``hits``.
        eligible: how many X-rays took part.
        gallery_size: how many there are.
    """

    occasion: str
    request: Request
    hits: tuple[Hit, ...]
    own: Hit | None
    eligible: int
    gallery_size: int
