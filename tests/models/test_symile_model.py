"""Shapes, names and behaviour of the encoders and the model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from clinical_symile.config import ModelConfig
from clinical_symile.models import SymileModel, embed, score
from clinical_symile.models.encoders import LabsEncoder, ResNetEncoder

SMALL = ModelConfig(cxr_encoder="small", ecg_encoder="small", labs_hidden=(8,), embed_dim=6, logit_scale_init=-2.0)


def small_model(seed: int = 0) -> SymileModel:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return SymileModel(SMALL)


def inputs(n: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"cxr": (3, 320, 320), "ecg": (1, 5000, 12), "labs": (100,)}
    return {name: torch.rand(n, *shape, generator=generator) for name, shape in shapes.items()}


def test_forward_embeds_every_modality_in_order() -> None:
    outputs = small_model()(dict(reversed(inputs(3).items())))
    assert list(outputs) == ["cxr", "ecg", "labs", "logit_scale"]
    assert {name: tuple(outputs[name].shape) for name in ("cxr", "ecg", "labs")} == dict.fromkeys(("cxr", "ecg", "labs"), (3, 6))


def test_the_scale_is_learned_as_a_logarithm_and_given_out_exponentiated() -> None:
    model = small_model()
    assert model.logit_scale.item() == -2.0
    assert model({"labs": inputs()["labs"]})["logit_scale"].item() == pytest.approx(0.135335, abs=1e-6)


@pytest.mark.parametrize("subset", [("cxr",), ("ecg",), ("labs",), ("ecg", "labs")])
def test_any_subset_gives_the_same_embeddings_as_the_whole(subset: tuple[str, ...]) -> None:
    model, batch = small_model().eval(), inputs()
    whole, part = model(batch), model({name: batch[name] for name in subset})
    assert set(part) == {*subset, "logit_scale"}
    for name in subset:
        assert torch.equal(whole[name], part[name])


def test_embeddings_are_layer_norm_outputs() -> None:
    for name, embedding in small_model()(inputs()).items():
        if name != "logit_scale":
            torch.testing.assert_close(embedding.mean(dim=1), torch.zeros(2), atol=1e-6, rtol=0, msg=name)
            torch.testing.assert_close(embedding.var(dim=1, correction=0), torch.ones(2), atol=1e-2, rtol=0, msg=name)


def test_every_parameter_learns() -> None:
    model = small_model()
    outputs = model(inputs(4))
    weights = torch.randn(6, generator=torch.Generator().manual_seed(1))
    (sum((outputs[name] * weights).sum() for name in ("cxr", "ecg", "labs")) * outputs["logit_scale"]).backward()
    silent = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not silent


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"mri": torch.zeros(1)}, "unknown modality 'mri'; the model encodes cxr, ecg, labs"),
        ({"cxr": torch.zeros(2, 1, 320, 320)}, r"batch\['cxr'\] has shape \(2, 1, 320, 320\); expected \(n, 3, 320, 320\)"),
        ({"ecg": torch.zeros(2, 1, 12, 5000)}, r"expected \(n, 1, 5000, 12\)"),
        ({"labs": torch.zeros(2, 50)}, r"expected \(n, 100\)"),
    ],
)
def test_wrong_input_is_named(batch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model()(batch)


def test_labs_encoder_is_the_papers_mlp() -> None:
    encoder = LabsEncoder((256, 1024), 32)
    assert [tuple(layer.weight.shape) for layer in (encoder.fc1, encoder.fc2, encoder.fc3)] == [
        (256, 100),
        (1024, 256),
        (32, 1024),
    ]
    x = torch.rand(2, 100)
    expected = encoder.layer_norm(encoder.fc3(F.gelu(encoder.fc2(F.gelu(encoder.fc1(x))))))
    assert torch.equal(encoder(x), expected)


@pytest.mark.parametrize(
    ("depth", "channels", "size", "keys", "parameters"),
    [
        # torchvision's resnet50/resnet18 have 25,557,032 and 11,689,512 parameters, with 1000 classes and 3 channels.
        (50, 3, (64, 64), 320, 25_557_032 - 2048 * 990 - 990),
        (18, 1, (250, 12), 122, 11_689_512 - 512 * 990 - 990 - 2 * 64 * 49),
    ],
)
def test_resnet_encoders_are_torchvisions(depth: int, channels: int, size: tuple[int, int], keys: int, parameters: int) -> None:
    encoder = ResNetEncoder(depth, channels, 10)
    names = encoder.resnet.state_dict()
    assert len(names) == keys
    assert {"conv1.weight", "bn1.running_var", "layer4.0.downsample.1.weight", "fc.bias"} <= set(names)
    assert sum(parameter.numel() for parameter in encoder.resnet.parameters()) == parameters
    assert encoder.eval()(torch.rand(1, channels, *size)).shape == (1, 10)


def test_embed_joins_batches_and_leaves_the_model_as_it_was() -> None:
    model, batch = small_model(), inputs(4)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    halves = [{name: tensor[part] for name, tensor in batch.items()} for part in (slice(0, 3), slice(3, 4))]
    embedded = embed(model, halves, ("ecg", "labs"))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), "batch statistics unchanged"
    expected = model.eval()(batch)
    for name in ("ecg", "labs"):
        torch.testing.assert_close(embedded[name], expected[name].detach(), rtol=1e-4, atol=1e-5)
        assert not embedded[name].is_inference()
    assert embed(model, [], ("cxr",))["cxr"].shape == (0, 6)


def test_score_follows_the_loss() -> None:
    candidates, ecg, labs = torch.eye(2), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
    assert score("symile", candidates, [ecg, labs]).tolist() == [[3.0, 10.0]]
    assert score("clip", candidates, [ecg, labs]).tolist() == [[4.0, 7.0]]
    with pytest.raises(ValueError, match="unknown loss 'triangle'"):
        score("triangle", candidates, [ecg])
