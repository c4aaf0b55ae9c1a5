"""The mathematics of contrastive learning with any number of modalities. Knows torch, and nothing clinical."""

from clinical_symile.contrastive.all_tuples import Tiling
from clinical_symile.contrastive.clip_loss import PairwiseCLIPLoss, pairwise_clip_loss, pairwise_retrieval_scores
from clinical_symile.contrastive.information_split import InformationSplit, split_information
from clinical_symile.contrastive.logit_scale import LogitScale
from clinical_symile.contrastive.mip import multilinear_inner_product, retrieval_scores
from clinical_symile.contrastive.missing import MissingRepresentation
from clinical_symile.contrastive.representations import Presence, Representations
from clinical_symile.contrastive.symile_loss import NegativeSampling, SymileLoss, symile_loss, tuples_per_row
from clinical_symile.contrastive.total_correlation import Certificate, calibrate_scale, certify_total_correlation, symile_bound

__all__ = [
    "Certificate",
    "InformationSplit",
    "LogitScale",
    "MissingRepresentation",
    "NegativeSampling",
    "PairwiseCLIPLoss",
    "Presence",
    "Representations",
    "SymileLoss",
    "Tiling",
    "calibrate_scale",
    "certify_total_correlation",
    "multilinear_inner_product",
    "pairwise_clip_loss",
    "pairwise_retrieval_scores",
    "retrieval_scores",
    "split_information",
    "symile_bound",
    "symile_loss",
    "tuples_per_row",
]
