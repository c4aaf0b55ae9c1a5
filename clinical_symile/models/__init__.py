"""Encoders, the model, its form on disk, its embeddings and scores, and the import of the released weights."""

from clinical_symile.models.embed import embed, score
from clinical_symile.models.released import import_released_checkpoint
from clinical_symile.models.storage import load_model, read_metadata, save_model
from clinical_symile.models.symile_model import SymileModel

__all__ = ["SymileModel", "embed", "import_released_checkpoint", "load_model", "read_metadata", "save_model", "score"]
