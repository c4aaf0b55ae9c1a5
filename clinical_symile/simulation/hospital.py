"""The stage ``simulate``: writes a simulated hospital in MIMIC's own layout, with the truth beside it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow.parquet as pq

from clinical_symile.config import ExperimentConfig
from clinical_symile.execution import map_items
from clinical_symile.simulation import files, tables
from clinical_symile.simulation.ceilings import oracle_accuracy, uniform_pairwise_accuracy
from clinical_symile.simulation.labevents import d_labitems_table, labevents_table
from clinical_symile.simulation.law import CHANNELS, informations, joint
from clinical_symile.simulation.oracle import LAW, TRUTH
from clinical_symile.simulation.patients import INCOMPLETE_SHARE, build_plan
from clinical_symile.simulation.plan import CxrImage, EcgStudy, Plan
from clinical_symile.simulation.quirks import add_quirks
from clinical_symile.simulation.studies import image_size, write_ecg, write_image
from clinical_symile.stage import RunOptions, Stage, Workspace, track, write_json, write_text

GENERATOR_VERSION: Final = "2"
"""Part of the stage's key: raise it when the same seed gives other bytes."""

MIMIC_IV: Final = "mimic-iv"
MIMIC_CXR: Final = "mimic-cxr"
MIMIC_ECG: Final = "mimic-ecg"
_CHUNK: Final = 8
_BYTES_PER_ADMISSION: Final = 280_000
_SECONDS_PER_ADMISSION: Final = 0.08

README: Final = f"""{files.SIMULATED}

Everything in this folder was drawn by a computer: patients, dates, laboratory values, ECGs, chest X-rays. Any likeness to
a person is chance. The files have the layout of MIMIC-IV 2.2 (mimic-iv/hosp), MIMIC-CXR-JPG 2.0.0 (mimic-cxr) and
MIMIC-IV-ECG 1.0 (mimic-ecg), so that what runs here runs there. They hold no data of MIMIC.

truth.parquet  what the ECG, the labs and the chest X-ray of each admission show (not for training)
law.json       the law that tied them, and the best accuracy that anyone can reach
quirks.json    only with --quirks: traps that were set on purpose, and what should become of each

The names of the signs are clinical so that they can be recognised. The ties between them are invented.
"""


class Chunk(NamedTuple):
    """Studies that one worker writes."""

    output: Path
    seed: int
    dicom: bool
    ecgs: tuple[EcgStudy, ...]
    images: tuple[CxrImage, ...]


def simulate(config: ExperimentConfig, workspace: Workspace, options: RunOptions) -> dict[str, Any]:
    """Writes ``workspace.hospital``; the same configuration gives the same bytes, whatever ``options.jobs`` is.

    Args:
        config: its ``simulation`` section decides everything.
        workspace: where to write.
        options: how to run.

    Returns:
        The stage's manifest; empty after a dry run.
    """
    simulation = config.simulation
    stage = Stage("simulate", workspace.hospital, inputs={"generator": GENERATOR_VERSION}, config=simulation, options=options)
    if options.dry_run:
        admissions = simulation.admissions
        stage.announce(
            {
                "complete admissions": admissions,
                "incomplete admissions": round(INCOMPLETE_SHARE * admissions),
                "size": f"about {admissions * _BYTES_PER_ADMISSION * (2.5 if simulation.dicom else 1) / 1e6:.0f} MB",
                "time": f"about {admissions * _SECONDS_PER_ADMISSION / max(options.jobs, 1) / 60:.1f} minutes",
            }
        )
        return {}
    if stage.should_skip():
        return stage.manifest()
    with stage.writing() as run:
        plan = build_plan(simulation)
        if simulation.quirks:
            plan = add_quirks(plan)
        chunks = list(_chunks(plan, run.output, simulation.dicom))
        (run.output / ".partial").mkdir(exist_ok=True)
        total = sum(len(chunk.ecgs) + len(chunk.images) for chunk in chunks)
        for _ in track(_written(chunks, options.jobs), total, "simulate studies", options):
            pass
        _write_tables(plan, run.output)
        _write_truth(plan, run.output)
        run.counts = _counts(plan)
        run.facts = {"facts": {"access": "synthetic", "synergy": plan.synergy, "seed": plan.seed}}
    return stage.manifest()


