"""Runs an experiment: its cells on all cores, resumable; results, summary and figure in one folder; a run in MLflow."""

from __future__ import annotations

import importlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ConfigDict, Field

from clinical_symile.config import Section
from clinical_symile.errors import ClinicalSymileError, ConfigError
from clinical_symile.execution import map_items
from clinical_symile.experiments.intervals import HALF_WIDTH
from clinical_symile.stage import RunOptions, Stage, Workspace, atomic_path, digest_json, track, write_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

EXPERIMENTS = {"xor": "XorConfig", "xnor": "XnorConfig", "digits": "DigitsConfig"}
"""Module of this room -> its configuration."""

Cell = Mapping[str, Any]
_FIGURE_STYLE = {"svg.hashsalt": "clinical-symile", "svg.fonttype": "path", "font.size": 9}


class ExperimentConfig(Section):
    """What every experiment has."""

    model_config = ConfigDict(allow_inf_nan=False)

    seed: int = Field(0, ge=0, le=2**31, description="all randomness derives from it")

    def variant(self) -> str:
        """What distinguishes a kind of this experiment from others in the name of its folder; empty for the usual one."""
        return ""


class Experiment(Protocol):
    """What a module of this room provides."""

    def cells(self, config: Any) -> list[dict[str, Any]]:
        """Independent pieces of work, as JSON."""

    def run_cell(self, config: Any, cell: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of ``results.csv``; equal for equal arguments."""

    def summarise(self, results: pd.DataFrame, config: Any) -> dict[str, float]:
        """The figures that are printed, and recorded in MLflow; half-widths of intervals end in ``_half_width``."""

    def draw(self, results: pd.DataFrame, config: Any) -> Figure:
        """The figure."""


def find_experiment(name: str) -> tuple[Experiment, type[ExperimentConfig]]:
    """The module of an experiment and its configuration."""
    module: Any = importlib.import_module(f"clinical_symile.experiments.{name}")
    return module, getattr(module, EXPERIMENTS[name])


@dataclass(frozen=True)
class Outcome:
    """What a finished experiment found.

    Attributes:
        title: its name with the variant.
        folder: where ``results.csv``, ``summary.json`` and ``figure.svg`` are.
        summary: name -> figure.
    """

    title: str
    folder: Path
    summary: dict[str, float]

    def describe(self) -> str:
        """The figures, each with its interval where there is one."""
        lines = [self.title]
        for key, value in self.summary.items():
            half = self.summary.get(f"{key}{HALF_WIDTH}")
            if not key.endswith(HALF_WIDTH):
                lines.append(f"  {key:<40} {value:.4f}" + (f"  ± {half:.4f}" if half is not None else ""))
        return "\n".join([*lines, f"results: {self.folder}"])


def run_experiment(name: str, config: ExperimentConfig, workspace: Workspace, options: RunOptions) -> Outcome | None:
    """Runs what is not done yet and writes ``<workspace>/experiments/<name>/``.

    Args:
        name: a key of ``EXPERIMENTS``.
        config: of that experiment.
        workspace: where to write.
        options: how to run; the number of jobs changes no result.

    Returns:
        What was found; ``None`` for a dry run.

    Raises:
        ConfigError: the configuration names something twice.
        ClinicalSymileError: a worker died, or the tracking store cannot be used; what is finished is kept.
    """
    experiment, _ = find_experiment(name)
    title = f"{name}_{config.variant()}" if config.variant() else name
    stage = Stage(f"experiment {name}", workspace.root / "experiments" / title, inputs={}, config=config, options=options)
    cells = experiment.cells(config)
    twice = [cell for number, cell in enumerate(cells) if cell in cells[:number]]
    if twice:  # it would count as two repeats
        raise ConfigError(f"experiment {name}: {_text(twice[0])} would be run twice; name each loss and each value once")
    if options.dry_run:
        done = len(_finished(stage.output, stage.key))
        stage.announce({"cells": f"{len(cells)}, of which {done} are done", "processes": options.jobs})
        return None
    if not stage.should_skip():
        with stage.writing() as run:
            rows = _run_cells(name, config, cells, stage, options)
            run.counts["cells"], run.counts["rows"] = len(cells), len(rows)
            summary = _write_results(experiment, config, rows, stage.output)
            run.facts["mlflow_run"] = _record(workspace, title, stage.key, config, summary, stage.output)
    return Outcome(title, stage.output, _summary(experiment, config, read_results(stage.output)))


def read_results(folder: Path) -> pd.DataFrame:
    """``results.csv`` of a finished experiment."""
    import pandas as pd

    return pd.read_csv(folder / "results.csv")


def _run_cells(
    name: str, config: ExperimentConfig, cells: Sequence[Cell], stage: Stage, options: RunOptions
) -> list[dict[str, Any]]:
    """The rows of all cells in their order; a cell's are on disk as soon as it and those before it are done."""
    finished = _finished(stage.output, stage.key)
    pending = [cell for cell in cells if digest_json(cell) not in finished]
    work = partial(_run_cell, name, config.model_dump_json())
    results = map_items(work, pending, jobs=options.jobs, preload=[f"clinical_symile.experiments.{name}"])
    records = _records(stage.output)
    records.parent.mkdir(exist_ok=True)
    with records.open("a", encoding="utf-8") as handle:
        for cell, rows in zip(pending, track(results, len(pending), f"experiment {name}", options), strict=True):
            # The leading line break ends a line that a kill cut short.
            handle.write("\n" + json.dumps({"key": stage.key, "cell": digest_json(cell), "rows": rows}) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
            finished[digest_json(cell)] = rows
    return [row for cell in cells for row in finished[digest_json(cell)]]


def _run_cell(name: str, config: str, cell: Cell) -> list[dict[str, Any]]:
    """One cell, on one thread, so that results depend neither on the number of processes nor on that of cores."""
    import torch

    experiment, model = find_experiment(name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return experiment.run_cell(model.model_validate_json(config), dict(cell))
    except ValueError as error:
        raise ClinicalSymileError(f"experiment {name}, {_text(cell)}: {error}") from None
    finally:
        torch.set_num_threads(threads)


def _records(folder: Path) -> Path:
    return folder / ".partial" / "cells.jsonl"


def _finished(folder: Path, key: str) -> dict[str, list[dict[str, Any]]]:
    """The rows of cells that an interrupted run of the same work has finished."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in _read_records(_records(folder)):
        if record.get("key") == key:
            found[record["cell"]] = record["rows"]
    return found


def _read_records(file: Path) -> Iterator[dict[str, Any]]:
    """Every whole line."""
    if not file.is_file():
        return
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # cut short by a kill, or empty
        if isinstance(record, dict):
            yield record


def _write_results(
    experiment: Experiment, config: ExperimentConfig, rows: list[dict[str, Any]], folder: Path
) -> dict[str, float]:
    """Writes table, summary and figure; returns the summary."""
    import matplotlib as mpl
    import pandas as pd

    with atomic_path(folder / "results.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    # From the file, so that a figure drawn again later is the same.
    frame = read_results(folder)
    summary = _summary(experiment, config, frame)
    write_json(folder / "summary.json", summary)
    with mpl.rc_context(_FIGURE_STYLE), atomic_path(folder / "figure.svg") as temporary:
        experiment.draw(frame, config).savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
    return summary


def _summary(experiment: Experiment, config: ExperimentConfig, results: pd.DataFrame) -> dict[str, float]:
    """The figures that are numbers: a group without rows has none."""
    return {key: float(value) for key, value in experiment.summarise(results, config).items() if math.isfinite(value)}


def _record(
    workspace: Workspace, title: str, key: str, config: ExperimentConfig, summary: Mapping[str, float], folder: Path
) -> str:
    from clinical_symile.tracking import record_study

    files = [folder / name for name in ("results.csv", "summary.json", "figure.svg")]
    return record_study(workspace, title, key, config.model_dump(mode="json"), summary, files)


def _text(cell: Cell) -> str:
    return ", ".join(f"{key} {value}" for key, value in cell.items())
