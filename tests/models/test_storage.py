"""Models on disk: nothing is lost, nothing is tampered with unnoticed, nothing is half written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from clinical_symile.config import ModelConfig
from clinical_symile.errors import InputError
from clinical_symile.models import SymileModel, load_model, read_metadata, save_model

SMALL = ModelConfig(cxr_encoder="small", ecg_encoder="small", labs_hidden=(8,), embed_dim=6, logit_scale_init=-2.0)


@pytest.fixture
def model() -> SymileModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return SymileModel(SMALL)


def test_what_is_saved_is_what_is_loaded(tmp_path: Path, model: SymileModel) -> None:
    save_model(model, tmp_path / "model", {"loss": "clip", "access": "synthetic"}, {"items": ["50802"]})
    loaded = load_model(tmp_path / "model")
    assert loaded.config == SMALL
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    metadata = read_metadata(tmp_path / "model")
    assert (metadata["loss"], metadata["access"]) == ("clip", "synthetic")
    assert metadata["architecture"]["embed_dim"] == 6
    assert json.loads((tmp_path / "model" / "labs_statistics.json").read_text()) == {"items": ["50802"]}


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, model: SymileModel) -> None:
    for name in ("a", "b"):
        save_model(model, tmp_path / name, {"loss": "symile"})
    assert (tmp_path / "a" / "SHA256SUMS").read_bytes() == (tmp_path / "b" / "SHA256SUMS").read_bytes()
    assert sorted(os.listdir(tmp_path / "a")) == ["SHA256SUMS", "model.json", "model.safetensors"]


def test_loading_draws_no_random_number(tmp_path: Path, model: SymileModel) -> None:
    save_model(model, tmp_path / "model", {"loss": "symile"})
    before = torch.get_rng_state()
    load_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "labs_statistics.json"])
def test_a_flipped_bit_is_refused(tmp_path: Path, model: SymileModel, name: str) -> None:
    save_model(model, tmp_path / "model", {"loss": "symile"}, {"a": 1})
    file = tmp_path / "model" / name
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: differs from its checksum"):
        load_model(tmp_path / "model")
    with pytest.raises(InputError, match="changed or damaged"):
        read_metadata(tmp_path / "model")


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "SHA256SUMS"])
def test_a_missing_file_is_named(tmp_path: Path, model: SymileModel, name: str) -> None:
    save_model(model, tmp_path / "model", {"loss": "symile"})
    (tmp_path / "model" / name).unlink()
    with pytest.raises(InputError, match=name):
        load_model(tmp_path / "model")


def test_checksums_that_leave_out_the_weights_are_refused(tmp_path: Path, model: SymileModel) -> None:
    save_model(model, tmp_path / "model", {"loss": "symile"})
    sums = tmp_path / "model" / "SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(keepends=True) if "safetensors" not in line))
    with pytest.raises(InputError, match=r"does not list model\.safetensors"):
        load_model(tmp_path / "model")


def test_saving_replaces_a_model_but_nothing_else(tmp_path: Path, model: SymileModel) -> None:
    save_model(model, tmp_path / "model", {"loss": "symile"}, {"a": 1})
    save_model(model, tmp_path / "model", {"loss": "clip"})
    assert read_metadata(tmp_path / "model")["loss"] == "clip"
    assert sorted(os.listdir(tmp_path)) == ["model"], "no temporary folder is left"

    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    with pytest.raises(InputError, match="holds files that are no model"):
        save_model(model, tmp_path / "thesis", {"loss": "symile"})
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"


def test_the_loss_must_be_known(tmp_path: Path, model: SymileModel) -> None:
    with pytest.raises(InputError, match="needs the fact loss"):
        save_model(model, tmp_path / "model", {"access": "open"})
    assert not (tmp_path / "model").exists()


def test_killed_while_replacing_a_model(tmp_path: Path, model: SymileModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is under the model's name is whole, even when the kill comes while the old one is being removed."""
    save_model(model, tmp_path / "model", {"loss": "symile"})

    def killed_halfway(folder: Path, **options: object) -> None:
        (Path(folder) / "SHA256SUMS").unlink(missing_ok=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed_halfway)
        with pytest.raises(KeyboardInterrupt):
            save_model(model, tmp_path / "model", {"loss": "clip"})
    assert read_metadata(tmp_path / "model")["loss"] == "clip"
    save_model(model, tmp_path / "model", {"loss": "symile"})
    assert read_metadata(tmp_path / "model")["loss"] == "symile"
