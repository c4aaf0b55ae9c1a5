"""Gates that let each candidate decide how much of every query modality it believes.

Indices of this file: t the target modality, whose candidates are scored; m the modalities of the query. All vectors are unit
vectors. With W the learned matrices and nu the neutral directions,

    q_t = norm(Wq_t e_t)    k_m = norm(Wk_m e_m)    tau = softplus(log_temperature) + 0.1
    s_tm = q_t . k_m / tau                          how well candidate and query modality agree
    n_t = (MLP(e_t) + b_t) / tau                    the NULL option: believe nothing
    w_tm = sigmoid(s_tm) (1 - sigmoid(n_t))         or softmax over [s_t., n_t] without NULL
    g_tm = norm((1 - alpha) e_m + alpha (w_tm e_m + (1 - w_tm) nu_m))      alpha = sigmoid(strength)

Source: Rheude et al. 2026, Gated Symile, https://arxiv.org/abs/2604.05834.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GateKind = Literal["sigmoid", "softmax"]
Neutral = Literal["ones", "random_frozen", "random_trainable", "none"]


def gate_weights(alignments: Tensor, null: Tensor, kind: GateKind, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The gates of every query modality, and the probability of NULL, for every pair of a query and a candidate.

    Args:
        alignments: (k, n, g), the s_tm of k query modalities.
        null: (g,), the n_t.
        kind: ``"sigmoid"``: each modality is judged by itself; ``"softmax"``: they compete with each other and with NULL.
        present: (k, n) bool, False where a query lacks the modality; it then takes no part in the competition.

    Returns:
        Gates (k, n, g) in [0, 1], 0 where absent, and the probability of NULL (n, g).
    """
    if kind == "sigmoid":
        p_null = torch.sigmoid(null).expand(alignments.shape[1:])
        weights = torch.sigmoid(alignments) * torch.sigmoid(-null)  # 1 - sigmoid(x) = sigmoid(-x), without cancellation
        return (weights if present is None else weights * present[:, :, None]), p_null
    if present is not None:
        alignments = alignments.masked_fill(~present[:, :, None], -torch.inf)
    options = torch.cat([alignments, null.expand(1, *alignments.shape[1:])]).softmax(dim=0)
    return options[:-1], options[-1]


