"""The bound and the certificate against enumeration and closed forms: Gaussians, and the XOR family of the paper."""

from __future__ import annotations

import doctest
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from clinical_symile.contrastive import SymileLoss, total_correlation, tuples_per_row
from clinical_symile.contrastive.held_out import HeldOut, Measurement
from clinical_symile.contrastive.total_correlation import calibrate_scale, certify_total_correlation, symile_bound
from clinical_symile.simulation.xor import bit_vector_rows, sample_xor, xor_total_correlation


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(n: int, rho: float, generator: torch.Generator) -> list[torch.Tensor]:
    """Two Gaussians of correlation rho, as features whose dot product is the log density ratio but for a constant."""
    x, noise = torch.randn(2, n, generator=generator, dtype=torch.float64)
    y, variance, one = rho * x + math.sqrt(1 - rho**2) * noise, 1 - rho**2, torch.ones(n, dtype=torch.float64)
    return [
        torch.stack([x**2, x, one], dim=1),
        torch.stack([-(rho**2) / 2 * one, rho * y, -(rho**2) / 2 * y**2], dim=1) / variance,
    ]


def gaussian_information(rho: float) -> float:
    return -0.5 * math.log(1 - rho**2)


def best_score(vectors: tuple[torch.Tensor, ...], p_hat: float) -> list[torch.Tensor]:
    """Representations of XOR rows whose MIP is the log density ratio, with -30 for what never happens."""
    bits = vectors[0].shape[1]
    size = torch.arange(2**bits)
    a, b, c = torch.meshgrid(size, size, size, indexing="ij")
    ratio = (2**bits * (p_hat * (c == a ^ b) + (1 - p_hat) * (c == a))).log().clamp(min=-30)
    rows = [bit_vector_rows(vector) for vector in vectors]
    pairs = torch.cartesian_prod(size, size)
    one_hot = [(row.unsqueeze(1) == pairs[:, m]).double() for m, row in enumerate(rows[:2])]
    return [*one_hot, ratio.flatten(0, 1).T[rows[2]].double()]


