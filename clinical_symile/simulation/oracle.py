"""The oracle: what someone who reads every sign without error, and knows the law, would answer.

``score(x; e, l) = sum_c log p(x_c | e_c, l_c) - log p(x_c)`` is the Bayes-optimal ranking of candidate X-rays, and also the
optimum that Symile's score estimates (Saporta et al. 2024, eq. 5: the critic at its optimum is the log density ratio, up to
terms that do not depend on the candidate).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clinical_symile.errors import InputError
from clinical_symile.simulation.law import CHANNEL_NAMES, Array, Signs, log_posterior_ratio

TRUTH = "truth.parquet"
LAW = "law.json"
_DECIMALS = 9


class Oracle:
    """Posterior scores of the admissions of one simulated hospital.

    Args:
        hadm_ids: (n,) admission ids.
        signs: what their modalities show, three arrays (n, K).
        synergy: s of the law that drew them.

    Raises:
        InputError: two admissions have the same id, or an admission shows what the law cannot draw.
    """

    def __init__(self, hadm_ids: ArrayLike, signs: Signs, synergy: float) -> None:
        ids = np.asarray(hadm_ids, dtype=np.int64)
        order = np.argsort(ids, kind="stable")
        self.synergy = synergy
        self._ids = ids[order]
        self._signs = Signs(*(np.asarray(sign)[order] for sign in signs))
        self._table = log_posterior_ratio(synergy)
        if len(np.unique(ids)) != len(ids):
            raise InputError("the truth table holds an admission twice")
        own = self._table[self._signs.ecg, self._signs.labs, self._signs.cxr]
        if not np.isfinite(own).all():
            raise InputError(f"the truth table holds signs that the law with synergy {synergy} cannot draw; simulate again")

    @classmethod
    def load(cls, hospital_dir: Path) -> Oracle:
        """Reads ``law.json`` and ``truth.parquet`` of a hospital written by ``simulate``.

        Raises:
            InputError: a file is missing or is not what ``simulate`` writes.
        """
        import pyarrow.parquet as pq

        law = _read_law(hospital_dir / LAW)
        file = hospital_dir / TRUTH
        columns = [f"{modality}_{name}" for modality in Signs._fields for name in CHANNEL_NAMES]
        try:
            table = pq.read_table(file, columns=["hadm_id", *columns])
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: is not the truth table of a simulated hospital ({error})") from None
        values = np.stack([table[column].to_numpy() for column in columns], axis=1).astype(np.uint8)
        return cls(table["hadm_id"].to_numpy(), Signs(*np.split(values, 3, axis=1)), float(law["synergy"]))

    def log_scores(self, query_hadm_ids: ArrayLike, candidate_hadm_ids: ArrayLike) -> Array:
        """``log p(cxr of the candidate | ecg and labs of the query) - log p(cxr of the candidate)``, in nats.

        Args:
            query_hadm_ids: (q,) admissions whose ECG and labs are given.
            candidate_hadm_ids: (q, c) admissions whose X-rays are ranked, or (g,) for the same candidates in every query.

        Returns:
            (q, c) or (q, g); -inf for a candidate that the law rules out.

        Raises:
            InputError: an id is not in the truth table.
        """
        query = self._find(query_hadm_ids)
        candidate = self._find(candidate_hadm_ids)
        candidate = candidate[None, :] if candidate.ndim == 1 else candidate
        total = np.zeros(np.broadcast_shapes((len(query), 1), candidate.shape))
        for channel in range(len(CHANNEL_NAMES)):
            given = self._table[self._signs.ecg[query, channel], self._signs.labs[query, channel]]
            finding = self._signs.cxr[candidate, channel]
            total += np.where(finding == 1, given[:, 1:], given[:, :1])
        return total

    def expected_accuracy(self, query_hadm_ids: ArrayLike, candidate_hadm_ids: ArrayLike, positive_positions: ArrayLike) -> float:
        """Expected accuracy on candidate sets when equal scores are ordered at random.

        Args:
            query_hadm_ids: (q,).
            candidate_hadm_ids: (q, c).
            positive_positions: (q,) column of the query's own X-ray.
        """
        scores = self.log_scores(query_hadm_ids, candidate_hadm_ids)
        return float(chance_within(scores, positive_positions, 1).mean())

    def recall_at(self, k: int, query_hadm_ids: ArrayLike, gallery_hadm_ids: ArrayLike) -> float:
        """Expected share of queries whose own X-ray is among the first ``k`` of the gallery, ties ordered at random.

        Args:
            k: how many are looked at.
            query_hadm_ids: (q,) admissions, all of them in the gallery.
            gallery_hadm_ids: (g,).

        Raises:
            InputError: a query's own admission is not in the gallery.
        """
        queries = np.asarray(query_hadm_ids)
        gallery = np.asarray(gallery_hadm_ids)
        order = np.argsort(gallery)
        place = np.minimum(np.searchsorted(gallery, queries, sorter=order), len(gallery) - 1)
        positions = order[place]
        if not np.array_equal(gallery[positions], queries):
            raise InputError("a query's own X-ray is not in the gallery, so its recall is not defined")
        return float(chance_within(self.log_scores(queries, gallery), positions, k).mean())

    def _find(self, hadm_ids: ArrayLike) -> NDArray[np.intp]:
        ids = np.asarray(hadm_ids, dtype=np.int64)
        position = np.minimum(np.searchsorted(self._ids, ids), len(self._ids) - 1)
        unknown = int((self._ids[position] != ids).sum())
        if unknown:
            raise InputError(f"{unknown} admissions are not in the truth table; was the cohort built from another hospital?")
        return position


def chance_within(scores: Array, positive_positions: ArrayLike, k: int) -> Array:
    """The chance that the positive is among the first ``k`` when equal scores are ordered at random.

    ``clip((k - above) / tied, 0, 1)`` with ``above`` the number of candidates that score higher and ``tied`` the number
    that score the same, the positive included.

    Args:
        scores: (q, c); -inf ties with -inf.
        positive_positions: (q,).
        k: how many are looked at.

    Returns:
        (q,) in [0, 1].
    """
    rounded = np.round(scores, _DECIMALS)
    positive = np.take_along_axis(rounded, np.asarray(positive_positions)[:, None], axis=1)
    above = (rounded > positive).sum(axis=1)
    tied = (rounded == positive).sum(axis=1)
    return np.clip((k - above) / tied, 0.0, 1.0)


def _read_law(file: Path) -> dict[str, Any]:
    try:
        law = json.loads(file.read_text(encoding="utf-8"))
        known = tuple(law["channels"]) == CHANNEL_NAMES and 0 <= law["synergy"] <= 1
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: is not the law of a simulated hospital ({error}); run 'clinical-symile simulate'") from None
    if not known:
        raise InputError(f"{file}: was written by another version of the simulator; run 'clinical-symile simulate --overwrite'")
    return dict(law)
