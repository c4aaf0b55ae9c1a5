"""Everything that an interrupted run needs to go on, in one safetensors file that is replaced atomically.

Weights and the optimizer's moments are tensors; the few numbers beside them are JSON in the file's own header. So there are
no two files that could disagree, and no pickle. (Lightning's own checkpoints are staged in ``/tmp`` and copied: killed on
another file system, 17 of 40 were unreadable.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from clinical_symile.errors import InputError
from clinical_symile.stage import atomic_path

LAST = "last.safetensors"
_MODEL, _OPTIMIZER = "model.", "optimizer."
_HEADER = "progress"


@dataclass(frozen=True)
class Progress:
    """How far training has come.

    Attributes:
        epoch: finished epochs.
        step: finished optimizer steps.
        best_epoch: the finished epoch whose model is kept, counted from 1; 0 when there is none yet.
        best: the metrics of that epoch.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory.

    Attributes:
        progress: how far it got.
        weights: the model's state dict.
        moments: parameter name -> the optimizer's tensors for it.
    """

    progress: Progress
    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]


def save_checkpoint(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Replaces ``last.safetensors``."""
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"{_OPTIMIZER}{key}.{name}"] = tensor
    _save(folder / LAST, tensors, {_HEADER: json.dumps(asdict(progress))})


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The last checkpoint, or ``None`` when there is none.

    Raises:
        InputError: it is there but cannot be read.
    """
    file = folder / LAST
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            progress = Progress(**json.loads(opened.metadata()[_HEADER]))
        tensors = load_file(file)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file}: is not a checkpoint that can be continued ({error}); train again with --overwrite") from None
    weights: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_MODEL):
            weights[name.removeprefix(_MODEL)] = tensor
        else:
            key, parameter = name.removeprefix(_OPTIMIZER).split(".", 1)
            moments.setdefault(parameter, {})[key] = tensor
    return Checkpoint(progress, weights, moments)


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, moments: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Gives a fresh optimizer over ``model.parameters()`` the moments of a checkpoint."""
    state = {number: dict(moments[name]) for number, (name, _) in enumerate(model.named_parameters()) if name in moments}
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def save_best(folder: Path, model: nn.Module, epoch: int) -> None:
    """Keeps the weights of an epoch under its own name: the last checkpoint says which epoch is the best one."""
    _save(best_file(folder, epoch), dict(model.state_dict()), {})


def load_best(folder: Path, epoch: int) -> dict[str, Tensor]:
    """The weights of the best epoch.

    Raises:
        InputError: they are missing or unreadable.
    """
    try:
        return load_file(best_file(folder, epoch))
    except (SafetensorError, OSError) as error:
        raise InputError(f"{best_file(folder, epoch)}: cannot be read ({error}); train again with --overwrite") from None


def forget_other_bests(folder: Path, epoch: int) -> None:
    """Removes the weights of epochs that are not the best any more."""
    for file in folder.glob("best-*.safetensors"):
        if file != best_file(folder, epoch):
            file.unlink()


def best_file(folder: Path, epoch: int) -> Path:
    """Where the weights of an epoch are kept while it is the best."""
    return folder / f"best-{epoch:05d}.safetensors"


def _save(file: Path, tensors: Mapping[str, Tensor], header: dict[str, str]) -> None:
    with atomic_path(file) as temporary:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary, header)
