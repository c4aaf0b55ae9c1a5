"""The traps of real data, each set on purpose in an admission of its own, with what should become of it.

They come on top of the clean admissions, which stay as they are. ``quirks.json`` lists them: an entry is *kept* (the
admission takes part; ``chosen`` says which study must be picked where two could be), *excluded* by the rules (``step``
names the modality that is missing then), or *rejected* when its file is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from clinical_symile.simulation.law import sample_signs
from clinical_symile.simulation.patients import Identities, arrivals, plan_admission, plan_draws, severities_of
from clinical_symile.simulation.plan import Admission, CxrFault, CxrImage, EcgFault, Plan, View, generator

_FIRST_INDEX: Final = 10_000_000
"""Quirks number their admissions from here, so that their random streams never meet those of the clean ones."""


class Quirk(NamedTuple):
    """A trap: what it is, what should become of the admission, and how to set it."""

    name: str
    what: str
    fate: str
    step: str
    change: Callable[[Admission, Identities], Admission]


def add_quirks(plan: Plan) -> Plan:
    """The plan with one more admission, of a new patient, for every quirk (two for the shared ECG)."""
    seed = plan.seed
    identities = Identities(seed, len(QUIRKS) + 2, quirks=True)
    signs = sample_signs(len(QUIRKS) + 1, plan.synergy, generator(seed, "quirk signs"))
    shows = severities_of(signs, seed, "quirk severity")
    admissions = list(plan.admissions)
    entries = list(plan.quirks)
    for number, (patient, admittime) in enumerate(arrivals([1] * (len(QUIRKS) + 1), identities, seed, "quirk patient")):
        severities = [rows[number] for rows in shows]
        clean = _only_the_window(
            plan_admission(patient, admittime, "complete", severities, identities, seed, _FIRST_INDEX + number)
        )
        if number == len(QUIRKS):
            pair = _sharing_an_ecg(clean, identities, seed)
            admissions += pair
            entries += [_entry(_SHARED, admission) for admission in pair]
        else:
            quirk = QUIRKS[number]
            changed = replace(quirk.change(clean, identities), kind=f"quirk:{quirk.name}")
            admissions.append(changed)
            entries.append(_entry(quirk, changed))
    return replace(plan, admissions=tuple(admissions), quirks=tuple(entries))


def _entry(quirk: Quirk, admission: Admission) -> dict[str, object]:
    entry: dict[str, object] = {
        "quirk": quirk.name,
        "what": quirk.what,
        "subject_id": admission.patient.subject_id,
        "hadm_id": admission.hadm_id,
        "fate": quirk.fate,
        "step": quirk.step,
    }
    if quirk.fate != "excluded":
        entry["chosen"] = {"ecg_study_id": admission.ecgs[-1].study_id, "cxr_dicom_id": admission.images[-1].dicom_id}
    return entry


def _only_the_window(admission: Admission) -> Admission:
    """One ECG, one frontal X-ray and the blood of the first day: nothing that could stand in for what a quirk removes."""
    day = np.timedelta64(24, "h")
    draws = tuple(draw for draw in admission.draws if abs(draw.time - admission.admittime) <= day)
    return replace(admission, ecgs=admission.ecgs[:1], images=admission.images[:1], draws=draws)


def _ecg_at(hours: int, minutes: int = 0) -> Callable[[Admission, Identities], Admission]:
    def change(admission: Admission, _: Identities) -> Admission:
        time = admission.admittime + np.timedelta64(60 * hours + minutes, "m")
        return replace(admission, ecgs=(replace(admission.ecgs[0], time=time),))

    return change


def _ecg_fault(fault: EcgFault, then_good: bool = False) -> Callable[[Admission, Identities], Admission]:
    def change(admission: Admission, identities: Identities) -> Admission:
        study = admission.ecgs[0]
        bad = replace(study, fault=fault)
        later = replace(study, study_id=next(identities.ecgs), time=study.time + np.timedelta64(90, "m"), key=study.key + 1)
        return replace(admission, ecgs=(bad, later) if then_good else (bad,))

    return change


def _cxr_at(hours: int, milliseconds: int = 0) -> Callable[[Admission, Identities], Admission]:
    def change(admission: Admission, _: Identities) -> Admission:
        time = admission.admittime.astype("datetime64[ms]") + np.timedelta64(3_600_000 * hours + milliseconds, "ms")
        return replace(admission, images=(replace(admission.images[0], time=time),))

    return change


def _cxr_fault(fault: CxrFault, then_good: bool = False) -> Callable[[Admission, Identities], Admission]:
    def change(admission: Admission, identities: Identities) -> Admission:
        bad = replace(admission.images[0], fault=fault, time=_hours(admission, 30))
        good = _another(replace(admission.images[0], time=_hours(admission, 40)), identities)
        return replace(admission, images=(bad, good) if then_good else (bad,))

    return change


def _view(view: View, then_frontal: bool = False) -> Callable[[Admission, Identities], Admission]:
    def change(admission: Admission, identities: Identities) -> Admission:
        odd = replace(admission.images[0], view=view, time=_hours(admission, 30))
        frontal = replace(_another(admission.images[0], identities), time=_hours(admission, 40))
        return replace(admission, images=(odd, frontal) if then_frontal else (odd,))

    return change


def _labs_at(hours: int, minutes: int = 0) -> Callable[[Admission, Identities], Admission]:
    def change(admission: Admission, _: Identities) -> Admission:
        time = admission.admittime + np.timedelta64(60 * hours + minutes, "m")
        return replace(admission, draws=(replace(admission.draws[0], time=time),))

    return change


def _ecgs_at_the_same_time(admission: Admission, identities: Identities) -> Admission:
    first = admission.ecgs[0]
    twins = (first, replace(first, study_id=next(identities.ecgs), key=first.key + 1))
    # The list of records is in order of the study id; the entry names the last of this tuple as the chosen one.
    return replace(admission, ecgs=tuple(sorted(twins, key=lambda study: -study.study_id)))


def _images_at_the_same_time(admission: Admission, identities: Identities) -> Admission:
    twins = (admission.images[0], _another(admission.images[0], identities))
    return replace(admission, images=tuple(sorted(twins, key=lambda image: (-image.study_id, image.dicom_id))))


def _after_midnight(admission: Admission, _: Identities) -> Admission:
    midnight = (admission.admittime + np.timedelta64(47, "h")).astype("datetime64[D]").astype("datetime64[ms]")
    time = midnight + np.timedelta64(3_500, "ms")
    if time - admission.admittime <= np.timedelta64(24, "h"):
        time += np.timedelta64(24, "h")
    return replace(admission, images=(replace(admission.images[0], time=time),))


def _without_labels(admission: Admission, _: Identities) -> Admission:
    return replace(admission, unlabelled_studies=frozenset({admission.images[0].study_id}))


def _labs_null(admission: Admission, _: Identities) -> Admission:
    return replace(admission, draws=tuple(replace(draw, fault="null_values") for draw in admission.draws))


def _labs_null_then_value(admission: Admission, _: Identities) -> Admission:
    first = admission.draws[0]
    second = replace(first, time=first.time + np.timedelta64(50, "m"))
    return replace(admission, draws=(replace(first, fault="null_values"), second))


def _labs_twice(admission: Admission, _: Identities) -> Admission:
    return replace(admission, draws=(replace(admission.draws[0], fault="double_values"), *admission.draws[1:]))


def _labs_unlinked(admission: Admission, _: Identities) -> Admission:
    return replace(admission, draws=tuple(replace(draw, linked=False) for draw in admission.draws))


def _sharing_an_ecg(first: Admission, identities: Identities, seed: int) -> tuple[Admission, Admission]:
    """Two admissions 40 hours apart with one ECG in both windows. They show the same signs, which the law allows."""
    start = first.admittime
    ecg = replace(first.ecgs[0], time=start + np.timedelta64(20, "h"))
    draws = tuple(draw for draw in first.draws if draw.time < start + np.timedelta64(15, "h"))
    image = replace(first.images[0], time=_hours(first, 30))
    kind = f"quirk:{_SHARED.name}"
    stay = replace(first, kind=kind, dischtime=start + np.timedelta64(36, "h"), ecgs=(ecg,), images=(image,), draws=draws)
    again = replace(
        first,
        kind=kind,
        hadm_id=next(identities.admissions),
        admittime=start + np.timedelta64(40, "h"),
        dischtime=start + np.timedelta64(140, "h"),
    )
    rng = generator(seed, "quirk draws")
    blood = plan_draws(first.patient.subject_id, again.hadm_id, again.admittime, again.dischtime, again.labs, rng)
    later = replace(_another(first.images[0], identities), time=_hours(again, 50))
    again = _only_the_window(replace(again, ecgs=(ecg,), images=(later,), draws=blood))
    return stay, again


def _another(image: CxrImage, identities: Identities) -> CxrImage:
    return replace(image, study_id=next(identities.cxrs), dicom_id=identities.dicom(), key=image.key + 1)


def _hours(admission: Admission, hours: int) -> np.datetime64:
    return admission.admittime.astype("datetime64[ms]") + np.timedelta64(3_600_000 * hours + 12_345, "ms")


_SHARED: Final = Quirk("ecg_of_two_admissions", "one ECG lies in the windows of two admissions", "kept", "", lambda a, _: a)

QUIRKS: Final[tuple[Quirk, ...]] = (
    Quirk("ecg_24h_before", "ECG exactly 24 h before admission", "kept", "", _ecg_at(-24)),
    Quirk("ecg_24h_after", "ECG exactly 24 h after admission", "kept", "", _ecg_at(24)),
    Quirk("ecg_beyond_24h", "ECG 24 h and a minute after admission", "excluded", "ecg", _ecg_at(24, 1)),
    Quirk("ecg_same_time", "two ECGs at the same time; the first of the list", "kept", "", _ecgs_at_the_same_time),
    Quirk("ecg_nan", "the only ECG has missing samples", "excluded", "ecg", _ecg_fault("nan")),
    Quirk("ecg_nan_then_good", "an ECG with missing samples, then a good one", "kept", "", _ecg_fault("nan", True)),
    Quirk("ecg_zeros", "the only ECG is zero everywhere", "excluded", "ecg", _ecg_fault("zeros")),
    Quirk("ecg_flat_lead", "one lead of the ECG is flat", "kept", "", _ecg_fault("flat_lead")),
    Quirk("ecg_missing_files", "the list names an ECG that has no files", "excluded", "ecg", _ecg_fault("missing")),
    Quirk("ecg_truncated", "the ECG's samples end half-way", "excluded", "ecg", _ecg_fault("truncated")),
    Quirk("cxr_24h", "X-ray exactly 24 h after admission", "excluded", "cxr", _cxr_at(24)),
    Quirk("cxr_after_24h", "X-ray 24 h and a second after admission", "kept", "", _cxr_at(24, 1000)),
    Quirk("cxr_72h", "X-ray exactly 72 h after admission", "kept", "", _cxr_at(72)),
    Quirk("cxr_beyond_72h", "X-ray 72 h and a second after admission", "excluded", "cxr", _cxr_at(72, 1000)),
    Quirk("cxr_same_time", "two X-rays at the same time; the first of the table", "kept", "", _images_at_the_same_time),
    Quirk("cxr_after_midnight", "X-ray at 00:00:03.5, so that StudyTime reads 3.5", "kept", "", _after_midnight),
    Quirk("cxr_lateral_only", "the only X-ray is a lateral", "excluded", "cxr", _view("LATERAL")),
    Quirk("cxr_lateral_first", "a lateral, then a frontal X-ray", "kept", "", _view("LATERAL", True)),
    Quirk("cxr_no_view", "the X-ray's view is not stated", "excluded", "cxr", _view("")),
    Quirk("cxr_missing_file", "the metadata name an image that has no file", "excluded", "cxr", _cxr_fault("missing")),
    Quirk("cxr_missing_then_good", "an image without a file, then a good one", "kept", "", _cxr_fault("missing", True)),
    Quirk("cxr_truncated", "the JPEG ends after a third", "rejected", "prepare", _cxr_fault("truncated")),
    Quirk("cxr_not_an_image", "the JPEG is a web page", "rejected", "prepare", _cxr_fault("not_an_image")),
    Quirk("cxr_rgb", "the JPEG has three channels", "kept", "", _cxr_fault("rgb")),
    Quirk("cxr_no_labels", "the X-ray's study has no CheXpert row", "excluded", "cxr", _without_labels),
    Quirk("labs_24h_before", "all blood exactly 24 h before admission", "kept", "", _labs_at(-24)),
    Quirk("labs_24h_after", "all blood exactly 24 h after admission", "kept", "", _labs_at(24)),
    Quirk("labs_beyond_24h", "all blood 24 h and a minute after admission", "excluded", "labs", _labs_at(24, 1)),
    Quirk("labs_null", "results without a number only", "excluded", "labs", _labs_null),
    Quirk("labs_null_then_value", "results without a number, then good ones", "kept", "", _labs_null_then_value),
    Quirk("labs_two_values", "two values at the earliest time; the first of the file", "kept", "", _labs_twice),
    Quirk("labs_no_hadm_id", "no result names its admission", "kept", "", _labs_unlinked),
)
