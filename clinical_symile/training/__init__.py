"""Training: Lightning drives, everything that decides the result is here. The only room with Lightning."""

from clinical_symile.training.tracker import NullTracker, RunTracker
from clinical_symile.training.train import train

__all__ = ["NullTracker", "RunTracker", "train"]
