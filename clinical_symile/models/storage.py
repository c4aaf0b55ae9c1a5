"""A model on disk: weights in safetensors, the rest in JSON, and a list of checksums. Nothing in it can run code.

    model.safetensors      the weights
    model.json             architecture, and facts about where the model comes from (``loss``, ``access``, ``dataset`` …)
    labs_statistics.json   what turns laboratory values into the model's input (where the model was trained here)
    SHA256SUMS             checksums of the others; its own digest identifies the model

safetensors does not notice a flipped bit, so loading verifies the checksums.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clinical_symile.config import ModelConfig
from clinical_symile.errors import InputError
from clinical_symile.models.symile_model import SymileModel
from clinical_symile.stage import digest_file, write_json, write_text

WEIGHTS = "model.safetensors"
METADATA = "model.json"
LABS_STATISTICS = "labs_statistics.json"
CHECKSUMS = "SHA256SUMS"
FORMAT = 1


def save_model(
    model: SymileModel, folder: Path, extra: Mapping[str, Any], labs_statistics: Mapping[str, Any] | None = None
) -> None:
    """Writes a model folder; it appears whole or not at all, and replaces a model that was there.

    Args:
        model: the model; its device does not matter.
        folder: the folder to write.
        extra: facts for ``model.json``. ``loss`` ("symile" or "clip") is required, since it decides how to score.
        labs_statistics: the JSON form of the laboratory statistics that the model was trained with.

    Raises:
        InputError: ``extra`` lacks ``loss``, or the folder holds something that is not a model.
    """
    if extra.get("loss") not in ("symile", "clip"):
        raise InputError(f"{folder}: a model needs the fact loss = 'symile' or 'clip', but extra has {extra.get('loss')!r}")
    if folder.exists() and any(folder.iterdir()) and not (folder / CHECKSUMS).is_file():
        raise InputError(f"{folder}: holds files that are no model; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".tmp"))
    try:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, staged / WEIGHTS)
        facts = {
            "format": FORMAT,
            "architecture": model.config.model_dump(mode="json"),
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
        }
        write_json(staged / METADATA, {**extra, **facts})
        if labs_statistics is not None:
            write_json(staged / LABS_STATISTICS, labs_statistics)
        names = sorted(path.name for path in staged.iterdir())
        write_text(staged / CHECKSUMS, "".join(f"{digest_file(staged / name)}  {name}\n" for name in names))
        # Renamed before it is removed: a kill on the way leaves no half model under its name.
        retired = staged.with_name(f"{staged.name}.old.tmp")
        if folder.exists():
            os.rename(folder, retired)
        os.rename(staged, folder)
        shutil.rmtree(retired, ignore_errors=True)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def load_model(folder: Path) -> SymileModel:
    """Reads a model folder, after verifying every checksum.

    Args:
        folder: written by ``save_model``.

    Returns:
        The model on the CPU, in evaluation mode.

    Raises:
        InputError: a file is missing, was changed, or does not fit the architecture.
    """
    config = _architecture(folder, read_metadata(folder))
    # On the meta device nothing is initialised (and no random number drawn) only to be overwritten.
    with torch.device("meta"):
        model = SymileModel(config)
    try:
        model.load_state_dict(load_file(folder / WEIGHTS), strict=True, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{folder / WEIGHTS}: does not hold the weights that {METADATA} describes ({error})") from None
    return model.eval()


def read_metadata(folder: Path) -> dict[str, Any]:
    """``model.json`` of a model folder, after verifying every checksum.

    Raises:
        InputError: a file is missing or was changed.
    """
    verify(folder)
    try:
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder / METADATA}: is not valid JSON ({error})") from None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise InputError(f"{folder / METADATA}: is not of format {FORMAT}, which this version reads")
    return metadata


def verify(folder: Path) -> None:
    """Compares every file of a model folder with its checksum.

    Raises:
        InputError: names the first file that is missing or differs.
    """
    sums = folder / CHECKSUMS
    if not sums.is_file():
        raise InputError(f"{folder}: holds no saved model ({CHECKSUMS} is missing)")
    expected = dict(line.split("  ", 1)[::-1] for line in sums.read_text(encoding="utf-8").splitlines() if "  " in line)
    for name in (WEIGHTS, METADATA, *sorted(expected)):
        if name not in expected:
            raise InputError(f"{sums}: does not list {name}; this is not a whole model")
        if Path(name).name != name or not (folder / name).is_file():
            raise InputError(f"{folder / name}: is listed in {CHECKSUMS} but is not there")
        if digest_file(folder / name) != expected[name]:
            raise InputError(
                f"{folder / name}: differs from its checksum in {CHECKSUMS}; it was changed or damaged, do not use it"
            )


def _architecture(folder: Path, metadata: Mapping[str, Any]) -> ModelConfig:
    try:
        return ModelConfig.model_validate(metadata.get("architecture"))
    except ValidationError as error:
        raise InputError(f"{folder / METADATA}: describes no architecture that this version knows ({error})") from None
