"""Time and memory of the losses, forward and backward, beside those of the authors' PyPI package.

pip install --no-deps --target REFERENCE symile==0.1.0
python tests/benchmarks/contrastive_losses.py --reference REFERENCE

Every figure comes from a process of its own, ours and theirs in turn. Added memory is the peak of the process (of the
allocator, on a GPU) less what it held when the representations were there and a small loss had been computed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

CASES: dict[str, list[tuple[str, int, int]]] = {
    "cpu": [
        ("n_squared", 128, 1024),
        ("n_squared", 280, 1024),
        ("n_squared", 512, 128),
        ("n_squared", 280, 8192),
        ("n_squared", 1024, 1024),
        ("n", 280, 8192),
        ("clip", 280, 8192),
    ],
    "cuda": [("n_squared", 280, 8192), ("n_squared", 1024, 8192), ("n", 280, 8192), ("clip", 280, 8192)],
}
THEIRS_NEED_TOO_MUCH = {("n_squared", 1024, 1024), ("n_squared", 1024, 8192)}
"""More memory than a machine like this one has: (N^2, d) numbers per anchor and their gradients."""
MODALITIES = 3


def main() -> None:
    """Runs all cases and prints a table."""
    arguments = parse()
    if arguments.child:
        who, loss, n, d, precision = arguments.child
        print(json.dumps(measure(arguments, who, loss, int(n), int(d), precision)))
        return
    precisions = ["float32"] if arguments.device == "cpu" else ["float32", "tf32", "bf16"]
    rate = matmul_rate(arguments.device) / 1e9
    print(f"large matrix products: {rate:,.0f} GFLOP/s in float32, {torch.get_num_threads()} threads")
    columns = ["ours, s", "added, MB", "theirs, s", "added, MB", "times faster", "of the memory", "of the matmul rate"]
    print("| " + " | ".join(["loss, N, d, precision", *columns]) + " |")
    print("|---" * (1 + len(columns)) + "|")
    for loss, n, d in CASES[arguments.device]:
        if arguments.only and f"{loss},{n},{d}" not in arguments.only:
            continue
        for precision in precisions if loss == "n_squared" else precisions[:1]:
            print(row(arguments, loss, n, d, precision), flush=True)


def row(arguments: argparse.Namespace, loss: str, n: int, d: int, precision: str) -> str:
    """One line of the table: ours and theirs in turn, medians over processes."""
    results: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for _ in range(arguments.processes):
        for who in results:
            if who == "theirs" and ((loss, n, d) in THEIRS_NEED_TOO_MUCH or precision == "bf16"):
                continue
            command = [sys.executable, __file__, *sys.argv[1:], "--child", who, loss, str(n), str(d), precision]
            output = subprocess.run(command, capture_output=True, text=True)
            if output.returncode:
                raise SystemExit(output.stderr)
            results[who].append(json.loads(output.stdout.splitlines()[-1]))
    ours, theirs = results["ours"], results["theirs"]
    seconds = spread([result["seconds"] for result in ours])
    cells = [f"`{loss}`, {n}, {d:,}, {precision}", seconds, f"{middle(ours, 'added_mb'):,.0f}"]
    if theirs:
        cells += [spread([result["seconds"] for result in theirs]), f"{middle(theirs, 'added_mb'):,.0f}"]
        cells += [f"{middle(theirs, 'seconds') / middle(ours, 'seconds'):.1f}", ratio(ours, theirs)]
    else:
        cells += ["", "", "", ""]
    # 2 N^3 d for the products and 4 N^3 d for their gradients are what an exact loss cannot do without.
    floor = 6 * n**3 * d if loss == "n_squared" else None
    cells.append("" if floor is None else f"{floor / middle(ours, 'seconds') / middle(ours, 'rate'):.2f}")
    return "| " + " | ".join(cells) + " |"


def measure(arguments: argparse.Namespace, who: str, loss: str, n: int, d: int, precision: str) -> dict[str, float]:
    """Median seconds of a step and the memory that it adds, in this process."""
    device = torch.device(arguments.device)
    if precision == "tf32":
        torch.set_float32_matmul_precision("high")
    generator = torch.Generator().manual_seed(0)
    representations = [torch.randn(n, d, generator=generator).to(device).requires_grad_() for _ in range(MODALITIES)]
    scale = torch.tensor(d**-0.5, device=device, requires_grad=True)
    step = our_step(loss, precision) if who == "ours" else their_step(arguments.reference, loss)
    step([r.detach()[:8].requires_grad_() for r in representations], scale)
    for r in representations:
        r.grad = torch.zeros_like(r)  # what the optimizer needs anyway
    before = memory(device, peak=False)
    seconds = []
    for _ in range(arguments.steps):
        synchronise(device)
        started = time.perf_counter()
        step(representations, scale)
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    added = memory(device, peak=True) - before
    return {"seconds": statistics.median(seconds), "added_mb": added / 1e6, "rate": matmul_rate(arguments.device)}


def our_step(loss: str, precision: str) -> Callable[..., None]:
    """One forward and backward of this package."""
    from clinical_symile.contrastive import PairwiseCLIPLoss, SymileLoss

    dtype = torch.bfloat16 if precision == "bf16" else None
    module = PairwiseCLIPLoss() if loss == "clip" else SymileLoss(loss, product_dtype=dtype)
    return lambda representations, scale: module(representations, scale).backward()


def their_step(reference: Path | None, loss: str) -> Callable[..., None]:
    """One forward and backward of the authors' package; for CLIP, which it lacks, the same lines with torch."""
    if reference is not None:
        sys.path.insert(0, str(reference))
    from symile import Symile

    if loss != "clip":
        module = Symile(loss)
        return lambda representations, scale: module(representations, scale).backward()

    def clip(representations: list[torch.Tensor], scale: torch.Tensor) -> None:
        labels = torch.arange(len(representations[0]), device=scale.device)
        total = torch.zeros((), device=scale.device)
        for a, b in [(0, 1), (1, 2), (0, 2)]:
            logits = scale * representations[a] @ representations[b].T
            total = (
                total
                + (torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)) / 2
            )
        total.backward()

    return clip


def matmul_rate(device: str) -> float:
    """Floating-point operations per second of large float32 products on this machine."""
    size = 2048 if device == "cpu" else 8192
    a, b = torch.randn(2, size, size, device=device)
    seconds = []
    for _ in range(5):
        synchronise(torch.device(device))
        started = time.perf_counter()
        a @ b
        synchronise(torch.device(device))
        seconds.append(time.perf_counter() - started)
    return 2 * size**3 / min(seconds)


def memory(device: torch.device, *, peak: bool) -> int:
    """Bytes held now, or at most since the start."""
    if device.type == "cuda":
        if not peak:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        return torch.cuda.max_memory_allocated()
    key = "VmHWM:" if peak else "VmRSS:"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def synchronise(device: torch.device) -> None:
    """Waits for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def middle(results: list[dict[str, float]], key: str) -> float:
    """The median over processes."""
    return statistics.median(result[key] for result in results)


def spread(values: list[float]) -> str:
    """``median (smallest-largest)``."""
    return f"{statistics.median(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def ratio(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> str:
    """``1/26``."""
    return f"1/{middle(theirs, 'added_mb') / middle(ours, 'added_mb'):.0f}"


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="folder with the package symile 0.1.0, if it is not installed")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--processes", type=int, default=3, help="per figure")
    parser.add_argument("--steps", type=int, default=3, help="per process")
    parser.add_argument("--only", action="append", help="such as n_squared,280,1024")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
