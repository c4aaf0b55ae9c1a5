"""What happens in the simulated hospital, before anything is drawn or written: who is admitted when, and what is measured.

A plan is cheap, complete and immutable; the renderers only carry it out. Quirks (``quirks.py``) add to a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import numpy as np

View = Literal["AP", "PA", "LATERAL", ""]
EcgFault = Literal["", "nan", "zeros", "flat_lead", "missing", "truncated"]
CxrFault = Literal["", "missing", "truncated", "not_an_image", "rgb"]
LabFault = Literal["", "null_values", "double_values"]
Severities = tuple[float, ...]
"""One number per channel: 0 where the sign is absent, else in [1/2, 1]."""


class Patient(NamedTuple):
    """One row of ``patients`` plus what stays the same over admissions."""

    subject_id: int
    gender: str
    anchor_age: int
    anchor_year: int
    anchor_year_group: str
    dod: str
    race: str
    language: str
    insurance: str
    marital_status: str


@dataclass(frozen=True)
class EcgStudy:
    """One ECG. ``key`` seeds its noise; ``fault`` names what is wrong with its files, if anything."""

    study_id: int
    subject_id: int
    time: np.datetime64
    age: int
    shows: Severities
    key: int
    fault: EcgFault = ""

    @property
    def path(self) -> str:
        """Path of the record in MIMIC-IV-ECG 1.0, without extension."""
        return f"files/p{self.subject_id // 10_000}/p{self.subject_id}/s{self.study_id}/{self.study_id}"


@dataclass(frozen=True)
class CxrImage:
    """One X-ray image; images of one study share ``study_id``."""

    dicom_id: str
    study_id: int
    subject_id: int
    time: np.datetime64
    view: View
    shows: Severities
    key: int
    devices: bool = False
    fault: CxrFault = ""

    @property
    def path(self) -> str:
        """Path of the image in MIMIC-CXR-JPG 2.0.0."""
        subject = str(self.subject_id)
        return f"files/p{subject[:2]}/p{subject}/s{self.study_id}/{self.dicom_id}.jpg"


@dataclass(frozen=True)
class LabDraw:
    """Blood drawn once: the panels that were ordered and how far the signs show."""

    subject_id: int
    hadm_id: int
    time: np.datetime64
    shows: Severities
    panels: frozenset[str]
    linked: bool = True
    """Whether the rows carry the admission's id; in MIMIC a quarter do not."""
    fault: LabFault = ""


@dataclass(frozen=True)
class Admission:
    """One admission with everything measured in it, and the signs that its modalities show (the truth)."""

    hadm_id: int
    patient: Patient
    admittime: np.datetime64
    dischtime: np.datetime64
    kind: str
    """``complete``, the reason why a modality is missing, or ``quirk:<name>``."""
    ecg: Severities
    labs: Severities
    cxr: Severities
    ecgs: tuple[EcgStudy, ...] = ()
    images: tuple[CxrImage, ...] = ()
    draws: tuple[LabDraw, ...] = ()
    unlabelled_studies: frozenset[int] = field(default_factory=frozenset)
    """X-ray studies that have no row of CheXpert labels."""

    @property
    def age(self) -> int:
        """Age at admission, in years of MIMIC's shifted calendar."""
        year = int(str(self.admittime)[:4])
        return self.patient.anchor_age + year - self.patient.anchor_year


@dataclass(frozen=True)
class Plan:
    """The whole hospital."""

    seed: int
    synergy: float
    admissions: tuple[Admission, ...]
    quirks: tuple[dict[str, object], ...] = ()


NO_SIGNS: Final[Severities] = (0.0, 0.0, 0.0, 0.0, 0.0)


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """A generator of its own for each purpose and item, so that no result depends on the order of the work."""
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(*purpose.encode(), index)))