class Gates(nn.Module):
    """The learned parts of Gated Symile: one query matrix, one key matrix and one neutral direction per modality.

    Args:
        modalities: their names, or their number; then the names are "0", "1", ….
        embed_dim: d.
        kind: ``"sigmoid"`` or ``"softmax"``, see ``gate_weights``.
        neutral: what a closed gate puts in place of the modality: ``"ones"``, a direction drawn at random
            (``"random_frozen"``, ``"random_trainable"``), or ``"none"``: nothing is put in its place, and the modality is
            only made smaller, w_tm e_m, without normalising.
        key_dim: rows of the query and key matrices.
        temperature: where exp(log_temperature) starts. tau itself is softplus(log_temperature) + 0.1.
        strength: where the logit of alpha starts; alpha near 0 is Symile on unit vectors.
        generator: for the starting values, on the CPU; ``None`` uses torch's default generator, as ``nn.Linear`` does.

    Raises:
        ValueError: fewer than 2 modalities, a name twice, an unknown ``kind`` or ``neutral``, or a size or temperature that
            is not positive.

    The starting values of ``temperature`` and ``strength`` are those the authors found for Symile-MIMIC.

    Source: Rheude et al. 2026, https://arxiv.org/abs/2604.05834.
    """

    neutral_directions: Tensor | None
    """Not normalised; ``neutrals`` is."""

    def __init__(
        self,
        modalities: Sequence[str] | int,
        embed_dim: int,
        *,
        kind: GateKind = "sigmoid",
        neutral: Neutral = "random_trainable",
        key_dim: int = 256,
        temperature: float = 0.582,
        strength: float = -0.386,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        names = [str(i) for i in range(modalities)] if isinstance(modalities, int) else list(modalities)
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"modalities={modalities!r}; gates need at least 2 modalities with different names")
        if kind not in get_args(GateKind) or neutral not in get_args(Neutral):
            raise ValueError(f"kind={kind!r}, neutral={neutral!r}; choose from {get_args(GateKind)} and from {get_args(Neutral)}")
        if embed_dim < 1 or key_dim < 1 or not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"embed_dim={embed_dim}, key_dim={key_dim}, temperature={temperature}; all must be positive")
        self.modalities, self.embed_dim, self.key_dim = tuple(names), embed_dim, key_dim
        self.kind: GateKind = kind
        self.neutral: Neutral = neutral

        def uniform(*shape: int, fan_in: int) -> nn.Parameter:
            """As ``nn.Linear`` starts."""
            return nn.Parameter((2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(fan_in))

        m = len(names)
        self.query = uniform(m, key_dim, embed_dim, fan_in=embed_dim)
        self.key = uniform(m, key_dim, embed_dim, fan_in=embed_dim)
        self.null_norm_weight = nn.Parameter(torch.ones(embed_dim))
        self.null_norm_bias = nn.Parameter(torch.zeros(embed_dim))
        self.null_hidden_weight = uniform(key_dim, embed_dim, fan_in=embed_dim)
        self.null_hidden_bias = uniform(key_dim, fan_in=embed_dim)
        self.null_weight = uniform(1, key_dim, fan_in=key_dim)
        self.null_bias = nn.Parameter(torch.zeros(m))  # b_t; the last layer of the MLP needs no bias of its own
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature)))
        self.strength = nn.Parameter(torch.tensor(float(strength)))
        if neutral == "random_trainable":
            self.neutral_directions = nn.Parameter(torch.randn(m, embed_dim, generator=generator))
        elif neutral == "none":
            self.register_buffer("neutral_directions", None)
        else:
            ones = neutral == "ones"
            directions = torch.ones(m, embed_dim) if ones else torch.randn(m, embed_dim, generator=generator)
            self.register_buffer("neutral_directions", directions)

    def position(self, name: str) -> int:
        """Where a modality stands in the gates' tensors.

        Raises:
            ValueError: there is no gate for it.
        """
        if name not in self.modalities:
            raise ValueError(f"no gate for the modality {name!r}; these gates know {list(self.modalities)}")
        return self.modalities.index(name)

    def alpha(self) -> Tensor:
        """How much of the gate is applied at all, a scalar in (0, 1)."""
        return torch.sigmoid(self.strength)

    def neutrals(self, dtype: torch.dtype) -> Tensor | None:
        """The neutral directions, (M, d) unit vectors, in the order of ``modalities``; ``None`` for ``"none"``."""
        return None if self.neutral_directions is None else F.normalize(self.neutral_directions.to(dtype), dim=1)

    def weights(
        self, target: str, candidates: Tensor, queries: Mapping[str, Tensor], present: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """The gates of every pair of a query and a candidate.

        Args:
            target: the modality of the candidates.
            candidates: (g, d) unit vectors.
            queries: (n, d) unit vectors of k >= 1 modalities.
            present: (n,) bool under the same keys; ``None`` if nothing is missing.

        Returns:
            Gates (k, n, g) in the order of ``queries``, and the probability of NULL (n, g).

        Raises:
            ValueError: a modality without a gate, or the target among the queries.
        """
        t = self.position(target)
        if target in queries:
            raise ValueError(f"the target {target!r} is also a query modality; leave it out of the query")
        dtype = candidates.dtype
        tau = F.softplus(self.log_temperature.to(dtype)) + 0.1
        agreeing = F.normalize(candidates @ self.query[t].to(dtype).T, dim=1) / tau
        alignments = [
            F.normalize(query @ self.key[self.position(name)].to(dtype).T, dim=1) @ agreeing.T for name, query in queries.items()
        ]
        flags = None if present is None else torch.stack([present[name] for name in queries])
        return gate_weights(torch.stack(alignments), self._null(t, candidates) / tau, self.kind, flags)

    def _null(self, t: int, candidates: Tensor) -> Tensor:
        """``MLP(e_t) + b_t``, (g,)."""
        dtype = candidates.dtype
        normed = F.layer_norm(candidates, (self.embed_dim,), self.null_norm_weight.to(dtype), self.null_norm_bias.to(dtype))
        hidden = F.relu(F.linear(normed, self.null_hidden_weight.to(dtype), self.null_hidden_bias.to(dtype)))
        return (hidden @ self.null_weight.to(dtype).T).squeeze(1) + self.null_bias[t].to(dtype)

    def extra_repr(self) -> str:
        """Shown when the module is printed."""
        return f"{list(self.modalities)}, embed_dim={self.embed_dim}, kind={self.kind!r}, neutral={self.neutral!r}"
