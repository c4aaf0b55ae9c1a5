"""The plan: what happens in the hospital does not depend on what is shown, and every window holds what it should."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from clinical_symile.config import SimulationConfig
from clinical_symile.simulation.patients import build_plan, drifted
from clinical_symile.simulation.plan import NO_SIGNS, Admission, Plan
from clinical_symile.simulation.quirks import add_quirks

HOUR = np.timedelta64(3600, "s")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return build_plan(SimulationConfig(admissions=400, synergy=0.5, seed=3))


def without_signs(admission: Admission) -> Admission:
    """The admission as it would be planned for a patient who shows nothing."""
    return replace(
        admission,
        ecg=NO_SIGNS,
        labs=NO_SIGNS,
        cxr=NO_SIGNS,
        ecgs=tuple(replace(study, shows=NO_SIGNS) for study in admission.ecgs),
        images=tuple(replace(image, shows=NO_SIGNS) for image in admission.images),
        draws=tuple(replace(draw, shows=NO_SIGNS) for draw in admission.draws),
    )


def test_synergy_changes_what_is_shown_and_nothing_else(plan: Plan) -> None:
    other = build_plan(SimulationConfig(admissions=400, synergy=0.0, seed=3))
    assert [a.ecg for a in plan.admissions] == [a.ecg for a in other.admissions]
    assert [a.cxr for a in plan.admissions] != [a.cxr for a in other.admissions]
    assert [without_signs(a) for a in plan.admissions] == [without_signs(a) for a in other.admissions]


def test_another_seed_is_another_hospital(plan: Plan) -> None:
    other = build_plan(SimulationConfig(admissions=400, synergy=0.5, seed=4))
    assert [a.ecg for a in plan.admissions] != [a.ecg for a in other.admissions]


def test_the_first_of_each_window_shows_the_truth(plan: Plan) -> None:
    for admission in plan.admissions:
        if admission.kind != "complete":
            continue
        start = admission.admittime
        ecgs = sorted((s for s in admission.ecgs if abs(s.time - start) <= 24 * HOUR), key=lambda s: s.time)
        assert ecgs[0].shows == admission.ecg
        films = [i for i in admission.images if i.view in ("AP", "PA") and 24 * HOUR < i.time - start <= 72 * HOUR]
        assert min(films, key=lambda i: i.time).shows == admission.cxr
        measured: set[str] = set()
        for draw in sorted((d for d in admission.draws if abs(d.time - start) <= 24 * HOUR), key=lambda d: d.time):
            if draw.panels - measured:
                assert draw.shows == admission.labs, "a panel's first draw must show the truth"
            measured |= draw.panels


def test_what_is_missing_is_missing(plan: Plan) -> None:
    for admission in plan.admissions:
        films = [i for i in admission.images if 24 * HOUR < i.time - admission.admittime <= 72 * HOUR]
        present = {"ecg": bool(admission.ecgs), "labs": bool(admission.draws), "cxr": bool(films)}
        expected = {
            "complete": {"ecg": True, "labs": True, "cxr": True},
            "no_cxr": {"ecg": True, "labs": True, "cxr": False},
            "cxr_outside_window": {"ecg": True, "labs": True, "cxr": False},
            "no_ecg": {"ecg": False, "labs": True, "cxr": True},
            "no_labs": {"ecg": True, "labs": False, "cxr": True},
            "nothing": {"ecg": False, "labs": False, "cxr": False},
        }[admission.kind]
        assert present == expected, admission.kind


def test_admissions_of_a_patient_keep_their_distance(plan: Plan) -> None:
    times: dict[int, list[np.datetime64]] = {}
    for admission in plan.admissions:
        times.setdefault(admission.patient.subject_id, []).append(admission.admittime)
    repeated = [np.diff(np.sort(np.array(own))) for own in times.values() if len(own) > 1]
    assert min(gap.min() for gap in repeated) >= 60 * 24 * HOUR
    assert 1.1 < len(plan.admissions) / len(times) < 1.5


def test_drift_keeps_severities_in_range_and_uses_the_same_randomness() -> None:
    ill, well = np.random.default_rng(0), np.random.default_rng(0)
    for _ in range(50):
        moved = drifted((1.0, 0.5, 0.7, 0.9, 0.6), ill)
        new = drifted(NO_SIGNS, well)
        assert all(0 <= severity <= 1 for severity in moved + new)
    assert ill.random() == well.random(), "what is shown must not move the stream that decides other things"


def test_quirks_come_on_top(plan: Plan) -> None:
    quirky = add_quirks(plan)
    clean = len(plan.admissions)
    assert quirky.admissions[:clean] == plan.admissions
    ids = [admission.hadm_id for admission in quirky.admissions]
    assert len(set(ids)) == len(ids)
    assert len(quirky.quirks) == len(quirky.admissions) - clean
