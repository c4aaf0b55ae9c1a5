"""Scores of partial queries are means over the missing modality, and the parts of a score add up to it: both exactly."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical_symile.config import ModelConfig
from clinical_symile.errors import InputError
from clinical_symile.models import SymileModel, score
from clinical_symile.retrieval import (
    ExactIndex,
    Gallery,
    embed_query,
    explain,
    percentiles,
    retrieve,
    retrieve_embedded,
    score_gallery,
)

SIZE, WIDTH = 30, 6


def gallery_of(loss: str, seed: int = 0) -> tuple[Gallery, torch.Tensor, torch.Tensor]:
    """A gallery, and the ECG and labs embeddings of its admissions, whose means the gallery holds."""
    rng = np.random.default_rng(seed)
    cxr, ecg, labs = (rng.normal(size=(SIZE, WIDTH)).astype(np.float32) + shift for shift in (0.0, 0.5, -0.3))
    table = pd.DataFrame(
        {
            "position": range(SIZE),
            "row": range(SIZE),
            "hadm_id": range(SIZE),
            "subject_id": [n // 2 for n in range(SIZE)],
            "cxr_dicom_id": [f"image-{n}" for n in range(SIZE)],
            "cxr_view": ["AP" if n % 3 else "PA" for n in range(SIZE)],
            "split": "test",
        }
    )
    means = {"ecg": torch.from_numpy(ecg).mean(0, keepdim=True), "labs": torch.from_numpy(labs).mean(0, keepdim=True)}
    gallery = Gallery(table, ExactIndex(cxr, functools.partial(score, loss)), means, {"digest": "0" * 64, "access": "synthetic"})
    return gallery, torch.from_numpy(ecg), torch.from_numpy(labs)


@pytest.mark.parametrize("loss", ["symile", "clip"])
@pytest.mark.parametrize(("held", "missing"), [("ecg", "labs"), ("labs", "ecg")])
def test_a_missing_modality_is_averaged_out(loss, held, missing):
    """Naive oracle: the mean of the full scores over everybody's ECG or labs."""
    gallery, ecg, labs = gallery_of(loss)
    everybody = {"ecg": ecg, "labs": labs}
    query = {held: everybody[held][[3]]}
    naive = torch.stack([score_gallery(gallery, {**query, missing: everybody[missing][[n]]}) for n in range(SIZE)]).mean(0)
    difference = score_gallery(gallery, query) - naive
    # CLIP's score holds a part that is the same for all X-rays; averaged or not, it does not change an order.
    assert difference.std() < 1e-5


@settings(max_examples=20, deadline=None)
@given(loss=st.sampled_from(["symile", "clip"]), seed=st.integers(0, 1000), person=st.integers(0, SIZE - 1))
def test_parts_add_up_to_the_score(loss, seed, person):
    gallery, ecg, labs = gallery_of(loss, seed)
    query = {"ecg": ecg[[person]], "labs": labs[[person]]}
    result = retrieve_embedded(gallery, query, k=5)
    for explanation, found in zip(explain(gallery, query, result.positions), result.scores, strict=True):
        assert explanation.score == pytest.approx(found, abs=1e-6)
        total = explanation.average + explanation.ecg + explanation.labs + explanation.together
        assert total == pytest.approx(explanation.score, abs=1e-9)


def test_a_pairwise_score_orders_without_any_joint_part():
    """CLIP: the ECG and the labs each add their own; only Symile can have more from the two together."""
    for loss, has_joint_part in (("clip", False), ("symile", True)):
        gallery, ecg, labs = gallery_of(loss)
        parts = explain(gallery, {"ecg": ecg[[1]], "labs": labs[[1]]}, range(SIZE))
        spread = np.std([part.together for part in parts])
        assert bool(spread > 1e-3) == has_joint_part, f"{loss}: joint parts spread by {spread}"


def test_average_patient_adds_nothing():
    gallery, _, _ = gallery_of("symile")
    for part in explain(gallery, gallery.mean_embeddings, [0, 7]):
        assert (part.ecg, part.labs, part.together) == pytest.approx((0, 0, 0), abs=1e-6)


def test_explanation_of_a_partial_query_has_no_other_part():
    gallery, ecg, _ = gallery_of("symile")
    (part,) = explain(gallery, {"ecg": ecg[[2]]}, [4])
    assert part.labs == 0
    assert part.together == pytest.approx(0, abs=1e-9)
    assert part.labs_only_score is None
    assert part.ecg_only_score == part.score


def test_percentiles_in_closed_form():
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0])
    assert percentiles(scores, torch.arange(5)).tolist() == [0, 25, 50, 75, 100]


def test_equal_scores_are_not_lower():
    assert percentiles(torch.zeros(4), torch.tensor([0, 3])).tolist() == [0, 0]
    assert percentiles(torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0, 1])).tolist() == [50, 50]


def test_percentile_of_a_gallery_of_one():
    assert percentiles(torch.tensor([2.0]), torch.tensor([0])).tolist() == [0]


def test_percentiles_refer_to_the_whole_gallery_despite_a_filter():
    gallery, ecg, labs = gallery_of("symile")
    query = {"ecg": ecg[[0]], "labs": labs[[0]]}
    everything, filtered = (retrieve_embedded(gallery, query, SIZE, where) for where in (None, gallery.where(views=["PA"])))
    known = dict(zip(everything.positions, everything.percentiles, strict=True))
    assert len(filtered.positions) == 10
    assert [known[position] for position in filtered.positions] == filtered.percentiles.tolist()


def test_views_and_subjects_are_filtered():
    gallery, _, _ = gallery_of("symile")
    allowed = gallery.where(views=["AP"], exclude_subject=2, keep=[4])
    shown = gallery.table[allowed]
    assert set(shown["cxr_view"]) == {"AP"}
    assert 4 in shown["position"].to_numpy(), "the kept X-ray was left out"
    assert 5 not in shown["position"].to_numpy(), "the subject's other X-ray was not left out"


def test_kept_xray_still_obeys_the_view():
    gallery, _, _ = gallery_of("symile")
    assert not gallery.where(views=["AP"], exclude_subject=1, keep=[3])[3], "position 3 is PA"


@pytest.fixture(scope="module")
def model() -> SymileModel:
    torch.manual_seed(0)
    return SymileModel(ModelConfig(cxr_encoder="small", ecg_encoder="small", labs_hidden=(8,), embed_dim=WIDTH)).eval()


@pytest.mark.parametrize("held", [("ecg",), ("labs",), ("ecg", "labs")])
def test_any_subset_can_be_asked(model, held):
    generator = torch.Generator().manual_seed(0)
    tensors = {"ecg": torch.rand(1, 1, 5000, 12, generator=generator), "labs": torch.rand(1, 100, generator=generator)}
    query = {modality: tensors[modality] for modality in held}
    gallery, _, _ = gallery_of("symile")
    result = retrieve(gallery, model, query, k=4)
    assert len(result.positions) == len(result.scores) == len(result.percentiles) == 4
    assert result.gallery_scores.shape == (SIZE,)
    assert result.scores.tolist() == sorted(result.gallery_scores, reverse=True)[:4]
    assert torch.equal(torch.from_numpy(result.gallery_scores), score_gallery(gallery, embed_query(model, query)))


@pytest.mark.parametrize(("query", "held"), [({}, "nothing"), ({"cxr": torch.zeros(1, 3, 320, 320)}, "cxr")])
def test_other_queries_are_refused(model, query, held):
    with pytest.raises(InputError, match=f"this one holds {held}"):
        embed_query(model, query)
