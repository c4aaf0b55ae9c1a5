"""The gallery: what is in it, that it is bound to its model and dataset, and that an interrupted build ends the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from clinical_symile.dataset import ArrayStore, make_batch
from clinical_symile.errors import IncompleteStage, InputError
from clinical_symile.modalities import LabStatistics
from clinical_symile.models import load_model, score
from clinical_symile.retrieval import Gallery, build_index, find_gallery, indexing, model_digest, query_tensors, retrieve
from clinical_symile.stage import RunOptions

QUIET = RunOptions(quiet=True, jobs=1)
RUN = "tiny"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".npy", ".parquet")}


@pytest.fixture
def opened(config, workspace) -> Gallery:
    build_index(config, workspace, QUIET, RUN)
    store = ArrayStore.open(workspace.dataset)
    return Gallery.open(workspace.gallery(RUN), model=model_digest(workspace.run(RUN) / "model"), dataset=store.digest)


def test_gallery_holds_the_embeddings_of_its_xrays(opened, workspace):
    store, model = ArrayStore.open(workspace.dataset), load_model(workspace.run(RUN) / "model")
    assert opened.table["row"].tolist() == list(range(4, 13)), "val and test; the X-ray that two admissions share is held once"
    assert opened.table["position"].tolist() == list(range(len(opened)))
    with torch.inference_mode():
        for position, row in enumerate(opened.table["row"]):
            alone = model({"cxr": make_batch(store, [row])["cxr"]})["cxr"][0]
            np.testing.assert_allclose(opened.index.embeddings[position], alone, atol=1e-5)


def test_means_are_those_of_the_gallerys_admissions(opened, workspace):
    store, model = ArrayStore.open(workspace.dataset), load_model(workspace.run(RUN) / "model")
    with torch.inference_mode():
        embedded = model(make_batch(store, opened.table["row"].to_numpy()))
    for modality in ("ecg", "labs"):
        np.testing.assert_allclose(opened.mean_embeddings[modality][0], embedded[modality].mean(dim=0), atol=1e-5)


def test_retrieval_scores_every_xray_by_the_product(opened, workspace):
    store, model = ArrayStore.open(workspace.dataset), load_model(workspace.run(RUN) / "model")
    batch = make_batch(store, [9])
    result = retrieve(opened, model, {modality: batch[modality] for modality in ("ecg", "labs")}, k=3)
    with torch.inference_mode():
        query = model(batch)
    naive = (torch.from_numpy(np.array(opened.index.embeddings)) * query["ecg"] * query["labs"]).sum(dim=1)
    np.testing.assert_allclose(result.gallery_scores, naive, rtol=1e-5)
    assert result.positions.tolist() == torch.argsort(naive, descending=True)[:3].tolist()


def test_the_loss_of_the_model_decides_how_to_score(config, workspace, write_run):
    write_run(workspace, "pairwise", loss="clip")
    build_index(config, workspace, QUIET, "pairwise")
    gallery = Gallery.open(workspace.gallery("pairwise"))
    queries = [torch.ones(1, 6), torch.full((1, 6), 2.0)]
    expected = score("clip", torch.from_numpy(np.array(gallery.index.embeddings)), queries)
    assert torch.equal(gallery.index.scores(queries), expected)


def test_patient_of_the_dataset_and_same_files_give_the_same_query(workspace):
    """An uploaded copy of a dataset's admission is the same query, so it gets the same answer."""
    store = ArrayStore.open(workspace.dataset)
    statistics = LabStatistics.from_json((workspace.dataset / "labs_statistics.json").read_text())
    batch = make_batch(store, [5])
    tensors = query_tensors(store.ecg_mv(5), store.labs_values[5], statistics)
    torch.testing.assert_close(tensors["ecg"], batch["ecg"], atol=1e-6, rtol=0)
    assert torch.equal(tensors["labs"], batch["labs"])


def test_nothing_given_gives_no_tensor():
    assert query_tensors(None, None, LabStatistics.fit(np.zeros((1, 50)))) == {}


