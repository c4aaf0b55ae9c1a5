"""The array store on disk: prepared once, memory-mapped afterwards; batches and the order in which training sees them."""

from clinical_symile.dataset.batch import make_batch
from clinical_symile.dataset.prepare import prepare
from clinical_symile.dataset.released import import_released_dataset
from clinical_symile.dataset.sampler import EpochSampler
from clinical_symile.dataset.store import ArrayStore

__all__ = ["ArrayStore", "EpochSampler", "import_released_dataset", "make_batch", "prepare"]
