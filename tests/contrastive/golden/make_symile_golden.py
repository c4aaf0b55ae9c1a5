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
    """One batch with its loss, gradients and, for "n", the permutations that the package drew."""
    torch.manual_seed(seed)
    representations = [torch.randn(ROWS, EMBEDDING, dtype=torch.float64, requires_grad=True) for _ in range(modalities)]
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    state = torch.get_rng_state()
    loss = Symile(negative_sampling)(representations, scale)
    loss.backward()
    # The package calls torch.randperm once per anchor and non-anchor modality, in this order.
    torch.set_rng_state(state)
    permutations = [[torch.randperm(ROWS).tolist() for _ in range(modalities - 1)] for _ in range(modalities)]
    return {
        "negative_sampling": negative_sampling,
        "representations": [r.detach().tolist() for r in representations],
        "logit_scale": float(scale.detach()),
        "permutations": permutations if negative_sampling == "n" else None,
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
    golden = {
        "command": "PYTHONPATH=/tmp/symile_ref python tests/contrastive/golden/make_symile_golden.py",
        "package": "symile==0.1.0",
        "torch": torch.__version__,
        "losses": [case(seed, m, how) for seed, (m, how) in enumerate([(3, "n"), (4, "n"), (3, "n_squared"), (4, "n_squared")])],
        "retrieval": scores(),
    }
    Path(__file__).with_name("symile_0_1_0.json").write_text(json.dumps(golden) + "\n")
