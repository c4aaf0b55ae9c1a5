"""From a patient's ECG and laboratory panel to the chest X-rays that fit them best."""

from clinical_symile.retrieval.explain import Explanation, explain
from clinical_symile.retrieval.gallery import QUERY_MODALITIES, Gallery, find_gallery, model_digest
from clinical_symile.retrieval.index import ExactIndex, rank
from clinical_symile.retrieval.indexing import build_index
from clinical_symile.retrieval.query import (
    RetrievalResult,
    embed_query,
    percentiles,
    query_tensors,
    retrieve,
    retrieve_embedded,
    score_gallery,
)
from clinical_symile.retrieval.uploaded_ecg import read_uploaded_ecg
from clinical_symile.retrieval.uploaded_labs import UploadedLabs, read_uploaded_labs

__all__ = [
    "QUERY_MODALITIES",
    "ExactIndex",
    "Explanation",
    "Gallery",
    "RetrievalResult",
    "UploadedLabs",
    "build_index",
    "embed_query",
    "explain",
    "find_gallery",
    "model_digest",
    "percentiles",
    "query_tensors",
    "rank",
    "read_uploaded_ecg",
    "read_uploaded_labs",
    "retrieve",
    "retrieve_embedded",
    "score_gallery",
]
