"""The losses on a GPU: the numbers of the CPU, and matrix products in half precision that add up in float32."""

from __future__ import annotations

import pytest
import torch

from clinical_symile.contrastive import PairwiseCLIPLoss, SymileLoss, symile_loss
from clinical_symile.contrastive.tuple_cube import Tiling

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def batch(n: int, d: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, d, generator=generator, dtype=dtype) for _ in range(3)]


def loss_and_gradients(loss, representations: list[torch.Tensor], device: str) -> list[torch.Tensor]:
    inputs = [r.to(device, copy=True).requires_grad_() for r in representations]
    value = loss(inputs, 0.1, torch.Generator().manual_seed(0))
    return [value.detach().cpu(), *(gradient.cpu() for gradient in torch.autograd.grad(value, inputs))]


@pytest.mark.parametrize("loss", [SymileLoss("n_squared"), SymileLoss("n"), PairwiseCLIPLoss()])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
def test_the_gpu_gives_the_numbers_of_the_cpu(loss, dtype: torch.dtype, tolerance: float) -> None:
    representations = batch(40, 64, dtype)
    pairs = zip(*(loss_and_gradients(loss, representations, device) for device in ("cuda", "cpu")), strict=True)
    for ours, expected in pairs:
        torch.testing.assert_close(ours, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_half_precision_products_add_up_in_float32(dtype: torch.dtype, tolerance: float) -> None:
    representations = batch(64, 256, torch.float32)
    exact = loss_and_gradients(SymileLoss("n_squared"), representations, "cpu")
    rounded = loss_and_gradients(SymileLoss("n_squared", product_dtype=dtype), representations, "cuda")
    for ours, expected in zip(rounded, exact, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - expected).norm() / expected.norm() < tolerance


def test_memory_is_that_of_the_tiling() -> None:
    # 2 GB per anchor in the authors' package.
    representations = [r.cuda().requires_grad_() for r in batch(256, 8192, torch.float32)]
    tiling = Tiling(block_elements=1 << 23, columns=1 << 13, kept_elements=0)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    symile_loss(representations, 0.01, "n_squared", tiling=tiling).backward()
    assert torch.cuda.max_memory_allocated() - before < 400e6
