"""Gated Symile against loops written from its formulas, closed forms and autograd; absent modalities; the alarm."""

from __future__ import annotations

import doctest
import importlib
import math

import pytest
import torch
import torch.nn.functional as F

from clinical_symile.contrastive import retrieval_scores
from clinical_symile.contrastive.gate_alarm import collapse_alarm, gate_report
from clinical_symile.contrastive.gated_loss import GatedSymileLoss, draw_candidates, gated_symile_loss
from clinical_symile.contrastive.gated_scores import gated_products, gated_retrieval_scores, rerank
from clinical_symile.contrastive.gates import Gates, gate_weights

NAMES = ["cxr", "ecg", "labs", "echo", "notes"]


def batch(modalities: int, n: int, d: int, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, d, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(modalities)]
    return dict(zip(NAMES, rows, strict=False))


def make_gates(modalities: int = 3, d: int = 4, seed: int = 1, **options) -> Gates:
    """Gates whose parameters are all away from special values, in float64."""
    generator = torch.Generator().manual_seed(seed)
    gates = Gates(NAMES[:modalities], d, key_dim=5, generator=generator, **options).double()
    with torch.no_grad():
        for parameter in gates.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return gates


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.square().sum().sqrt()


def loop_gates(gates: Gates, target: str, candidate: torch.Tensor, query: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """w_tm of one candidate and one query, from the formulas."""
    t = gates.modalities.index(target)
    tau = torch.log1p(gates.log_temperature.exp()) + 0.1
    e_t = unit(candidate)
    q_t = unit(gates.query[t] @ e_t)
    normed = (e_t - e_t.mean()) / (e_t.var(correction=0) + 1e-5).sqrt() * gates.null_norm_weight + gates.null_norm_bias
    hidden = (gates.null_hidden_weight @ normed + gates.null_hidden_bias).clamp(min=0)
    null = (gates.null_weight[0] @ hidden + gates.null_bias[t]) / tau
    s = {m: q_t @ unit(gates.key[gates.modalities.index(m)] @ unit(e)) / tau for m, e in query.items()}
    if gates.kind == "sigmoid":
        return {m: 1 / (1 + (-value).exp()) * (1 - 1 / (1 + (-null).exp())) for m, value in s.items()}
    total = null.exp() + sum(value.exp() for value in s.values())
    return {m: value.exp() / total for m, value in s.items()}


def loop_score(gates: Gates, target: str, candidate: torch.Tensor, query: dict[str, torch.Tensor]) -> torch.Tensor:
    alpha = 1 / (1 + (-gates.strength).exp())
    product = unit(candidate)
    for m, w in loop_gates(gates, target, candidate, query).items():
        e = unit(query[m])
        if gates.neutral == "none":
            product = product * ((1 - alpha) * e + alpha * w * e)
        else:
            nu = unit(gates.neutral_directions[gates.modalities.index(m)])
            product = product * unit((1 - alpha) * e + alpha * (w * e + (1 - w) * nu))
    return product.sum() * len(candidate) ** (len(query) / 2)


def loop_loss(gates: Gates, representations: dict[str, torch.Tensor], scale: float, drawn=None) -> torch.Tensor:
    n, terms = len(representations["cxr"]), []
    for t, target in enumerate(representations):
        for i in range(n):
            query = {m: r[i] for m, r in representations.items() if m != target}
            others = [j for j in range(n) if j != i] if drawn is None else drawn[t][i].tolist()
            scores = [scale * loop_score(gates, target, representations[target][j], query) for j in [i, *others]]
            terms.append(torch.stack(scores).logsumexp(dim=0) - scores[0])
    return torch.stack(terms).mean()


OPTIONS = [
    {"kind": kind, "neutral": neutral}
    for kind in ("sigmoid", "softmax")
    for neutral in ("ones", "random_frozen", "random_trainable", "none")
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o['kind']}-{o['neutral']}")
def test_loss_and_gradients_are_the_loop_over_pairs(options: dict) -> None:
    gates, representations = make_gates(**options), batch(3, 4, 4)
    inputs = [*representations.values(), *gates.parameters()]
    ours = gated_symile_loss(representations, 0.7, gates)
    expected = loop_loss(gates, representations, 0.7)
    assert ours.item() == pytest.approx(expected.item(), rel=1e-12)
    for x, y in zip(torch.autograd.grad(ours, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("modalities", [2, 3, 4, 5])
def test_any_number_of_modalities_and_drawn_negatives(modalities: int) -> None:
    gates, representations = make_gates(modalities), batch(modalities, 5, 4)
    drawn = draw_candidates(5, modalities, 2, torch.Generator().manual_seed(3))
    ours = gated_symile_loss(representations, 1.1, gates, 2, generator=torch.Generator().manual_seed(3))
    assert ours.item() == pytest.approx(loop_loss(gates, representations, 1.1, drawn).item(), rel=1e-12)
    # A list in the order of the gates is the same call.
    as_list = gated_symile_loss(list(representations.values()), 1.1, gates, drawn=drawn)
    assert as_list.item() == ours.item()


@pytest.mark.parametrize("options", [OPTIONS[2], OPTIONS[7]], ids=["sigmoid", "softmax"])
def test_gradcheck(options: dict) -> None:
    gates, representations = make_gates(d=3, **options), batch(3, 3, 3)
    parameters = dict(gates.named_parameters())
    scale = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)

    def loss(scale: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        rows, weights = values[:3], dict(zip(parameters, values[3:], strict=True))
        module = GatedSymileLoss(NAMES[:3], 3, key_dim=5, **options).double()
        state = {f"gates.{name}": value for name, value in weights.items()}
        return torch.func.functional_call(module, state, (list(rows), scale))

    assert torch.autograd.gradcheck(loss, (scale, *representations.values(), *parameters.values()))


@pytest.mark.parametrize("negatives", [None, 1, 3, 4, 100])
def test_negatives_are_different_rows_and_never_the_positive(negatives: int | None) -> None:
    n = 6
    if negatives is not None:
        for columns in draw_candidates(n, 3, negatives, torch.Generator().manual_seed(0)):
            assert columns.shape == (n, min(negatives, n - 1))
            for i, row in enumerate(columns.tolist()):
                assert i not in row
                assert len(set(row)) == len(row)
    # Nothing to tell apart costs the log of how many are compared.
    same = dict.fromkeys(NAMES[:3], torch.ones(n, 4, dtype=torch.float64))
    compared = n if negatives is None else min(negatives, n - 1) + 1
    loss = gated_symile_loss(same, 5.0, make_gates(), negatives)
    assert loss.item() == pytest.approx(math.log(compared))


def test_negatives_are_uniform() -> None:
    n, draws, seen = 5, 4000, torch.zeros(5, 5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(draws):
        (columns,) = draw_candidates(n, 1, 2, generator)
        seen.scatter_add_(1, columns, torch.ones(n, 2))
    expected = draws * 2 / (n - 1)
    assert seen.diagonal().sum() == 0
    assert (seen[~torch.eye(n, dtype=torch.bool)] - expected).abs().max() < 5 * math.sqrt(expected), seen


def test_the_generator_alone_decides_the_negatives() -> None:
    loss, representations = GatedSymileLoss(NAMES[:3], 4, 2, key_dim=5).double(), batch(3, 8, 4)
    values = set()
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        values.add(loss(representations, 1.0, generator=torch.Generator().manual_seed(7)).item())
    assert len(values) == 1
    assert loss(representations, 1.0, generator=torch.Generator().manual_seed(8)).item() not in values


def test_open_gates_are_symile_on_unit_vectors() -> None:
    gates, representations = make_gates(), batch(3, 5, 4)
    with torch.no_grad():
        gates.strength.fill_(-60.0)  # alpha = 0
    units = {name: F.normalize(r, dim=1) for name, r in representations.items()}
    query = {name: representations[name] for name in ("ecg", "labs")}
    expected = 4 * retrieval_scores(units["cxr"], [units["ecg"], units["labs"]])
    torch.testing.assert_close(gated_retrieval_scores(gates, "cxr", representations["cxr"], query), expected)


def test_closed_gates_leave_the_neutral_direction() -> None:
    candidates, query = batch(2, 5, 4).values()
    neutral = torch.full((4,), 0.5, dtype=torch.float64)
    scores = gated_products(candidates, [query], torch.zeros(1, 5, 5), [neutral], torch.tensor(1.0, dtype=torch.float64))
    torch.testing.assert_close(scores, (candidates @ neutral * 2).expand(5, 5))


def test_a_competing_gate_shares_out_what_null_leaves() -> None:
    weights, null = gate_weights(torch.zeros(3, 2, 2), torch.zeros(2), "softmax")
    assert torch.equal(weights, torch.full((3, 2, 2), 0.25))
    assert torch.equal(null, torch.full((2, 2), 0.25))
    weights, null = gate_weights(torch.zeros(3, 2, 2), torch.tensor([0.0, 800.0]), "sigmoid")
    assert weights[:, :, 0].unique().item() == 0.25
    assert weights[:, :, 1].abs().max() == 0
    assert null[0].tolist() == [0.5, 1.0]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o['kind']}-{o['neutral']}")
def test_scores_of_any_subset_of_the_query(options: dict) -> None:
    gates, representations = make_gates(4, **options), batch(4, 3, 4)
    gallery = batch(1, 6, 4, seed=9)["cxr"]
    for subset in (["ecg"], ["labs", "echo"], ["ecg", "labs", "echo"]):
        query = {name: representations[name] for name in subset}
        scores = gated_retrieval_scores(gates, "cxr", gallery, query)
        for i in range(3):
            for j in range(6):
                expected = loop_score(gates, "cxr", gallery[j], {name: r[i] for name, r in query.items()})
                assert scores[i, j].item() == pytest.approx(expected.item(), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: f"{o['kind']}-{o['neutral']}")
def test_an_absent_modality_is_as_if_it_had_never_been(options: dict) -> None:
    gates, representations = make_gates(4, **options), batch(4, 3, 4)
    gallery = batch(1, 6, 4, seed=9)["cxr"]
    query = {name: representations[name].detach().clone() for name in ("ecg", "labs", "echo")}
    query["labs"][1] = torch.nan
    query["ecg"][2], query["labs"][2], query["echo"][2] = torch.nan, torch.inf, 0
    flags = {"ecg": [True, True, False], "labs": [True, False, False], "echo": [True, True, False]}
    present = {name: torch.tensor(flag) for name, flag in flags.items()}
    scores = gated_retrieval_scores(gates, "cxr", gallery, query, present=present)
    full = gated_retrieval_scores(gates, "cxr", gallery, {name: r[0] for name, r in query.items()})
    without_labs = gated_retrieval_scores(gates, "cxr", gallery, {"ecg": query["ecg"][1], "echo": query["echo"][1]})
    torch.testing.assert_close(scores[:1], full)
    torch.testing.assert_close(scores[1:2], without_labs)
    assert torch.equal(scores[2], torch.zeros_like(scores[2])), "a query of nothing prefers nothing"
    rows, reranked = rerank(gates, "cxr", gallery, query, 6, present=present)
    torch.testing.assert_close(reranked, scores.gather(1, rows))


def test_rerank_orders_the_best_of_the_plain_product() -> None:
    gates, representations = make_gates(d=8), batch(3, 5, 8)
    gallery = batch(1, 30, 8, seed=9)["cxr"]
    query = {name: representations[name] for name in ("ecg", "labs")}
    rows, scores = rerank(gates, "cxr", gallery, query, 7)
    assert rows.shape == scores.shape == (5, 7)
    gated = gated_retrieval_scores(gates, "cxr", gallery, query)
    plain = retrieval_scores(F.normalize(gallery, dim=1), [F.normalize(r, dim=1) for r in query.values()])
    for i in range(5):
        assert set(rows[i].tolist()) == set(plain[i].topk(7).indices.tolist())
        assert scores[i].tolist() == sorted(scores[i].tolist(), reverse=True)
        torch.testing.assert_close(scores[i], gated[i, rows[i]])
    assert not torch.equal(rows, plain.topk(7, dim=1).indices), "the gates changed no order: the test proves nothing"
    everything, _ = rerank(gates, "cxr", gallery, query, 30)
    assert torch.equal(everything, gated.argsort(dim=1, descending=True))


def test_incomplete_rows_are_no_positives_and_absent_candidates_no_negatives() -> None:
    gates, representations = make_gates(), batch(3, 6, 4)
    flags = {
        "cxr": torch.tensor([1, 1, 1, 1, 1, 0]).bool(),
        "ecg": torch.tensor([1, 1, 1, 0, 1, 1]).bool(),
        "labs": torch.tensor([1, 1, 1, 1, 1, 1]).bool(),
    }
    spoiled = {name: torch.where(flags[name][:, None], r, torch.nan) for name, r in representations.items()}
    loss = gated_symile_loss(spoiled, 0.9, gates, present=flags)
    terms = []
    for target in representations:
        for i in (0, 1, 2, 4):
            query = {m: r[i] for m, r in representations.items() if m != target}
            candidates = [j for j in range(6) if flags[target][j]]
            scores = torch.stack([0.9 * loop_score(gates, target, representations[target][j], query) for j in candidates])
            terms.append(scores.logsumexp(dim=0) - scores[candidates.index(i)])
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-12)
    for name, gradient in zip(flags, torch.autograd.grad(loss, list(representations.values())), strict=True):
        assert torch.isfinite(gradient).all()
        assert (gradient[~flags[name]] == 0).all()
    # Drawn negatives: the same when all that are present are drawn, whatever else was asked for.
    drawn = draw_candidates(6, 3, 5, None, list(flags.values()))
    assert gated_symile_loss(spoiled, 0.9, gates, present=flags, drawn=drawn).item() == pytest.approx(loss.item(), rel=1e-12)
    careless = draw_candidates(6, 3, 5)  # absent rows too: they are left out
    assert gated_symile_loss(spoiled, 0.9, gates, present=flags, drawn=careless).item() == pytest.approx(loss.item())
    few = draw_candidates(6, 3, 2, torch.Generator().manual_seed(0), list(flags.values()))
    for target, columns in zip(flags, few, strict=True):
        assert all(flags[target][j] for i, row in enumerate(columns.tolist()) for j in row if j != i)


@pytest.mark.parametrize("negatives", [None, 2])
def test_a_modality_absent_in_a_whole_batch_costs_nothing(negatives: int | None) -> None:
    loss, representations = GatedSymileLoss(3, 4, negatives, key_dim=5), batch(3, 5, 4)
    flags = [torch.ones(5).bool(), torch.zeros(5).bool(), torch.ones(5).bool()]
    rows = [r.detach().float().requires_grad_() for r in representations.values()]
    with torch.no_grad():
        rows[1].fill_(torch.nan)
    value = loss(rows, torch.tensor(1.0), present=flags)
    value.backward()
    assert value.item() == 0
    for tensor in (*rows, *loss.parameters()):
        assert tensor.grad is not None
        assert (tensor.grad == 0).all()


@pytest.mark.parametrize("incomplete", [False, True])
def test_parts_of_a_batch_add_up_to_the_whole(incomplete: bool) -> None:
    gates, representations = make_gates(), batch(3, 6, 4)
    flags = None
    if incomplete:
        flags = {name: torch.ones(6).bool() for name in representations}
        flags["ecg"][:3] = False
        flags["labs"][4] = False
    inputs = [*representations.values(), *gates.parameters()]
    for negatives in (None, 3):

        def loss(rows: range | None = None, negatives: int | None = negatives) -> torch.Tensor:
            generator = torch.Generator().manual_seed(5)
            return gated_symile_loss(representations, 0.8, gates, negatives, generator=generator, present=flags, rows=rows)

        whole, parts = loss(), torch.stack([loss(range(0, 3)), loss(range(3, 6))]).mean()
        assert parts.item() == pytest.approx(whole.item(), rel=1e-12)
        for x, y in zip(torch.autograd.grad(parts, inputs), torch.autograd.grad(whole, inputs), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-14)


def test_vectors_against_their_neutral_direction_and_zero_vectors_stay_finite() -> None:
    gates = Gates(NAMES[:3], 4, neutral="ones", strength=30.0)
    rows = {name: torch.full((3, 4), -1.0, requires_grad=True) for name in NAMES[:3]}
    with torch.no_grad():
        rows["ecg"][0] = 0
        gates.null_bias.fill_(-60.0)
        gates.key.zero_()  # s = 0, so w = 1/2: the mix of e = -nu and nu is nothing
    loss = gated_symile_loss(rows, 10.0, gates)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(t.grad).all() for t in (*rows.values(), *gates.parameters()) if t.grad is not None)


def test_half_precision_and_autocast_are_computed_in_float32() -> None:
    loss, representations = GatedSymileLoss(3, 64), [r.detach() for r in batch(3, 6, 64).values()]
    halves = [r.bfloat16() for r in representations]
    expected = loss([r.float() for r in halves], 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss(halves, 0.1)
    assert inside.dtype == torch.float32
    assert inside.item() == expected.item()


def test_no_tensor_of_pairs_times_dimensions_is_held() -> None:
    n, d = 64, 512
    loss = GatedSymileLoss(3, d, key_dim=16)
    representations = [torch.randn(n, d, requires_grad=True) for _ in range(3)]
    largest = 0

    def remember(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        loss(representations, 1.0).backward()
    assert 0 < largest <= 4 * max(n * d, loss.gates.query.numel())


def test_state_is_plain_tensors_and_comes_back() -> None:
    first, second = (GatedSymileLoss(NAMES[:3], 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    representations = {name: r.float() for name, r in batch(3, 5, 4).items()}
    assert first(representations, 1.0).item() != second(representations, 1.0).item()
    assert all(type(value) is torch.Tensor for value in first.state_dict().values())
    second.load_state_dict(first.state_dict())
    assert first(representations, 1.0).item() == second(representations, 1.0).item()
    again = GatedSymileLoss(NAMES[:3], 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.gates.query, first.gates.query), "the generator alone decides where gates start"
    frozen = Gates(3, 4, neutral="random_frozen")
    assert "neutral_directions" in frozen.state_dict()
    assert "neutral_directions" not in dict(frozen.named_parameters())


def planted(gate_ecg: float, gate_labs: float, strength: float = 8.0) -> Gates:
    """Gates whose cxr candidates give ecg and labs these gates in every pair."""
    gates = Gates(NAMES[:3], 6, key_dim=6, strength=strength, temperature=0.01)
    with torch.no_grad():
        for parameter in (gates.query, gates.key, gates.null_weight):
            parameter.zero_()
        gates.null_bias.fill_(-40.0)
        # The candidate's query direction is the first axis; a key points along it (open) or against it (closed).
        gates.query[0, 0] = 1
        gates.key[1, 0], gates.key[2, 0] = 2 * gate_ecg - 1, 2 * gate_labs - 1
        # sigma(1 / 0.11) is 0.99989; the other targets keep s = 0 and w = 1/2.
    return gates


def positive_rows(n: int = 40) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(n, 6, generator=generator) + 0.1 for name in NAMES[:3]}


def test_the_alarm_names_a_modality_that_is_never_believed() -> None:
    report = gate_report(planted(1, 0), positive_rows())
    (finding,) = collapse_alarm(report)
    assert finding.startswith("labs is ignored when cxr is retrieved")
    seen = {(s.target, s.modality): s for s in report.statistics}
    assert seen["cxr", "labs"].gate_true < 0.001
    assert seen["cxr", "labs"].cosine_to_neutral > 0.99
    assert seen["cxr", "ecg"].gate_all > 0.999
    assert seen["ecg", "labs"].gate_all == pytest.approx(0.5)


def test_the_alarm_names_a_target_that_believes_nothing() -> None:
    gates = planted(1, 1)
    with torch.no_grad():
        gates.null_bias[0] = 40.0
    report = gate_report(gates, positive_rows())
    (finding,) = collapse_alarm(report)
    assert "Candidates of cxr ignore every query modality (ecg, labs)" in finding
    assert "NULL option wins in 100%" in finding
    assert report.p_null["cxr"] == pytest.approx(1)
    (finding,) = collapse_alarm(gate_report(planted(0, 0), positive_rows()))
    assert "mean probability of NULL is 0.00" in finding


def test_no_alarm_when_gates_work() -> None:
    assert collapse_alarm(gate_report(planted(1, 1), positive_rows())) == []
    assert collapse_alarm(gate_report(planted(1, 0, strength=-2.0), positive_rows())) == [], "alpha lets labs pass"
    assert collapse_alarm(gate_report(Gates(NAMES[:3], 6), positive_rows())) == []


def test_a_gate_that_opens_only_for_true_pairs_is_healthy() -> None:
    gates = Gates(NAMES[:3], 2, key_dim=2, strength=8.0, temperature=0.01)
    with torch.no_grad():
        gates.null_bias.fill_(-40.0)
        gates.null_weight.zero_()
        gates.query.copy_(torch.eye(2))
        gates.key.copy_(torch.eye(2))
    # Two rows against each other: s is 9 for true pairs and -9 for the others.
    rows = dict.fromkeys(NAMES[:3], torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    report = gate_report(gates, rows)
    assert all(s.closed_all == 0.5 and s.closed_true == 0 for s in report.statistics)
    assert collapse_alarm(report, practically_all=0.5) == []


def test_a_report_leaves_out_incomplete_rows() -> None:
    rows = positive_rows()
    flags = {name: torch.ones(40).bool() for name in rows}
    flags["labs"][10:] = False
    spoiled = rows | {"labs": torch.where(flags["labs"][:, None], rows["labs"], torch.nan)}
    gates = Gates(NAMES[:3], 6)
    expected = gate_report(gates, {name: r[:10] for name, r in rows.items()})
    assert gate_report(gates, spoiled, present=flags) == expected
    with pytest.raises(ValueError, match="0 rows have all modalities"):
        gate_report(gates, rows, present={name: torch.zeros(40).bool() for name in rows})


ONES = dict.fromkeys(NAMES[:3], torch.ones(3, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Gates(1, 4), "at least 2 modalities"),
        (lambda: Gates(["cxr", "cxr"], 4), "different names"),
        (lambda: Gates(3, 4, kind="hard"), "kind='hard'"),
        (lambda: Gates(3, 4, neutral="zeros"), "neutral='zeros'"),
        (lambda: Gates(3, 4, temperature=0.0), "temperature=0.0"),
        (lambda: GatedSymileLoss(3, 4, 0), "negatives=0"),
        (lambda: GatedSymileLoss(3, 4)([torch.ones(3, 4)] * 2, 1.0), "got 2 representations"),
        (lambda: GatedSymileLoss(3, 4)([torch.ones(1, 4)] * 3, 1.0), "at least 2 rows"),
        (lambda: GatedSymileLoss(3, 5)([torch.ones(3, 4)] * 3, 1.0), "for d = 5"),
        (lambda: GatedSymileLoss(3, 4)(ONES, 1.0), "no gate for the modality 'cxr'"),
        (lambda: gated_symile_loss(ONES, 1.0, Gates(list(ONES), 4), rows=range(2, 5)), r"rows=range\(2, 5\)"),
        (lambda: gated_symile_loss(ONES, 1.0, Gates(list(ONES), 4), drawn=[torch.zeros(3, 1)]), "drawn has shapes"),
        (lambda: gated_retrieval_scores(Gates(3, 4), "0", torch.ones(2, 4), {"0": torch.ones(4)}), "'0' is also a query"),
        (lambda: gated_retrieval_scores(Gates(3, 4), "0", torch.ones(2, 5), {"1": torch.ones(5)}), "for d = 4"),
        (lambda: gated_retrieval_scores(Gates(3, 4), "0", torch.ones(2, 4), {}), "queries is empty"),
        (lambda: rerank(Gates(3, 4), "0", torch.ones(2, 4), {"1": torch.ones(4)}, 3), "k=3; expected 1 to 2"),
        (lambda: collapse_alarm(gate_report(Gates(list(ONES), 4), ONES), practically_all=0.0), "practically_all=0.0"),
    ],
)
def test_wrong_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("module", ["gated_loss", "gated_scores"])
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"clinical_symile.contrastive.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
