"""The mathematics of contrastive learning with any number of modalities. Knows torch, and nothing clinical."""

from clinical_symile.contrastive.clip_loss import PairwiseCLIPLoss, pairwise_clip_loss, pairwise_retrieval_scores
from clinical_symile.contrastive.gate_alarm import collapse_alarm, gate_report
from clinical_symile.contrastive.gated_loss import GatedSymileLoss, gated_symile_loss
from clinical_symile.contrastive.gated_scores import gated_retrieval_scores, rerank
from clinical_symile.contrastive.gates import Gates
from clinical_symile.contrastive.gram import GramLoss, gram_retrieval_scores, gram_volume
from clinical_symile.contrastive.information_split import InformationSplit, split_information
from clinical_symile.contrastive.logit_scale import LogitScale
from clinical_symile.contrastive.mip import multilinear_inner_product, retrieval_scores
from clinical_symile.contrastive.missing import MissingRepresentation
from clinical_symile.contrastive.representations import Presence, Representations
from clinical_symile.contrastive.symile_loss import NegativeSampling, SymileLoss, symile_loss, tuples_per_row
from clinical_symile.contrastive.total_correlation import Certificate, calibrate_scale, certify_total_correlation, symile_bound
from clinical_symile.contrastive.triangle import TriangleLoss, triangle_area, triangle_retrieval_scores
from clinical_symile.contrastive.tuple_cube import Tiling

__all__ = [
    "Certificate",
    "GatedSymileLoss",
    "Gates",
    "GramLoss",
    "InformationSplit",
    "LogitScale",
    "MissingRepresentation",
    "NegativeSampling",
    "PairwiseCLIPLoss",
    "Presence",
    "Representations",
    "SymileLoss",
    "Tiling",
    "TriangleLoss",
    "calibrate_scale",
    "certify_total_correlation",
    "collapse_alarm",
    "gate_report",
    "gated_retrieval_scores",
    "gated_symile_loss",
    "gram_retrieval_scores",
    "gram_volume",
    "multilinear_inner_product",
    "pairwise_clip_loss",
    "pairwise_retrieval_scores",
    "rerank",
    "retrieval_scores",
    "split_information",
    "symile_bound",
    "symile_loss",
    "triangle_area",
    "triangle_retrieval_scores",
    "tuples_per_row",
]
