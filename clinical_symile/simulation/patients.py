"""Patients, admissions and what is measured when: turns a configuration into a ``Plan``.

Identifiers have MIMIC's shape (subjects 1xxxxxxx, admissions 2xxxxxxx, ECGs 4xxxxxxx, X-ray studies 5xxxxxxx), dates are
shifted to 2110-2200, and the counts of studies per admission are of MIMIC's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from clinical_symile.config import SimulationConfig
from clinical_symile.simulation.labs import PANEL_RATES
from clinical_symile.simulation.law import MINIMUM_SEVERITY, Signs, draw_severities, sample_signs
from clinical_symile.simulation.plan import Admission, CxrImage, EcgStudy, LabDraw, Patient, Plan, Severities, View, generator

INCOMPLETE_SHARE: Final = 0.25
"""Admissions that lack a modality, per complete one."""
_INCOMPLETE: Final = {"no_cxr": 0.40, "cxr_outside_window": 0.20, "no_ecg": 0.20, "no_labs": 0.08, "nothing": 0.12}

_RACES: Final = {
    "WHITE": 0.64,
    "BLACK/AFRICAN AMERICAN": 0.13,
    "UNKNOWN": 0.05,
    "OTHER": 0.04,
    "HISPANIC/LATINO - PUERTO RICAN": 0.03,
    "ASIAN - CHINESE": 0.03,
    "WHITE - OTHER EUROPEAN": 0.03,
    "BLACK/CAPE VERDEAN": 0.02,
    "HISPANIC OR LATINO": 0.02,
    "UNABLE TO OBTAIN": 0.01,
}
_GROUPS: Final = ("2008 - 2010", "2011 - 2013", "2014 - 2016", "2017 - 2019")
_LAST_CLEAN: Final = 9_500_000
"""Offsets of identifiers above this belong to quirks."""
_MINUTE: Final = np.timedelta64(60, "s")


def build_plan(config: SimulationConfig) -> Plan:
    """Plans a hospital with ``config.admissions`` complete admissions and a quarter as many incomplete ones.

    Args:
        config: admissions, synergy, seed; ``quirks`` is left to ``quirks.add_quirks``.

    Returns:
        The plan, admissions in order of patient and time.
    """
    seed = config.seed
    total = config.admissions + round(INCOMPLETE_SHARE * config.admissions)
    rng = generator(seed, "admissions")
    kinds = np.array(["complete"] * total, dtype=object)
    incomplete = rng.choice(total, total - config.admissions, replace=False)
    kinds[incomplete] = rng.choice(list(_INCOMPLETE), len(incomplete), p=list(_INCOMPLETE.values()))
    stays = _stays(total, rng)
    identities = Identities(seed, total)
    signs = sample_signs(total, config.synergy, generator(seed, "signs"))
    shows = severities_of(signs, seed, "severity")
    admissions = [
        plan_admission(patient, admittime, str(kinds[index]), [rows[index] for rows in shows], identities, seed, index)
        for index, (patient, admittime) in enumerate(arrivals(stays, identities, seed, "patient"))
    ]
    return Plan(seed=seed, synergy=config.synergy, admissions=tuple(admissions))


class Identities:
    """Hands out identifiers, each once.

    Args:
        seed: the hospital's seed.
        admissions: how many admissions there will be at most.
        quirks: take identifiers from a range that clean admissions do not use.
    """

    def __init__(self, seed: int, admissions: int, *, quirks: bool = False) -> None:
        self._rng = generator(seed, "quirk identities" if quirks else "identities")
        self._range = (_LAST_CLEAN, 9_999_999) if quirks else (0, _LAST_CLEAN)
        self.patients = self._stream(10_000_000, admissions)
        self.admissions = self._stream(20_000_000, admissions)
        self.ecgs = self._stream(40_000_000, 3 * admissions)
        self.cxrs = self._stream(50_000_000, 3 * admissions)

    def dicom(self) -> str:
        """A DICOM id: five groups of eight hexadecimal digits."""
        return "-".join(f"{word:08x}" for word in self._rng.integers(0, 2**32, 5, dtype=np.uint64))

    def _stream(self, start: int, count: int) -> Iterator[int]:
        low, high = self._range
        return iter((start + low + self._rng.choice(high - low, count, replace=False)).tolist())


def severities_of(signs: Signs, seed: int, purpose: str) -> tuple[list[Severities], ...]:
    """Severities for ECG, labs and CXR, each from its own stream."""
    result = []
    for name, modality in zip(Signs._fields, signs, strict=True):
        drawn = draw_severities(modality, generator(seed, f"{purpose} {name}")).round(3)
        result.append([tuple(row) for row in drawn.tolist()])
    return tuple(result)


def new_patient(subject_id: int, first_year: int, last_year: int, rng: np.random.Generator) -> Patient:
    """One patient who is admitted from ``first_year`` to ``last_year``."""
    age = int(np.clip(rng.normal(63, 17), 18, 95))
    died = rng.random() < 0.25
    return Patient(
        subject_id=subject_id,
        gender="F" if rng.random() < 0.48 else "M",
        # MIMIC writes 91 for everyone who is older than 89.
        anchor_age=91 if age > 89 else age,
        anchor_year=first_year - int(rng.integers(0, 2)),
        anchor_year_group=str(rng.choice(_GROUPS)),
        dod=str(np.datetime64(f"{last_year + int(rng.integers(1, 4))}-01-01") + int(rng.integers(0, 365))) if died else "",
        race=str(rng.choice(list(_RACES), p=list(_RACES.values()))),
        language="ENGLISH" if rng.random() < 0.91 else "?",
        insurance=str(rng.choice(["Other", "Medicare", "Medicaid"], p=[0.5, 0.42, 0.08])),
        marital_status=str(rng.choice(["SINGLE", "MARRIED", "WIDOWED", "DIVORCED", ""], p=[0.34, 0.36, 0.16, 0.1, 0.04])),
    )


def plan_admission(
    patient: Patient,
    admittime: np.datetime64,
    kind: str,
    shows: Sequence[Severities],
    identities: Identities,
    seed: int,
    index: int,
) -> Admission:
    """Plans the studies of one admission; what ``kind`` says is missing is left out.

    Args:
        patient: whose admission it is.
        admittime: when it begins.
        kind: "complete" or one of the reasons for a missing modality.
        shows: severities of ECG, labs, CXR.
        identities: source of identifiers.
        seed: the hospital's seed.
        index: number of the admission; with ``seed`` it decides everything random here.
    """
    rng = generator(seed, "stay", index)
    hadm_id = next(identities.admissions)
    age = patient.anchor_age + int(str(admittime)[:4]) - patient.anchor_year
    days = 3.2 + float(rng.lognormal(0.7, 0.8)) if kind == "complete" else 0.8 + float(rng.lognormal(0.6, 0.7))
    dischtime = admittime + _minutes(24 * 60 * min(days, 45.0))
    ecg, labs, cxr = shows
    ecgs: tuple[EcgStudy, ...] = ()
    images: tuple[CxrImage, ...] = ()
    draws: tuple[LabDraw, ...] = ()
    if kind not in ("no_ecg", "nothing"):
        ecgs = _plan_ecgs(patient.subject_id, age, admittime, ecg, identities, generator(seed, "ecgs", index), index)
    if kind not in ("no_cxr", "nothing"):
        outside = kind == "cxr_outside_window"
        images = _plan_images(patient.subject_id, admittime, cxr, outside, identities, generator(seed, "images", index), index)
    if kind not in ("no_labs", "nothing"):
        draws = plan_draws(patient.subject_id, hadm_id, admittime, dischtime, labs, generator(seed, "draws", index))
    return Admission(hadm_id, patient, admittime, dischtime, kind, ecg, labs, cxr, ecgs, images, draws)


def drifted(shows: Severities, rng: np.random.Generator) -> Severities:
    """Severities at another time: signs fade, vanish or appear. Only the first study in the window shows the truth."""
    fading, appearing, level = rng.random((3, len(shows)))
    moved = []
    for severity, fade, chance, share in zip(shows, fading, appearing, level, strict=True):
        new = MINIMUM_SEVERITY + (1 - MINIMUM_SEVERITY) * share if chance < 0.25 else 0.0
        moved.append(round(float(severity * fade if severity > 0 else new), 3))
    return tuple(moved)


def plan_draws(
    subject_id: int,
    hadm_id: int,
    admittime: np.datetime64,
    dischtime: np.datetime64,
    shows: Severities,
    rng: np.random.Generator,
) -> tuple[LabDraw, ...]:
    """Blood drawn for one admission: on arrival, the rest of the orders a little later, then follow-ups that drift.

    Every panel is ordered with its rate in MIMIC, whatever the signs are; missingness carries no tie.
    """
    ordered = [panel for panel, rate in PANEL_RATES.items() if rng.random() < rate]
    late = {panel for panel in ordered if PANEL_RATES[panel] < 0.9 and rng.random() < 0.3}
    first = admittime + _minutes(rng.uniform(-150, 240))
    second = first + _minutes(rng.uniform(20, 360))
    draws = [LabDraw(subject_id, hadm_id, first, shows, frozenset(ordered) - late, _linked(bool(first < admittime), rng))]
    if late:
        draws.append(LabDraw(subject_id, hadm_id, second, shows, frozenset(late), _linked(bool(second < admittime), rng)))
    time, severities = second, shows
    for _ in range(int(rng.integers(1, 4))):
        time = time + _minutes(rng.uniform(6 * 60, 24 * 60))
        if time >= dischtime:
            break
        severities = drifted(severities, rng)
        panels = [panel for panel in ordered if rng.random() < (0.95 if PANEL_RATES[panel] > 0.9 else 0.4)]
        draws.append(LabDraw(subject_id, hadm_id, time, severities, frozenset(panels), _linked(False, rng)))
    if rng.random() < 0.35:  # an outpatient visit before, outside every window
        time = admittime - _minutes(rng.uniform(2 * 1440, 20 * 1440))
        draws.append(LabDraw(subject_id, hadm_id, time, drifted(shows, rng), frozenset({"chemistry", "cbc"}), False))
    return tuple(sorted(draws, key=lambda draw: draw.time))


def _plan_ecgs(
    subject_id: int,
    age: int,
    admittime: np.datetime64,
    shows: Severities,
    identities: Identities,
    rng: np.random.Generator,
    index: int,
) -> tuple[EcgStudy, ...]:
    """The ECG of the window, sometimes one after it, sometimes one from weeks before."""
    times = [(admittime + _minutes(rng.uniform(-180, 600)), shows)]
    if rng.random() < 0.25:
        times.append((times[0][0] + _minutes(rng.uniform(30, 4000)), drifted(shows, rng)))
    if rng.random() < 0.12:
        times.append((admittime - _minutes(rng.uniform(2 * 1440, 25 * 1440)), drifted(shows, rng)))
    return tuple(
        EcgStudy(next(identities.ecgs), subject_id, time, age, severities, key=10 * index + number)
        for number, (time, severities) in enumerate(times)
    )


def _plan_images(
    subject_id: int,
    admittime: np.datetime64,
    shows: Severities,
    only_outside: bool,
    identities: Identities,
    rng: np.random.Generator,
    index: int,
) -> tuple[CxrImage, ...]:
    """The X-ray of the window, sometimes one in the first day and one later, sometimes a lateral beside a PA."""
    studies: list[tuple[np.datetime64, Severities]] = []
    if only_outside:
        studies.append((admittime + _minutes(rng.uniform(-90, 1430)), shows))
    else:
        index_time = admittime + _minutes(rng.uniform(1441, 4319))
        studies.append((index_time, shows))
        if rng.random() < 0.12:
            studies.append((admittime + _minutes(rng.uniform(-90, 1430)), drifted(shows, rng)))
        if rng.random() < 0.08:
            studies.append((index_time + _minutes(rng.uniform(300, 4000)), drifted(shows, rng)))
    images: list[CxrImage] = []
    for time, severities in studies:
        view: View = "PA" if rng.random() < 0.25 else "AP"
        study_id = next(identities.cxrs)
        seconds = np.timedelta64(int(rng.integers(0, 59_999)), "ms")  # below a minute: stays on its side of the window
        exact = time.astype("datetime64[ms]") + seconds
        devices = view == "AP" and bool(rng.random() < 0.35)
        images.append(
            CxrImage(identities.dicom(), study_id, subject_id, exact, view, severities, 10 * index + len(images), devices)
        )
        if view == "PA" and rng.random() < 0.35:
            lateral = exact + np.timedelta64(int(rng.integers(20_000, 90_000)), "ms")
            images.append(
                CxrImage(identities.dicom(), study_id, subject_id, lateral, "LATERAL", severities, key=10 * index + len(images))
            )
    return tuple(images)


def _stays(admissions: int, rng: np.random.Generator) -> list[int]:
    """How many admissions each patient has; sums to the number of admissions."""
    stays: list[int] = []
    left = admissions
    while left:
        stays.append(min(1 + (int(rng.geometric(0.6)) if rng.random() < 0.18 else 0), left))
        left -= stays[-1]
    return stays


def arrivals(stays: Sequence[int], identities: Identities, seed: int, purpose: str) -> Iterator[tuple[Patient, np.datetime64]]:
    """Patient and time of every admission; a patient's admissions are at least sixty days apart, so no window overlaps."""
    for number, count in enumerate(stays):
        rng = generator(seed, purpose, number)
        first = np.datetime64("2110-01-01T00:00:00") + _minutes(rng.uniform(0, 80 * 365 * 1440))
        gaps = np.cumsum([0.0, *rng.uniform(60 * 1440, 500 * 1440, count - 1)])
        times = [first + _minutes(gap) for gap in gaps]
        years = [int(str(time)[:4]) for time in times]
        patient = new_patient(next(identities.patients), years[0], years[-1], rng)
        yield from ((patient, time) for time in times)


def _linked(before_admission: bool, rng: np.random.Generator) -> bool:
    return bool(rng.random() > (0.6 if before_admission else 0.12))


def _minutes(minutes: float) -> np.timedelta64:
    return int(minutes) * _MINUTE
