"""Writes symile_0_1_0.json: losses and gradients of the authors' PyPI package, which is not a dependency of ours.

pip install --no-deps --target /tmp/symile_ref symile==0.1.0
PYTHONPATH=/tmp/symile_ref python tests/contrastive/golden/make_symile_golden.py
"""

import json
from pathlib import Path

import torch
from symile import MIPSimilarity, Symile

ROWS, EMBEDDING = 5, 4


def case(seed: int, modalities: int, negative_sampling: str) -> dict[str, object]:
    """One batch with its loss and gradients; the package draws from the global generator, seeded with ``seed``."""
    torch.manual_seed(1000 + seed)
    representations = [torch.randn(ROWS, EMBEDDING, dtype=torch.float64, requires_grad=True) for _ in range(modalities)]
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(seed)
    loss = Symile(negative_sampling)(representations, scale)
    loss.backward()
    return {
        "negative_sampling": negative_sampling,
        "seed": seed,
        "representations": [r.detach().tolist() for r in representations],
        "logit_scale": float(scale.detach()),
        "loss": float(loss.detach()),
        "gradients": [r.grad.tolist() for r in representations],
        "logit_scale_gradient": float(scale.grad),
    }


def scores() -> dict[str, object]:
    """One retrieval."""
    torch.manual_seed(9)
    candidates, first, second = (torch.randn(n, EMBEDDING, dtype=torch.float64) for n in (6, 3, 3))
    return {
        "candidates": candidates.tolist(),
        "queries": [first.tolist(), second.tolist()],
        "scores": MIPSimilarity()(candidates, [first, second]).tolist(),
    }


if __name__ == "__main__":
    cases = [(2, "n"), (3, "n"), (4, "n"), (3, "n_squared"), (4, "n_squared"), (5, "n_squared")]
    golden = {
        "command": "PYTHONPATH=/tmp/symile_ref python tests/contrastive/golden/make_symile_golden.py",
        "package": "symile==0.1.0",
        "torch": torch.__version__,
        "losses": [case(seed, m, how) for seed, (m, how) in enumerate(cases)],
        "retrieval": scores(),
    }
    Path(__file__).with_name("symile_0_1_0.json").write_text(json.dumps(golden) + "\n")