def test_finished_gallery_is_not_built_again(opened, config, workspace, monkeypatch):
    monkeypatch.setattr(indexing, "load_model", lambda folder: pytest.fail("the model was loaded again"))
    assert build_index(config, workspace, QUIET, RUN)["digest"] == opened.digest


def test_dry_run_writes_nothing(config, workspace, capsys):
    assert build_index(config, workspace, RunOptions(dry_run=True), RUN) == {}
    assert "9" in capsys.readouterr().out
    assert not workspace.gallery(RUN).exists()


@pytest.mark.parametrize("finished", [1, 2])
def test_interrupted_build_goes_on_and_ends_the_same(config, workspace, monkeypatch, finished):
    build_index(config, workspace, QUIET, RUN)
    undisturbed = files(workspace.gallery(RUN))
    embed, done = indexing.embed, []

    def stops(*arguments):
        if len(done) == finished:
            raise KeyboardInterrupt
        done.append(arguments)
        return embed(*arguments)

    monkeypatch.setattr(indexing, "embed", stops)
    with pytest.raises(KeyboardInterrupt):
        build_index(config, workspace, RunOptions(overwrite=True, quiet=True), RUN)
    with pytest.raises(IncompleteStage, match="interrupted"):
        Gallery.open(workspace.gallery(RUN))

    again = []
    monkeypatch.setattr(indexing, "embed", lambda *arguments: again.append(arguments) or embed(*arguments))
    build_index(config, workspace, QUIET, RUN)
    assert len(again) == 3 - finished, "finished batches were embedded again"
    assert files(workspace.gallery(RUN)) == undisturbed
    assert not (workspace.gallery(RUN) / ".partial").exists()


def test_gallery_of_another_model_is_refused(opened, workspace):
    with pytest.raises(InputError, match=r"another model.*clinical-symile index"):
        Gallery.open(workspace.gallery(RUN), model="0" * 64)


def test_gallery_of_another_dataset_is_refused(opened, workspace):
    with pytest.raises(InputError, match=r"another dataset.*clinical-symile index"):
        Gallery.open(workspace.gallery(RUN), dataset="0" * 64)


@pytest.mark.parametrize("name", ["embeddings.npy", "mean_embeddings.npy", "manifest.parquet"])
def test_changed_file_is_refused(opened, workspace, name):
    file = workspace.gallery(RUN) / name
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"{name}: was changed"):
        Gallery.open(workspace.gallery(RUN))


def test_run_trained_on_another_dataset_is_refused(config, workspace, write_dataset):
    write_dataset(workspace, seed=1)
    with pytest.raises(InputError, match="trained on another dataset"):
        build_index(config, workspace, QUIET, RUN)


def test_gallery_is_found_by_its_model(opened, config, workspace, write_run):
    digest = model_digest(write_run(workspace, "other", seed=1))
    with pytest.raises(IncompleteStage, match="clinical-symile index"):
        find_gallery(workspace, digest)
    build_index(config, workspace, QUIET, "other")
    assert find_gallery(workspace, digest) == workspace.gallery("other")


def test_retrained_run_needs_a_new_gallery(opened, workspace, write_run):
    """The folder's name is the same, the weights are not."""
    digest = model_digest(write_run(workspace, RUN, seed=2))
    with pytest.raises(IncompleteStage):
        find_gallery(workspace, digest)


def test_splits_without_admissions_are_refused(config, workspace):
    nothing = config.model_copy(update={"index": config.index.model_copy(update={"splits": ()})})
    with pytest.raises(InputError, match=r"index\.splits"):
        build_index(nothing, workspace, QUIET, RUN)


def test_gallery_needs_a_finished_run(config, workspace):
    with pytest.raises(IncompleteStage, match="clinical-symile train"):
        build_index(config, workspace, QUIET, "never")


def test_folder_without_a_model_has_no_digest(tmp_path):
    with pytest.raises(InputError, match="SHA256SUMS"):
        model_digest(tmp_path)


def test_manifest_says_what_it_was_made_from(opened, workspace):
    facts = json.loads((workspace.gallery(RUN) / "manifest.json").read_text())
    assert facts["access"] == opened.access == "synthetic"
    assert facts["loss"] == "symile"
    assert facts["counts"] == {"xrays": 9, "subjects": 5}
