"""One encoder per modality, each ending in a linear head of width d and a LayerNorm, as in Symile-MIMIC.

Attribute names are those of the authors' model, so that the released weights load by name. MONAI's ``ResNet`` with the
arguments below has torchvision's weight names and gives the same numbers (its helpers ``resnet50`` and ``resnet18`` do not:
other strides and biases).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clinical_symile.config import ModelConfig
from clinical_symile.types import ECG_LEADS, LAB_ITEM_IDS


class ResNetEncoder(nn.Module):
    """A ResNet whose classifier is the head: the paper's encoder for the X-ray and for the ECG as an image.

    Args:
        depth: 50 (bottleneck blocks) or 18 (basic blocks).
        in_channels: 3 for an X-ray (n, 3, 320, 320), 1 for an ECG (n, 1, 5000, 12).
        embed_dim: d.
    """

    def __init__(self, depth: int, in_channels: int, embed_dim: int) -> None:
        super().__init__()
        from monai.networks.nets.resnet import ResNet  # slow to import, and the small encoders do without

        block, layers = {50: ("bottleneck", [3, 4, 6, 3]), 18: ("basic", [2, 2, 2, 2])}[depth]
        self.resnet = ResNet(
            block,
            layers,
            [64, 128, 256, 512],
            spatial_dims=2,
            n_input_channels=in_channels,
            conv1_t_size=7,
            conv1_t_stride=2,
            shortcut_type="B",
            bias_downsample=False,
            num_classes=embed_dim,
        )
        self.layer_norm = nn.LayerNorm(embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """(n, channels, height, width) -> (n, d)."""
        return self.layer_norm(self.resnet(image))


class LabsEncoder(nn.Module):
    """A multilayer perceptron over the 50 percentiles and the 50 indicators of what was measured.

    Args:
        hidden: widths of the hidden layers; (256, 1024) in the paper.
        embed_dim: d.
    """

    def __init__(self, hidden: Sequence[int], embed_dim: int) -> None:
        super().__init__()
        widths = [2 * len(LAB_ITEM_IDS), *hidden, embed_dim]
        self.depth = len(widths) - 1
        for number, (inputs, outputs) in enumerate(pairwise(widths), 1):
            self.add_module(f"fc{number}", nn.Linear(inputs, outputs))
        self.layer_norm = nn.LayerNorm(embed_dim)

    def forward(self, labs: Tensor) -> Tensor:
        """(n, 100) -> (n, d)."""
        for number in range(1, self.depth):
            labs = F.gelu(self.get_submodule(f"fc{number}")(labs))
        return self.layer_norm(self.get_submodule(f"fc{self.depth}")(labs))


class SmallCXREncoder(nn.Module):
    """A small X-ray encoder for CPUs: the image at a quarter of its resolution, four convolutions.

    Args:
        embed_dim: d.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _stage(nn.Conv2d, nn.BatchNorm2d, 1, 16, kernel=5),
            _stage(nn.Conv2d, nn.BatchNorm2d, 16, 32, kernel=3),
            _stage(nn.Conv2d, nn.BatchNorm2d, 32, 64, kernel=3),
            _stage(nn.Conv2d, nn.BatchNorm2d, 64, 64, kernel=3),
        )
        self.fc = nn.Linear(2 * 64, embed_dim)
        self.layer_norm = nn.LayerNorm(embed_dim)

    def forward(self, image: Tensor) -> Tensor:
        """(n, 3, 320, 320) -> (n, d)."""
        # The three channels of a grey image differ only by ImageNet's constants.
        grey = F.avg_pool2d(image.mean(dim=1, keepdim=True), 4)
        return self.layer_norm(self.fc(_mean_and_max(self.features(grey))))


class SmallECGEncoder(nn.Module):
    """A small ECG encoder for CPUs: the leads are channels, 100 samples a second, four convolutions over time.

    Args:
        embed_dim: d.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _stage(nn.Conv1d, nn.BatchNorm1d, len(ECG_LEADS), 32, kernel=9),
            _stage(nn.Conv1d, nn.BatchNorm1d, 32, 32, kernel=7),
            _stage(nn.Conv1d, nn.BatchNorm1d, 32, 64, kernel=7),
            _stage(nn.Conv1d, nn.BatchNorm1d, 64, 64, kernel=5),
        )
        self.fc = nn.Linear(2 * 64, embed_dim)
        self.layer_norm = nn.LayerNorm(embed_dim)

    def forward(self, ecg: Tensor) -> Tensor:
        """(n, 1, 5000, 12) -> (n, d)."""
        n, _, samples, leads = ecg.shape
        # 500 Hz -> 100 Hz. Averaging over time before the axes are swapped reads the record in the order it is stored.
        slow = ecg.reshape(n, samples // 5, 5, leads).mean(dim=2).transpose(1, 2)
        return self.layer_norm(self.fc(_mean_and_max(self.features(slow))))


def build_encoders(config: ModelConfig) -> dict[str, nn.Module]:
    """The encoders of a configuration, by the names of the model's attributes."""
    d = config.embed_dim
    return {
        "cxr_encoder": ResNetEncoder(50, 3, d) if config.cxr_encoder == "resnet50" else SmallCXREncoder(d),
        "ecg_encoder": ResNetEncoder(18, 1, d) if config.ecg_encoder == "resnet18" else SmallECGEncoder(d),
        "labs_encoder": LabsEncoder(config.labs_hidden, d),
    }


def _stage(conv: type[nn.Module], norm: type[nn.Module], inputs: int, outputs: int, *, kernel: int) -> nn.Sequential:
    """A convolution that halves the resolution, normalised and rectified."""
    return nn.Sequential(conv(inputs, outputs, kernel, stride=2, padding=kernel // 2, bias=False), norm(outputs), nn.ReLU())


def _mean_and_max(features: Tensor) -> Tensor:
    """(n, c, …) -> (n, 2 c): how much of a feature there is, and whether it is anywhere."""
    flat = features.flatten(start_dim=2)
    return torch.cat([flat.mean(dim=2), flat.amax(dim=2)], dim=1)
