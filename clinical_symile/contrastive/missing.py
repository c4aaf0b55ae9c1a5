"""Samples that lack a whole modality: the learned vector that stands in for it.

There are two ways to train with such samples. Either the losses are told (``present=…``) and count only the tuples whose
parts were all observed; or the part that is lacking gets a learned representation, and the sample takes part with the parts
it has. The second is how the paper trains on Symile-M3 with missing values, there in front of the encoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from clinical_symile.contrastive.representations import as_presence


class MissingRepresentation(nn.Module):
    """One learned vector per modality, put where a sample lacks that modality.

    The vectors start as ones, the neutral element of the product: a sample without labs is then scored by the product of
    what it has. Among unit vectors ones are long, sqrt(d), and products with them outweigh all others; start from 0 there.
    What was in the row before does not matter, not even NaN, and gets no gradient.

    Args:
        modalities: their names, or their number; then the names are "0", "1", ….
        embed_dim: d.
        start: what every number of the vectors is at first.

    Raises:
        ValueError: no modality, or ``embed_dim`` is not positive.

    Example:
        >>> fill = MissingRepresentation(["ecg", "labs"], embed_dim=2)
        >>> labs = torch.tensor([[5.0, 6.0], [torch.nan, torch.nan]])
        >>> present = {"ecg": torch.tensor([True, True]), "labs": torch.tensor([True, False])}
        >>> fill({"ecg": torch.zeros(2, 2), "labs": labs}, present)["labs"].tolist()
        [[5.0, 6.0], [1.0, 1.0]]

    Source: Saporta et al. 2024, the experiment on Symile-M3 with missing modalities.
    """

    def __init__(self, modalities: Sequence[str] | int, embed_dim: int, *, start: float = 1.0) -> None:
        super().__init__()
        names = [str(i) for i in range(modalities)] if isinstance(modalities, int) else list(modalities)
        if not names or embed_dim < 1:
            raise ValueError(f"modalities={modalities!r}, embed_dim={embed_dim}; expected at least one of each")
        self.vectors = nn.ParameterDict({name: nn.Parameter(torch.full((embed_dim,), start)) for name in names})

    def forward(self, representations: Mapping[str, Tensor], present: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The representations with the learned vectors where a modality is absent.

        Args:
            representations: (n, d) under the name of each modality.
            present: (n,) bool under the same keys; ``None`` if nothing is missing.

        Returns:
            (n, d) under the same keys; the arguments are not written to.

        Raises:
            ValueError: a modality without a vector, or presence that does not fit.
        """
        unknown = [name for name in representations if name not in self.vectors]
        if unknown:
            raise ValueError(f"no representation is learned for {unknown}; this module knows {list(self.vectors)}")
        flags = as_presence(representations, present)
        if flags is None:
            return dict(representations)
        return {
            name: torch.where(flag[:, None], tensor, self.vectors[name].to(tensor.dtype))
            for (name, tensor), flag in zip(representations.items(), flags, strict=True)
        }
