"""Why an X-ray ranks where it does: an exact split of its score into what each modality adds.

Let v(S) be the score with the modalities outside S replaced by their mean embeddings. The score is linear in each embedding,
so v(S) is the mean score over all ECGs (or panels) of the gallery's admissions. Then

    score = v({})                                        the X-ray with an average ECG and average labs
          + [v({ecg}) - v({})]                           what this ECG adds
          + [v({labs}) - v({})]                          what these labs add
          + [v({ecg, labs}) - v({ecg}) - v({labs}) + v({})]   what only the two together add

with equality, not approximately. A pairwise CLIP score has no last term; in Symile's it is the three-way tie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clinical_symile.retrieval.gallery import Gallery
from clinical_symile.retrieval.query import percentiles, score_gallery
from clinical_symile.types import Modality


@dataclass(frozen=True)
class Explanation:
    """The parts of one X-ray's score; ``average + ecg + labs + together`` is the score.

    The ``only`` values are the score, and its percentile in the gallery, of a query that holds nothing but that modality;
    None when the query does not hold it.
    """

    score: float
    average: float
    ecg: float
    labs: float
    together: float
    ecg_only_score: float | None
    ecg_only_percentile: float | None
    labs_only_score: float | None
    labs_only_percentile: float | None


def explain(gallery: Gallery, embedded: Mapping[Modality, Tensor], positions: Sequence[int]) -> list[Explanation]:
    """Explains the scores of some X-rays for one query.

    Args:
        gallery: the X-rays.
        embedded: the query's embeddings, from ``embed_query``.
        positions: which X-rays.

    Returns:
        One explanation for each position.
    """
    where = torch.as_tensor(list(positions), dtype=torch.int64)
    nothing = score_gallery(gallery, {})
    only: dict[Modality, Tensor] = {modality: score_gallery(gallery, {modality: value}) for modality, value in embedded.items()}
    everything = score_gallery(gallery, embedded)
    shares = {modality: percentiles(scores, where) for modality, scores in only.items()}

    explanations = []
    for number, position in enumerate(where.tolist()):
        average, score = float(nothing[position]), float(everything[position])
        gain = {modality: float(scores[position]) - average for modality, scores in only.items()}
        ecg, labs = gain.get("ecg", 0.0), gain.get("labs", 0.0)
        explanations.append(
            Explanation(
                score=score,
                average=average,
                ecg=ecg,
                labs=labs,
                together=score - average - ecg - labs,
                ecg_only_score=float(only["ecg"][position]) if "ecg" in only else None,
                ecg_only_percentile=float(shares["ecg"][number]) if "ecg" in only else None,
                labs_only_score=float(only["labs"][position]) if "labs" in only else None,
                labs_only_percentile=float(shares["labs"][number]) if "labs" in only else None,
            )
        )
    return explanations
