"""The released checkpoint, by a look-alike that has its names, shapes and hyper-parameters but stores each weight once."""

from __future__ import annotations

import argparse
import pathlib
from pathlib import Path
from typing import Any

import pytest
import torch

from clinical_symile.config import ModelConfig
from clinical_symile.errors import InputError
from clinical_symile.models import SymileModel, import_released_checkpoint, load_model, save_model
from clinical_symile.models.released import RELEASED_KEYS

WIDTH = 4


def look_alike(path: Path, *, d: int = WIDTH, change: dict[str, Any] | None = None, **top_level: Any) -> dict[str, torch.Tensor]:
    """A Lightning checkpoint of the authors' names; every weight is one number expanded to its shape."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in SymileModel(ModelConfig(embed_dim=d)).state_dict().items()}
    weights = {name: torch.tensor(float(i)).expand(shape) for i, (name, shape) in enumerate(shapes.items())}
    for name, value in (change or {}).items():
        if value is None:
            del weights[name]
        else:
            weights[name] = value
    checkpoint = {
        "epoch": 20,
        "global_step": 735,
        "pytorch-lightning_version": "2.3.3",
        "state_dict": weights,
        "hyper_parameters": {"args": argparse.Namespace(lr=1e-3), "ckpt_path": pathlib.PosixPath("/ckpts"), "d": d},
        **top_level,
    }
    torch.save(checkpoint, path)
    return weights


def test_the_papers_architecture_has_the_released_keys() -> None:
    with torch.device("meta"):
        model = SymileModel(ModelConfig())
    weights = model.state_dict()
    assert len(weights) == RELEASED_KEYS == 455
    assert weights["cxr_encoder.resnet.fc.weight"].shape == (8192, 2048)
    assert weights["ecg_encoder.resnet.conv1.weight"].shape == (64, 1, 7, 7)
    assert weights["labs_encoder.fc3.weight"].shape == (8192, 1024)


def test_every_weight_arrives_at_its_place(tmp_path: Path) -> None:
    weights = look_alike(tmp_path / "model.ckpt")
    model = import_released_checkpoint(tmp_path / "model.ckpt")
    assert model.config.embed_dim == WIDTH
    assert model.config.labs_hidden == (256, 1024)
    assert not model.training
    imported = model.state_dict()
    assert len(imported) == RELEASED_KEYS
    for name, tensor in imported.items():
        assert torch.equal(tensor.double(), weights[name].double()), name


def test_an_imported_model_can_be_saved_and_used(tmp_path: Path) -> None:
    look_alike(tmp_path / "model.ckpt")
    save_model(import_released_checkpoint(tmp_path / "model.ckpt"), tmp_path / "model", {"loss": "symile"})
    assert load_model(tmp_path / "model")({"labs": torch.rand(2, 100)})["labs"].shape == (2, WIDTH)


class Payload:
    """What an attacker would put into a pickle."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return pathlib.Path.touch, (self.file,)


def test_a_payload_is_refused_and_not_run(tmp_path: Path) -> None:
    victim = tmp_path / "executed"
    look_alike(tmp_path / "evil.ckpt", callbacks=Payload(victim))
    with pytest.raises(InputError, match="can run code; refused"):
        import_released_checkpoint(tmp_path / "evil.ckpt")
    assert not victim.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labs_encoder.fc2.weight": None}, "lacks labs_encoder.fc2.weight"),
        ({"cxr_encoder.resnet.layer3.2.bn1.weight": None}, "layer3.2.bn1.weight"),
        ({"ecg_encoder.resnet.conv1.weight": torch.zeros(64, 3, 7, 7)}, "size mismatch"),
        ({"text_encoder.weight": torch.zeros(2)}, "text_encoder.weight"),
        ({"logit_scale": torch.zeros(2)}, "not a single number"),
        ({"logit_scale": "none"}, "no 'state_dict' of tensors"),
    ],
)
def test_other_weights_are_refused_by_name(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    look_alike(tmp_path / "other.ckpt", change=change)
    with pytest.raises(InputError, match=message):
        import_released_checkpoint(tmp_path / "other.ckpt")


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such checkpoint"):
        import_released_checkpoint(tmp_path / "nowhere.ckpt")
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    with pytest.raises(InputError, match="not a checkpoint that can be read safely"):
        import_released_checkpoint(tmp_path / "text.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(InputError, match="no 'state_dict'"):
        import_released_checkpoint(tmp_path / "list.ckpt")
