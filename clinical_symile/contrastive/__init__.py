"""The mathematics of contrastive learning with any number of modalities. Knows torch, and nothing clinical."""

from clinical_symile.contrastive.all_tuples import Tiling
from clinical_symile.contrastive.clip_loss import PairwiseCLIPLoss, pairwise_clip_loss, pairwise_retrieval_scores
from clinical_symile.contrastive.logit_scale import LogitScale
from clinical_symile.contrastive.mip import multilinear_inner_product, retrieval_scores
from clinical_symile.contrastive.missing import MissingRepresentation
from clinical_symile.contrastive.representations import Presence, Representations
from clinical_symile.contrastive.symile_loss import NegativeSampling, SymileLoss, symile_loss, tuples_per_row

__all__ = [
    "LogitScale",
    "MissingRepresentation",
    "NegativeSampling",
    "PairwiseCLIPLoss",
    "Presence",
    "Representations",
    "SymileLoss",
    "Tiling",
    "multilinear_inner_product",
    "pairwise_clip_loss",
    "pairwise_retrieval_scores",
    "retrieval_scores",
    "symile_loss",
    "tuples_per_row",
]