def trained(vectors: tuple[torch.Tensor, ...], loss: nn.Module, seed: int = 0):
    """Linear encoders with unit outputs of 16 numbers, as the paper's XOR experiment has them."""
    generator = seeded(seed)
    weights = [torch.randn(x.shape[1] + 1, 16, generator=generator).requires_grad_() for x in vectors]
    logarithm = torch.tensor(-0.3, requires_grad=True)

    def encode(rows: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
        return [F.normalize(F.pad(x, (0, 1), value=1.0) @ w, dim=1) for x, w in zip(rows, weights, strict=True)]

    optimizer = torch.optim.AdamW([*weights, logarithm], lr=0.1, weight_decay=0.01)
    for _ in range(20):
        for index in torch.randperm(len(vectors[0]), generator=generator).split(500):
            optimizer.zero_grad()
            loss(encode(tuple(x[index] for x in vectors)), logarithm.exp(), generator).backward()
            optimizer.step()
    return torch.no_grad()(encode), math.exp(logarithm.item())


def shuffled(tensors: list[torch.Tensor], generator: torch.Generator) -> list[torch.Tensor]:
    return [tensor[torch.randperm(len(tensor), generator=generator)] for tensor in tensors]


# The signal of training


def test_the_bound_weighs_each_batch_with_its_own_number_of_tuples() -> None:
    losses, rows = [9.0, 9.5, 8.0], [280, 280, 190]
    tuples = [tuples_per_row(n, 3, "n_squared") for n in rows]
    by_row = [math.log(n**2) - loss for loss, n in zip(losses, rows, strict=True) for _ in range(n)]
    assert symile_bound(losses, tuples, rows).item() == pytest.approx(sum(by_row) / len(by_row))
    assert symile_bound(losses[:2], tuples[:2]).item() == pytest.approx(math.log(280**2) - 9.25)
    wrong = sum(rows[i] * (math.log(rows[i]) - losses[i]) for i in range(3)) / sum(rows)
    assert symile_bound(losses, tuples, rows).item() - wrong > 5, "log N in place of log N^2 hides log N nats"


def test_the_bound_keeps_anchors_apart_and_takes_no_gradient() -> None:
    losses = [torch.tensor([1.0, 2.0, 3.0], requires_grad=True), torch.tensor([2.0, 2.0, 2.0])]
    bound = symile_bound(losses, [8, torch.tensor([4, 8, 16])], [3, 1])
    expected = [(3 * (math.log(8) - x) + math.log(k) - 2) / 4 for x, k in zip([1, 2, 3], [4, 8, 16], strict=True)]
    assert bound.tolist() == pytest.approx(expected)
    assert not bound.requires_grad


def test_a_loss_without_information_bounds_nothing() -> None:
    zeros = [torch.zeros(6, 4)] * 3
    for how in ("n", "n_squared"):
        loss = SymileLoss(how)(zeros, 1.0, generator=seeded(0))
        assert symile_bound([loss], [tuples_per_row(6, 3, how)]).item() == pytest.approx(0, abs=1e-6)


# The certificate


def test_the_mean_is_that_of_enumeration() -> None:
    # One negative, XOR of one bit: the expected value is a sum over 8 positives and 4 negatives.
    table = torch.randn(2, 2, 2, generator=seeded(3), dtype=torch.float64)
    p_hat, n = 0.8, 9
    expected = 0.0
    for a, b, c in itertools.product(range(2), repeat=3):
        probability = (p_hat * (c == a ^ b) + (1 - p_hat) * (c == a)) / 4
        for y, z in itertools.product(range(2), repeat=2):
            for negative in (table[a, y, z], table[y, b, z], table[y, z, c]):
                expected += probability / 4 / 3 * float(math.log(2) - torch.log1p((negative - table[a, b, c]).exp()))
    estimates = []
    for seed in range(700):
        generator = seeded(seed)
        rows = [bit_vector_rows(vector) for vector in sample_xor(n, 1, p_hat, generator)]
        pairs = torch.cartesian_prod(torch.arange(2), torch.arange(2))
        one_hot = [(row.unsqueeze(1) == pairs[:, m]).double() for m, row in enumerate(rows[:2])]
        representations = [*one_hot, table.flatten(0, 1).T[rows[2]]]
        certificate = certify_total_correlation(representations, 1.0, generator=generator, negatives=1, hedge=0.0, repeats=1)
        estimates.append(certificate.estimate)
    mean, error = torch.tensor(estimates).mean().item(), torch.tensor(estimates).std().item() / math.sqrt(len(estimates))
    assert error < 0.012
    assert abs(mean - expected) < 4 * error


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_a_trained_model_certifies_the_closed_form_at_p_1(bits: int) -> None:
    generator = seeded(5)
    train, test = sample_xor(4000, bits, 1.0, generator), sample_xor(1500, bits, 1.0, generator)
    encode, scale = trained(train, SymileLoss("n"))
    certificate = certify_total_correlation(encode(test), scale, generator=generator)
    truth = xor_total_correlation(bits, 1.0)
    assert 0.95 * truth < certificate.estimate, "10 % would do"
    assert 0.9 * truth < certificate.lower <= truth
    for anchor in certificate.per_anchor.values():
        assert 0.95 * truth < anchor.estimate
        assert anchor.lower <= truth
    assert certificate.warnings == ()


@pytest.mark.parametrize("p_hat", [0.0, 0.3, 0.5, 0.9])
def test_a_trained_model_never_certifies_more_than_there_is(p_hat: float) -> None:
    generator = seeded(6)
    train, test = sample_xor(4000, 2, p_hat, generator), sample_xor(1500, 2, p_hat, generator)
    encode, scale = trained(train, SymileLoss("n"))
    certificate = certify_total_correlation(encode(test), scale, generator=generator)
    assert 0.3 < certificate.lower <= xor_total_correlation(2, p_hat)


@pytest.mark.parametrize("seed", range(3))
def test_shuffled_data_certify_nothing(seed: int) -> None:
    generator = seeded(seed)
    train, val, test = (sample_xor(n, 2, 1.0, generator) for n in (4000, 1000, 1500))
    encode, scale = trained(train, SymileLoss("n"), seed)
    held_out = shuffled(encode(test), generator)
    fitted = calibrate_scale(shuffled(encode(val), generator), scale, generator=generator)
    certificate = certify_total_correlation(held_out, fitted, generator=generator)
    assert certificate.lower <= 0 <= certificate.upper + 1e-12
    assert certificate.estimate > -0.05
    overconfident = certify_total_correlation(held_out, scale, generator=generator)
    assert overconfident.lower < overconfident.upper < 0
    assert "does worse than none" in overconfident.warnings[0]
    assert overconfident.describe().startswith("Total correlation is at least 0.000 nats")


def test_parity_of_four_modalities() -> None:
    # One-hot codes of 8 triples: MIP is 1 for a row of even parity and 0 otherwise.
    vectors = sample_xor(2000, 1, 1.0, seeded(0), modalities=4)
    triples = torch.cartesian_prod(*[torch.arange(2)] * 3)
    first = [(vector == triples[:, m]).double() for m, vector in enumerate(vectors[:3])]
    last = (vectors[3] == triples.sum(dim=1) % 2).double()
    certificate = certify_total_correlation([*first, last], 30.0, generator=seeded(1))
    truth = xor_total_correlation(1, 1.0, modalities=4)
    assert 0.95 * truth < certificate.estimate
    assert certificate.lower <= truth
    assert len(certificate.per_anchor) == 4


def coverage(make, truth: float, repeats: int, **options) -> tuple[float, float]:
    """How often the lower limit exceeds the truth, and how often the interval covers the mean of the estimates."""
    results = []
    for seed in range(repeats):
        generator = seeded(1000 + seed)
        representations, groups = make(generator)
        certificate = certify_total_correlation(representations, 1.0, generator=generator, groups=groups, **options)
        results.append([certificate.lower, certificate.estimate, certificate.upper])
    lower, estimate, upper = torch.tensor(results).T
    mean = estimate.mean()
    assert mean < truth + 3 * estimate.std() / math.sqrt(repeats)
    return float((lower > truth).float().mean()), float(((lower <= mean) & (mean <= upper)).float().mean())


def grouped(generator: torch.Generator) -> tuple[list[torch.Tensor], torch.Tensor]:
    groups = torch.repeat_interleave(torch.arange(150), torch.randint(1, 6, (150,), generator=generator))
    return [r[groups] for r in correlated(150, 0.8, generator)], groups


def overconfident(generator: torch.Generator) -> tuple[list[torch.Tensor], None]:
    # One row in 400 contradicts the score, and a third of the samples have none of these.
    return best_score(sample_xor(400, 1, 0.995, generator), 1.0), None


def cautious(generator: torch.Generator) -> tuple[list[torch.Tensor], None]:
    x, y = correlated(300, 0.8, generator)
    return [0.3 * x, y], None


COVERAGE = {
    "gaussian": (lambda g: (correlated(300, 0.8, g), None), gaussian_information(0.8), {}),
    "gaussian, few negatives": (lambda g: (correlated(300, 0.8, g), None), gaussian_information(0.8), {"negatives": 10}),
    "gaussian, not hedged": (lambda g: (correlated(300, 0.8, g), None), gaussian_information(0.8), {"hedge": 0.0}),
    # Half of this one's variance comes from the rows' part in negatives.
    "gaussian, cautious": (cautious, gaussian_information(0.8), {"hedge": 0.0}),
    "patients": (grouped, gaussian_information(0.8), {}),
    "xor": (lambda g: (best_score(sample_xor(200, 1, 0.5, g), 0.5), None), xor_total_correlation(1, 0.5), {}),
    "rare failures": (overconfident, xor_total_correlation(1, 0.995), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", COVERAGE)
def test_the_limits_hold_as_often_as_they_say(case: str) -> None:
    make, truth, options = COVERAGE[case]
    exceeded, covered = coverage(make, truth, repeats=300, **options)
    assert exceeded <= 0.05
    assert covered >= 0.92


def test_the_limits_hold_in_a_few_repeats() -> None:
    exceeded, covered = coverage(lambda g: (correlated(200, 0.8, g), None), gaussian_information(0.8), repeats=60)
    assert exceeded <= 0.05
    assert covered >= 0.85


def test_rows_of_a_patient_are_one_piece_of_evidence() -> None:
    once = correlated(200, 0.8, seeded(0))
    groups = torch.arange(200).repeat(5)
    copies = [r.repeat(5, 1) for r in once]

    def width(representations: list[torch.Tensor], groups: torch.Tensor | None) -> float:
        c = certify_total_correlation(representations, 1.0, generator=seeded(1), groups=groups, negatives=50)
        return c.upper - c.lower

    assert width(copies, groups) == pytest.approx(width(once, None), rel=0.05)
    assert width(copies, None) < 0.7 * width(copies, groups), "the copies pass for rows of their own"


def test_without_the_allowance_rare_failures_would_be_overlooked() -> None:
    # A sample without a failure: the normal limit is above the truth, Wilson's is not.
    truth = xor_total_correlation(1, 0.995)
    for seed in range(40):
        representations, _ = overconfident(seeded(seed))
        sample = HeldOut.of(representations, 1.0, None, None, None, hedge=0.01)
        total = Measurement.mean(sample.measure(seeded(seed), 4))
        if total.interval(0.95).lower > truth:
            assert total.interval(0.95, worst=math.log(0.01)).lower < truth
            return
    pytest.fail("no sample without a failure among 40")


def test_wilsons_limit_for_failures_of_the_worst_value() -> None:
    n, failed, z = 400, 7, 1.959964
    values = torch.ones(n, dtype=torch.float64)
    values[:failed] = 0.0
    lower = Measurement(values, torch.zeros(n, dtype=torch.float64)).interval(0.95, worst=0.0).lower
    share = failed / n
    wilson = (share + z**2 / (2 * n) + z * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))) / (1 + z**2 / n)
    assert 1 - lower == pytest.approx(wilson, abs=1e-3)


def test_complete_rows_alone_count() -> None:
    full = correlated(300, 0.8, seeded(0))
    holes = {"x": torch.full((40, 3), torch.nan, dtype=torch.float64), "y": torch.ones(40, 3, dtype=torch.float64)}
    named = {name: torch.cat([r, holes[name]]) for name, r in zip("xy", full, strict=True)}
    present = {"x": torch.arange(340) < 300, "y": torch.arange(340) < 340}
    with_holes = certify_total_correlation(named, 1.0, generator=seeded(1), present=present)
    without = certify_total_correlation(dict(zip("xy", full, strict=True)), 1.0, generator=seeded(1))
    assert with_holes == without
    assert with_holes.rows == 300
    groups = torch.arange(340) // 3
    of_groups = certify_total_correlation(named, 1.0, generator=seeded(1), present=present, groups=groups)
    assert (of_groups.rows, of_groups.units) == (300, 100)
    cut = certify_total_correlation(dict(zip("xy", full, strict=True)), 1.0, generator=seeded(1), groups=groups[:300])
    assert of_groups == cut


@given(modalities=st.integers(2, 4), n=st.integers(12, 40), scale=st.floats(0, 1e4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_what_holds_for_any_representations(modalities: int, n: int, scale: float, seed: int) -> None:
    representations = [torch.randn(n, 4, generator=seeded(seed + m)) for m in range(modalities)]
    certificate = certify_total_correlation(representations, scale, generator=seeded(seed), repeats=1)
    assert certificate == certify_total_correlation(representations, scale, generator=seeded(seed), repeats=1)
    assert certificate.lower <= certificate.estimate <= certificate.upper <= certificate.cap
    assert certificate.cap == math.log(certificate.negatives + 1)
    assert certificate.estimate >= math.log(0.01)
    mean = sum(anchor.estimate for anchor in certificate.per_anchor.values()) / modalities
    assert certificate.estimate == pytest.approx(mean, abs=1e-12)
    nothing = certify_total_correlation(representations, 0.0, generator=seeded(seed), repeats=1)
    assert nothing.estimate == 0.0
    assert nothing.lower <= 0.0
    assert nothing.upper == pytest.approx(0, abs=1e-12)


def test_the_order_of_modalities_changes_the_draw_and_nothing_else() -> None:
    representations = dict(zip("abc", best_score(sample_xor(600, 2, 0.9, seeded(0)), 0.9), strict=True))
    one = certify_total_correlation(representations, 1.0, generator=seeded(1), repeats=8)
    other = certify_total_correlation({m: representations[m] for m in "cab"}, 1.0, generator=seeded(1), repeats=8)
    assert list(other.per_anchor) == ["c", "a", "b"]
    assert other.estimate == pytest.approx(one.estimate, abs=0.01)
    for name, anchor in one.per_anchor.items():
        assert other.per_anchor[name].estimate == pytest.approx(anchor.estimate, abs=0.02)


def test_global_randomness_and_precision_do_not_matter() -> None:
    representations = correlated(200, 0.8, seeded(0))
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    certificate = certify_total_correlation(representations, 1.0, generator=seeded(2))
    assert torch.equal(before, torch.random.get_rng_state())
    single = certify_total_correlation([r.float() for r in representations], torch.tensor(1.0), generator=seeded(2))
    assert single.estimate == pytest.approx(certificate.estimate, abs=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = certify_total_correlation([r.float() for r in representations], 1.0, generator=seeded(2))
    assert inside.estimate == single.estimate


def test_a_certificate_speaks_for_itself() -> None:
    code = torch.eye(640).repeat(2, 1)
    certificate = certify_total_correlation({"cxr": code, "ecg": code}, 50.0, generator=seeded(0), negatives=15)
    assert certificate.cap == pytest.approx(math.log(16))
    assert "use more negatives" in certificate.warnings[0], "log 640 does not fit under log 16"
    assert "on 1280 held-out rows with 15 negatives each (cap 2.77 nats)" in certificate.describe()
    groups = torch.arange(1280) // 20
    few = certify_total_correlation({"cxr": code, "ecg": code}, 50.0, generator=seeded(0), groups=groups)
    assert few.units == 64
    assert any("64 independent rows are few" in warning for warning in few.warnings)
    assert "1280 held-out rows of 64 groups" in few.describe()


# The scale


@pytest.mark.parametrize("factor", [0.2, 1.0, 30.0])
def test_the_scale_is_found_again(factor: float) -> None:
    x, y = correlated(1500, 0.8, seeded(0))
    scale = calibrate_scale([factor * x, y], 1.0, generator=seeded(1))
    assert scale * factor == pytest.approx(1, rel=0.15)


def test_the_scale_found_is_the_best() -> None:
    representations = correlated(400, 0.6, seeded(0))
    best = calibrate_scale(representations, 5.0, generator=seeded(1))
    sample = HeldOut.of(representations, best, None, None, None, hedge=0.0)

    def bound(scale: float) -> float:
        at = HeldOut.of(representations, scale, None, None, None, hedge=0.0)
        return float(Measurement.mean(at.measure(seeded(1), 1)).as_positive.mean())

    assert bound(best) > max(bound(0.9 * best), bound(1.1 * best))
    slope = (bound(best + 1e-4) - bound(best - 1e-4)) / 2e-4
    assert slope == pytest.approx(sample.slope(best, seeded(1)) / (2 * 400), abs=1e-6)


def test_a_perfect_score_takes_the_largest_scale() -> None:
    code = torch.eye(400)
    assert calibrate_scale([code, code], 2.0, generator=seeded(0), largest_factor=10.0) == 20.0


def test_no_tie_has_no_scale() -> None:
    x, y = correlated(1500, 0.8, seeded(0))
    scales = [calibrate_scale([x, y[torch.randperm(1500, generator=seeded(s))]], 1.0, generator=seeded(s)) for s in range(5)]
    assert scales == [0.0] * 5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r, g: certify_total_correlation(r, math.inf, generator=g), "logit_scale=inf"),
        (lambda r, g: certify_total_correlation(r, 1.0, generator=g, confidence=95), "confidence=95"),
        (lambda r, g: certify_total_correlation(r, 1.0, generator=g, hedge=1.0), "hedge=1.0"),
        (lambda r, g: certify_total_correlation(r, 1.0, generator=g, repeats=0), "repeats=0"),
        (lambda r, g: certify_total_correlation(r, 1.0, generator=g, negatives=11), "11 negatives per row .* give 1 to 8"),
        (lambda r, g: certify_total_correlation(r, 1.0, generator=g, negatives=0), "0 negatives per row"),
        (lambda r, g: certify_total_correlation(r, 1.0, generator=g, groups=torch.zeros(20).long()), "of 1 independent"),
        (lambda r, g: certify_total_correlation(r, 1.0, generator=g, groups=torch.zeros(3).long()), r"shape \(3,\)"),
        (lambda r, g: certify_total_correlation([r[0], r[0], r[0] / 0], 1.0, generator=g), "'2' has values .* not finite"),
        (lambda r, g: calibrate_scale(r, 0.0, generator=g), "logit_scale=0.0; expected a positive"),
        (lambda r, g: symile_bound([], []), "got 0 losses"),
        (lambda r, g: symile_bound([1.0], [2, 3]), "got 1 losses, 2 tuples"),
        (lambda r, g: symile_bound([1.0], [0]), r"tuples=\[0\]"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call([torch.ones(20, 2)] * 3, seeded(0))


def test_examples_in_docstrings() -> None:
    result = doctest.testmod(total_correlation)
    assert result.attempted > 0
    assert result.failed == 0
