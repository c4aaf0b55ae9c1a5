"""A simulated hospital whose joint law is known: the demo's data, and the ground truth of what Symile should find."""

from clinical_symile.simulation.ceilings import oracle_accuracy, uniform_pairwise_accuracy
from clinical_symile.simulation.hospital import simulate
from clinical_symile.simulation.law import (
    CHANNEL_NAMES,
    CHANNELS,
    Channel,
    Informations,
    Signs,
    informations,
    joint,
    sample_signs,
)
from clinical_symile.simulation.oracle import Oracle, chance_within

__all__ = [
    "CHANNELS",
    "CHANNEL_NAMES",
    "Channel",
    "Informations",
    "Oracle",
    "Signs",
    "chance_within",
    "informations",
    "joint",
    "oracle_accuracy",
    "sample_signs",
    "simulate",
    "uniform_pairwise_accuracy",
]
