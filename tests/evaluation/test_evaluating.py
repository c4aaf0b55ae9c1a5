"""The stage: what it writes, that it repeats itself, resumes, and refuses."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from clinical_symile.config import EvaluateConfig, ExperimentConfig
from clinical_symile.errors import ConfigError, IncompleteStage, InputError
from clinical_symile.evaluation import RANKS, REPORT, compare, evaluate, evaluating, read_ranks, read_report
from clinical_symile.evaluation.contenders import Contender
from clinical_symile.simulation.law import sample_signs
from clinical_symile.simulation.oracle import Oracle
from clinical_symile.stage import RunOptions

CONFIG = ExperimentConfig(evaluate=EvaluateConfig(bootstrap=400, batch_size=16))
QUIET = RunOptions(quiet=True, jobs=1)


def simulated_oracle(world) -> Oracle:
    ids = world.store.table["hadm_id"].to_numpy()
    return Oracle(ids, sample_signs(len(ids), 0.5, np.random.default_rng(0)), 0.5)


def test_a_report_beside_a_baseline_and_the_oracle(world) -> None:
    manifest = evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"], simulated_oracle(world))
    folder = world.workspace.report("symile")
    assert sorted(manifest["outputs"]) == ["ranks.parquet", "report.html", "report.json"]
    assert manifest["counts"] == {"queries": 40, "subjects": 30, "gallery": 40}
    report = read_report(folder / REPORT)
    keys = ["accuracy_5way", "recall_at_1", "recall_at_5", "recall_at_10", "mrr", "median_rank"]
    assert list(report.metrics) == ["symile", "clip"]
    for table in (
        report.metrics["symile"],
        report.metrics["clip"],
        report.chance,
        report.oracle,
        report.paired_differences["clip"],
    ):
        assert list(table) == keys
    assert report.headline == "accuracy_5way"
    assert report.chance["accuracy_5way"] == 0.2
    own, other, difference = (
        table["accuracy_5way"] for table in (report.metrics["symile"], report.metrics["clip"], report.paired_differences["clip"])
    )
    assert own.low > 0.2, "the planted signal is found"
    assert other.low < 0.2 < other.high, "and nothing is found where nothing was planted"
    assert difference.value == pytest.approx(own.value - other.value, abs=2e-6)
    assert difference.low <= difference.value <= difference.high
    assert report.flat()["mrr_low"] == report.metrics["symile"]["mrr"].low
    assert manifest["headline"]["value"] == own.value
    assert not (folder / ".partial").exists()


def test_each_admission_is_encoded_once(world) -> None:
    evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"])
    expected = {(run, int(row)) for run in ("symile", "clip") for row in world.store.rows("test")}
    assert sorted(world.encoded) == sorted(expected)


def test_metrics_are_those_of_a_loop(world) -> None:
    evaluate(CONFIG, world.workspace, QUIET, "symile")
    planted = {name: tensor.double().numpy() for name, tensor in world.planted["symile"].items()}
    queries, candidates, positive = world.store.candidates("test")
    subjects = world.store.table["subject_id"].to_numpy()
    bank = world.store.rows("test")
    hits, ranks = [], []
    for query, members, place in zip(queries, candidates, positive, strict=True):
        asked = planted["ecg"][query] * planted["labs"][query]
        hits.append(np.argmax(planted["cxr"][members] @ asked) == place)
        others = [row for row in bank if subjects[row] != subjects[query]]
        ranks.append(1 + (planted["cxr"][others] @ asked > planted["cxr"][query] @ asked).sum())
    found = {
        name: estimate.value
        for name, estimate in read_report(world.workspace.report("symile") / REPORT).metrics["symile"].items()
    }
    ranks = np.array(ranks)
    assert found == pytest.approx(
        {
            "accuracy_5way": np.mean(hits),
            "recall_at_1": np.mean(ranks <= 1),
            "recall_at_5": np.mean(ranks <= 5),
            "recall_at_10": np.mean(ranks <= 10),
            "mrr": np.mean(1 / ranks),
            "median_rank": np.median(ranks),
        },
        abs=1e-6,
    )


def test_same_inputs_give_the_same_bytes(world) -> None:
    first = evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"], simulated_oracle(world))
    shutil.rmtree(world.workspace.report("symile"))
    again = evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"], simulated_oracle(world))
    assert first["digest"] == again["digest"]
    assert first["outputs"] == again["outputs"], "the page too, as long as the commit is the same"


def test_a_finished_report_is_skipped_until_something_changes(world) -> None:
    evaluate(CONFIG, world.workspace, QUIET, "symile")
    world.encoded.clear()
    evaluate(CONFIG, world.workspace, QUIET, "symile")
    assert not world.encoded
    evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"])
    assert world.encoded, "another baseline is another report"


def test_an_interrupted_evaluation_keeps_its_embeddings(world, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"])
    shutil.rmtree(world.workspace.report("symile"))
    world.encoded.clear()

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(evaluating, "write_ranks", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"])
    assert len(world.encoded) == 80
    assert not (world.workspace.report("symile") / "manifest.json").exists()
    continued = evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"])
    assert len(world.encoded) == 80, "nothing is encoded again"
    assert continued["digest"] == undisturbed["digest"]


def test_dry_run_writes_nothing(world, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(CONFIG, world.workspace, RunOptions(dry_run=True), "symile", ["clip"]) == {}
    said = capsys.readouterr().out
    assert "would run" in said
    assert "queries: 40" in said
    assert not world.workspace.report("symile").exists()


def test_ranks_table_holds_every_scorer(world) -> None:
    evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"], simulated_oracle(world))
    table = pq.read_table(world.workspace.report("symile") / RANKS).to_pandas()
    assert table.groupby(["scorer", "role"]).size().to_dict() == {
        ("symile", "run"): 40,
        ("clip", "baseline"): 40,
        ("oracle", "oracle"): 40,
    }
    own = read_ranks(world.workspace.report("symile") / RANKS)
    assert (own.run, own.split, own.dataset_digest) == ("symile", "test", world.store.digest)
    report = read_report(world.workspace.report("symile") / REPORT)
    assert own.bank.reciprocal().mean() == pytest.approx(report.metrics["symile"]["mrr"].value, abs=1e-6)


@pytest.mark.parametrize(
    ("run", "baselines", "error", "message"),
    [
        ("symile", ["symile"], ConfigError, "not 'symile' itself"),
        ("symile", ["clip", "clip"], ConfigError, "name each run once"),
        ("symile", ["oracle"], ConfigError, "cannot be the name of a run"),
        ("symile", ["../symile"], ConfigError, "cannot be the name of a run"),
        ("nobody", [], IncompleteStage, "run 'clinical-symile train'"),
        ("symile", ["nobody"], IncompleteStage, "run 'clinical-symile train'"),
    ],
)
def test_wrong_runs_are_refused(world, run: str, baselines: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(CONFIG, world.workspace, QUIET, run, baselines)


def test_without_a_dataset_the_message_names_prepare(world) -> None:
    shutil.rmtree(world.workspace.dataset)
    with pytest.raises(IncompleteStage, match="clinical-symile prepare"):
        evaluate(CONFIG, world.workspace, QUIET, "symile")


def test_a_diverged_model_is_refused(world) -> None:
    world.planted["symile"]["labs"][30] = float("nan")
    with pytest.raises(InputError, match="scores are NaN"):
        evaluate(CONFIG, world.workspace, QUIET, "symile")
    assert not (world.workspace.report("symile") / "manifest.json").exists()


def test_models_from_elsewhere_are_named(world) -> None:
    world.planted["visitor"] = world.planted["clip"]
    world.write_run("visitor", "clip", trained_on=None)
    evaluate(CONFIG, world.workspace, QUIET, "symile", ["visitor"])
    report = read_report(world.workspace.report("symile") / REPORT)
    assert report.trained_on == {"symile": world.store.digest, "visitor": None}
    assert any("Not trained on this data set: visitor" in note for note in report.notes)


def test_a_model_that_beats_the_oracle_is_suspected(world) -> None:
    for modality in ("ecg", "labs"):
        # Every X-ray finds itself, whatever the law says.
        world.planted["symile"][modality] = (
            world.planted["symile"]["cxr"].sign() if modality == "ecg" else world.planted["symile"]["cxr"].abs()
        )
    world.write_dataset(simulated_truth="somewhere")
    evaluate(CONFIG, world.workspace, QUIET, "symile", oracle=simulated_oracle(world))
    notes = read_report(world.workspace.report("symile") / REPORT).notes
    assert "is above the oracle by its whole interval" in notes[0]
    assert "The data are simulated" in notes[1]


def test_clip_is_scored_by_its_own_rule(world) -> None:
    task = evaluating.RetrievalTask.of(world.store, "test")
    planted = {modality: tensor[task.rows] for modality, tensor in world.planted["symile"].items()}
    contender = Contender.of(world.workspace, "clip")
    scores = contender.score_rows(task, planted)(slice(0, 40))
    cxr, ecg, labs = (planted[modality].double().numpy() for modality in ("cxr", "ecg", "labs"))
    pairwise = ecg @ cxr.T + labs @ cxr.T
    # A term that does not depend on the candidate changes no rank.
    np.testing.assert_allclose(scores - scores[:, :1], pairwise - pairwise[:, :1], atol=1e-9)


def test_report_json_is_plain_json(world) -> None:
    evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"])
    report = json.loads((world.workspace.report("symile") / REPORT).read_text())
    assert report["oracle"] is None
    assert report["metrics"]["symile"]["accuracy_5way"].keys() == {"value", "low", "high", "n"}
    assert report["data"]["splits"]["train"] == {"admissions": 12, "subjects": 9}


def test_comparing_two_reports_gives_their_paired_difference(world) -> None:
    evaluate(CONFIG, world.workspace, QUIET, "symile", ["clip"])
    evaluate(CONFIG, world.workspace, QUIET, "clip")
    files = [world.workspace.report(name) / RANKS for name in ("symile", "clip")]
    comparison = compare(*files, resamples=400)
    report = read_report(world.workspace.report("symile") / REPORT)
    assert comparison.runs == ("symile", "clip")
    assert comparison.difference == report.paired_differences["clip"]
    assert comparison.first == report.metrics["symile"]
    assert comparison.first_ranks.shape == comparison.second_ranks.shape == (40,)


def test_comparing_across_datasets_is_refused(world, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate(CONFIG, world.workspace, QUIET, "symile")
    monkeypatch.setattr(world.store, "digest", "e" * 64)
    evaluate(CONFIG, world.workspace, QUIET, "clip")
    files = [world.workspace.report(name) / RANKS for name in ("symile", "clip")]
    with pytest.raises(InputError, match="evaluated on different data sets"):
        compare(*files)


def test_comparing_what_is_not_there_or_no_table(world, tmp_path) -> None:
    with pytest.raises(IncompleteStage, match="run 'clinical-symile evaluate'"):
        compare(tmp_path / "no.parquet", tmp_path / "no.parquet")
    (tmp_path / "text.parquet").write_text("not a table")
    with pytest.raises(InputError, match="not the table of ranks"):
        read_ranks(tmp_path / "text.parquet")
