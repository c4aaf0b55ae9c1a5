"""What an import kept and could not keep, and what is odd about the released candidate sets: for the manifest and the log."""

from __future__ import annotations

from typing import Any

import pandas as pd

from clinical_symile.dataset.released.chunks import Fidelity
from clinical_symile.dataset.released.panels import Panels
from clinical_symile.dataset.released.tables import ReleasedTables


def describe_fidelity(found: Fidelity, panels: Panels) -> dict[str, Any]:
    """How exactly the store's batches give back the released tensors. Errors are largest absolute differences."""
    exact = found.cxr_error == 0
    return {
        "cxr_bit_for_bit": int(exact.sum()),
        "cxr_inexact": int((~exact).sum()),
        "cxr_in_colours": int((~found.cxr_is_grey).sum()),
        "cxr_largest_error": float(found.cxr_error.max(initial=0)),
        "ecg_adc_recovered": int(found.ecg_on_lattice.sum()),
        "ecg_requantised": int((~found.ecg_on_lattice).sum()),
        "ecg_largest_error": float(found.ecg_error.max(initial=0)),
        "labs_largest_difference_when_refitted": panels.percentile_error,
        "labs_means_largest_difference_when_refitted": panels.mean_error,
    }


def what_was_lost(fidelity: dict[str, Any]) -> list[str]:
    """Sentences on what the release, or this import of it, no longer has."""
    lost = [
        "X-rays are squares of 320 x 320 that were cut out when the release was built, at a random place for train and in the "
        "middle for val and test: what lay outside is gone, and training sees the same crop in every epoch",
        "ECGs are scaled to -1…1 over the whole record: their amplitude and offset in mV are not known, and what the store calls "
        "mV is that scale (ecg_units: arbitrary)",
    ]
    if fidelity["cxr_inexact"]:
        lost.append(
            f"{fidelity['cxr_inexact']} X-rays are not grey pictures of 8 bits ({fidelity['cxr_in_colours']} of them in "
            f"colours): what is stored differs from the tensor by up to {fidelity['cxr_largest_error']:.2g}"
        )
    if fidelity["ecg_requantised"]:
        lost.append(
            f"{fidelity['ecg_requantised']} ECGs do not lie on a lattice of ADC values and were stored in 65,534 steps: what the "
            f"encoder sees differs by up to {fidelity['ecg_largest_error']:.2g}"
        )
    return lost


def count_candidates(tables: ReleasedTables, kept: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Per split: how many sets there are, and how many of them are odd. They are kept as released."""
    released = tables.candidates
    known = tables.admissions.set_index("hadm_id")
    frame = released.assign(
        same_patient=known["subject_id"].loc[released["candidate_hadm_id"]].to_numpy()
        == known["subject_id"].loc[released["query_hadm_id"]].to_numpy(),
        same_image=known["cxr_path"].loc[released["candidate_hadm_id"]].to_numpy()
        == known["cxr_path"].loc[released["query_hadm_id"]].to_numpy(),
        repeated=released.duplicated(["split", "query_hadm_id", "candidate_hadm_id"]),
    )
    odd = ["same_patient", "same_image"]
    frame[odd] = frame[odd].where(~frame["is_positive"], other=False)
    counts = {}
    for split, part in frame.groupby("split"):
        by_set = part.groupby("query_hadm_id")[[*odd, "repeated"]].any()
        admissions = int((tables.admissions["split"] == split).sum())
        counts[str(split)] = {
            "sets": len(by_set),
            "size": int(part["position"].max()) + 1,
            "admissions_without_a_set": admissions - len(by_set),
            "sets_with_another_xray_of_the_same_patient": int(by_set["same_patient"].sum()),
            "sets_with_the_same_xray_again": int(by_set["same_image"].sum()),
            "sets_with_a_repeated_candidate": int(by_set["repeated"].sum()),
            "sets_changed_because_of_rejects": _changed(part, kept[kept["split"] == split]),
        }
    return counts


def _changed(released: pd.DataFrame, kept: pd.DataFrame) -> int:
    """Sets that were dropped or had a candidate replaced, since an admission was rejected."""
    columns = ["query_hadm_id", "position", "candidate_hadm_id"]
    both = released[columns].merge(kept[columns], how="left", indicator=True)
    return int(both.loc[both["_merge"] == "left_only", "query_hadm_id"].nunique())
