"""The checkpoint that the authors released with Symile-MIMIC, read without executing what a pickle may hold.

``symile_mimic_model.ckpt`` is a Lightning checkpoint: a pickle. torch's restricted unpickler reads it when two harmless
classes, which its hyper-parameters mention, are allowed. A file that asks for anything else is refused before it is read.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Final

import torch
from torch import Tensor

from clinical_symile.config import ModelConfig
from clinical_symile.errors import InputError
from clinical_symile.models.symile_model import SymileModel

HARMLESS: Final = {
    "argparse.Namespace": argparse.Namespace,
    "pathlib.PosixPath": pathlib.PosixPath,
    "pathlib._local.PosixPath": pathlib.PosixPath,  # its name when Python 3.13 wrote the file
}
"""Classes that a checkpoint may mention, by the name under which pickle refers to them."""

RELEASED_KEYS: Final = 455
"""ResNet-50 (320), ResNet-18 (122), labs MLP (6), three LayerNorms (6), ``logit_scale``."""


def import_released_checkpoint(path: Path) -> SymileModel:
    """Builds our model from the authors' Lightning checkpoint; every key and shape must match.

    Args:
        path: ``symile_mimic_model.ckpt``.

    Returns:
        The model on the CPU, in evaluation mode. Its widths are read from the weights.

    Raises:
        InputError: the file is missing, is no checkpoint, mentions a class that is not allowed, or holds other weights.
    """
    weights = _read_state_dict(path)
    config = _infer_architecture(path, weights)
    with torch.device("meta"):
        model = SymileModel(config)
    try:
        model.load_state_dict(weights, strict=True, assign=True)
    except RuntimeError as error:
        raise InputError(f"{path}: its weights are not those of Symile-MIMIC's model: {error}") from None
    return model.eval()


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path}: there is no such checkpoint")
    with _unreadable_is_an_input_error(path):
        mentioned = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    refused = sorted(mentioned - HARMLESS.keys())
    if refused:
        raise InputError(f"{path}: asks to load {', '.join(refused)}, which can run code; refused, and nothing of it was run")
    with _unreadable_is_an_input_error(path), torch.serialization.safe_globals([(HARMLESS[name], name) for name in mentioned]):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    weights = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise InputError(f"{path}: holds no 'state_dict' of tensors; expected the Lightning checkpoint of Symile-MIMIC")
    return {name: tensor.contiguous() for name, tensor in weights.items()}


def _infer_architecture(path: Path, weights: Mapping[str, Tensor]) -> ModelConfig:
    """The widths that the weights have; everything else about the architecture is fixed."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights:
            raise InputError(f"{path}: lacks {name}; expected the {RELEASED_KEYS} weights of Symile-MIMIC's model")
        return tuple(weights[name].shape)

    scale: Any = weights["logit_scale"].item() if shape("logit_scale") == () else None
    if scale is None:
        raise InputError(f"{path}: logit_scale is not a single number")
    return ModelConfig(
        cxr_encoder="resnet50",
        ecg_encoder="resnet18",
        labs_hidden=(shape("labs_encoder.fc1.weight")[0], shape("labs_encoder.fc2.weight")[0]),
        embed_dim=shape("cxr_encoder.layer_norm.weight")[0],
        logit_scale_init=scale,
    )


@contextmanager
def _unreadable_is_an_input_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, RuntimeError, ValueError, UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: is not a checkpoint that can be read safely ({reason})") from None