def _chunks(plan: Plan, output: Path, dicom: bool) -> Iterator[Chunk]:
    for first in range(0, len(plan.admissions), _CHUNK):
        admissions = plan.admissions[first : first + _CHUNK]
        # A quirk lets two admissions share an ECG; as neighbours in the plan they may fall into two chunks.
        ecgs = tuple({study.study_id: study for admission in admissions for study in admission.ecgs}.values())
        images = tuple(image for admission in admissions for image in admission.images)
        yield Chunk(output, plan.seed, dicom, ecgs, images)


def _written(chunks: list[Chunk], jobs: int) -> Iterator[int]:
    """Yields once for every study, after it was written."""
    for count in map_items(_write_chunk, chunks, jobs=jobs, preload=[__name__]):
        yield from range(count)


def _write_chunk(chunk: Chunk) -> int:
    scratch = chunk.output / ".partial"
    for study in chunk.ecgs:
        write_ecg(study, chunk.output / MIMIC_ECG, chunk.seed, scratch)
    for image in chunk.images:
        write_image(image, chunk.output / MIMIC_CXR, chunk.seed, chunk.dicom, scratch)
    return len(chunk.ecgs) + len(chunk.images)


def _write_tables(plan: Plan, output: Path) -> None:
    sizes = {i.dicom_id: image_size(i, plan.seed) for a in plan.admissions for i in a.images}
    hosp = f"{MIMIC_IV}/hosp"
    contents = {
        f"{hosp}/patients.csv.gz": tables.patients_table(plan),
        f"{hosp}/admissions.csv.gz": tables.admissions_table(plan),
        f"{hosp}/labevents.csv.gz": labevents_table(plan),
        f"{hosp}/d_labitems.csv.gz": d_labitems_table(),
        f"{MIMIC_CXR}/mimic-cxr-2.0.0-metadata.csv.gz": tables.metadata_table(plan, sizes),
        f"{MIMIC_CXR}/mimic-cxr-2.0.0-chexpert.csv.gz": tables.chexpert_table(plan),
        f"{MIMIC_ECG}/record_list.csv": tables.record_list(plan),
    }
    for name, table in contents.items():
        text = files.csv_text(table)
        files.write_bytes(output / name, files.gzipped(text) if name.endswith(".gz") else text, output / ".partial")


def _write_truth(plan: Plan, output: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(tables.truth_table(plan), buffer)
    files.write_bytes(output / TRUTH, buffer.getvalue(), output / ".partial")
    write_json(
        output / LAW,
        {
            "synergy": plan.synergy,
            "seed": plan.seed,
            "channels": [channel.name for channel in CHANNELS],
            "signs": {channel.name: {"ecg": channel.ecg, "labs": channel.labs, "cxr": channel.cxr} for channel in CHANNELS},
            "joint_e_l_x": joint(plan.synergy).tolist(),
            "informations_nats_per_channel": informations(plan.synergy)._asdict(),
            "accuracy_10way": {
                "oracle": oracle_accuracy(plan.synergy),
                "uniform_pairwise": uniform_pairwise_accuracy(plan.synergy),
                "chance": 0.1,
            },
        },
    )
    if plan.quirks:
        write_json(output / "quirks.json", list(plan.quirks))
    write_text(output / "README.txt", README)


def _counts(plan: Plan) -> dict[str, int | float]:
    return {
        "patients": len({admission.patient.subject_id for admission in plan.admissions}),
        "admissions": len(plan.admissions),
        "complete_admissions": sum(admission.kind == "complete" for admission in plan.admissions),
        "ecgs": sum(len(admission.ecgs) for admission in plan.admissions),
        "cxr_images": sum(len(admission.images) for admission in plan.admissions),
        "blood_draws": sum(len(admission.draws) for admission in plan.admissions),
        "quirks": len(plan.quirks),
    }
