"""The model: three encoders and the scale of their products."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from clinical_symile.config import ModelConfig
from clinical_symile.models.encoders import build_encoders
from clinical_symile.types import CXR_SIZE, ECG_LEADS, ECG_SAMPLES, LAB_ITEM_IDS, MODALITIES, Modality

INPUT_SHAPES: dict[Modality, tuple[int, ...]] = {
    "cxr": (3, CXR_SIZE, CXR_SIZE),
    "ecg": (1, ECG_SAMPLES, len(ECG_LEADS)),
    "labs": (2 * len(LAB_ITEM_IDS),),
}
"""What one admission looks like to each encoder."""


class SymileModel(nn.Module):
    """Encodes each modality into d numbers; how well they fit together is their multilinear inner product.

    The embeddings are LayerNorm outputs and are not normalised to unit length, as in Symile-MIMIC. The scale is learned as
    its logarithm, the parameter ``logit_scale``.

    Args:
        config: architecture.

    Source: Saporta et al. 2024, https://arxiv.org/abs/2411.01053, Symile-MIMIC.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        for name, encoder in build_encoders(config).items():
            self.add_module(name, encoder)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale_init))

    def forward(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embeds whatever the batch holds.

        Args:
            batch: any subset of ``cxr`` (n, 3, 320, 320), ``ecg`` (n, 1, 5000, 12) and ``labs`` (n, 100).

        Returns:
            An embedding (n, d) under each key of the batch, in the order of ``types.MODALITIES``, and ``logit_scale``: the
            scale itself (the exponential of the parameter), as the losses take it.

        Raises:
            ValueError: an unknown modality, or a tensor of another shape.
        """
        check_batch(batch)
        outputs: dict[str, Tensor] = {name: self.encoder(name)(batch[name]) for name in MODALITIES if name in batch}
        outputs["logit_scale"] = self.logit_scale.exp()
        return outputs

    def encoder(self, modality: Modality) -> nn.Module:
        """The encoder of one modality."""
        return self.get_submodule(f"{modality}_encoder")


def check_batch(batch: Mapping[str, Tensor]) -> None:
    """Raises an error that names the tensor which the encoders cannot take.

    Raises:
        ValueError: an unknown modality, or a tensor of another shape.
    """
    for name, tensor in batch.items():
        if name not in INPUT_SHAPES:
            raise ValueError(f"unknown modality {name!r}; the model encodes {', '.join(INPUT_SHAPES)}")
        expected = INPUT_SHAPES[name]
        if tuple(tensor.shape[1:]) != expected:
            sizes = ", ".join(map(str, expected))
            raise ValueError(f"batch[{name!r}] has shape {tuple(tensor.shape)}; expected (n, {sizes})")
