"""One batch of representations, one tensor per modality: what every function of this room takes, and its checks.

Letters in shapes: n rows of a batch, d embedding, g gallery, M modalities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Representations = Sequence[Tensor] | Mapping[str, Tensor]
"""``[r_1, …, r_M]`` or ``{"cxr": r_1, …}``, each (n, d)."""

Presence = Sequence[Tensor] | Mapping[str, Tensor]
"""Which rows have which modality: (n,) bool per modality, in the order or under the keys of the representations."""


def as_representations(representations: Representations, *, at_least: int = 2) -> list[Tensor]:
    """The tensors as a list of one floating dtype, wide enough to add up products.

    Half precision becomes float32: products of three numbers leave the range of float16 quickly, and sums over the
    embedding lose bits in bfloat16. Mixed dtypes are promoted as torch promotes them; float64 stays float64.

    Args:
        representations: M tensors, each (n, d), in a sequence or a mapping.
        at_least: the smallest M that makes sense.

    Raises:
        ValueError: too few tensors, a tensor that is not (n, d), shapes that differ, or a dtype that is not floating.
    """
    named = _by_name(representations)
    if len(named) < at_least:
        raise ValueError(f"needs representations of at least {at_least} modalities, but got {len(named)}")
    tensors = list(named.values())
    for name, tensor in named.items():
        if tensor.dim() != 2:
            raise ValueError(f"representation {name!r} has shape {tuple(tensor.shape)}; expected (n, d)")
        if tensor.shape != tensors[0].shape:
            shapes = {key: tuple(value.shape) for key, value in named.items()}
            raise ValueError(f"all representations must have the same shape (n, d), but got {shapes}")
    return to_common_dtype(named)


def to_common_dtype(named: Mapping[str, Tensor] | Mapping[str | int, Tensor]) -> list[Tensor]:
    """The tensors in their common floating dtype, at least float32.

    Raises:
        ValueError: a tensor is not floating, or the tensors are on different devices.
    """
    dtype = torch.float32
    devices = {tensor.device for tensor in named.values()}
    if len(devices) > 1:
        raise ValueError(f"all representations must be on one device, but are on {sorted(map(str, devices))}")
    for name, tensor in named.items():
        if not tensor.is_floating_point():
            raise ValueError(f"representation {name!r} is {tensor.dtype}; expected a floating dtype such as torch.float32")
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in named.values()]


def as_presence(representations: Representations, present: Presence | None) -> list[Tensor] | None:
    """Which rows have which modality, in the order of the representations and on their device.

    Args:
        representations: M tensors, each (n, d), in a sequence or a mapping.
        present: M tensors, each (n,) bool, in a sequence or a mapping with the same keys; ``None`` if nothing is missing.

    Returns:
        M tensors (n,) bool; ``None`` if nothing is missing.

    Raises:
        ValueError: names the modality whose presence is lacking, has another shape or is not bool.
    """
    if present is None:
        return None
    named = _by_name(representations)
    flags = _by_name(present)
    if named.keys() != flags.keys():
        raise ValueError(f"present describes the modalities {list(flags)}, but the representations are {list(named)}")
    for name, tensor in named.items():
        if flags[name].dtype != torch.bool or flags[name].shape != tensor.shape[:1]:
            raise ValueError(
                f"present[{name!r}] is {flags[name].dtype} of shape {tuple(flags[name].shape)}; "
                f"expected torch.bool of shape {tuple(tensor.shape[:1])}, True where the row has the modality"
            )
    return [flags[name].to(tensor.device) for name, tensor in named.items()]


def _by_name(tensors: Sequence[Tensor] | Mapping[str, Tensor]) -> dict[str | int, Tensor]:
    """Each tensor under its key, or its position."""
    return dict(tensors.items()) if isinstance(tensors, Mapping) else dict(enumerate(tensors))
