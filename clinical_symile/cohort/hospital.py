"""Which hospital a configuration means: its tables, its roots, and the access class that everything derived inherits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from clinical_symile.cohort.coded_labs import CodedLabs
from clinical_symile.cohort.manifest import load_manifest
from clinical_symile.cohort.meds import find_meds
from clinical_symile.cohort.mimic import find_mimic, load_mimic
from clinical_symile.cohort.omop import find_omop
from clinical_symile.cohort.parquet_cache import ParquetCache
from clinical_symile.cohort.source import Source
from clinical_symile.config import AccessClass, CohortConfig, ExperimentConfig, HospitalConfig
from clinical_symile.errors import ConfigError, IncompleteStage, InputError
from clinical_symile.stage import Workspace, require_complete


@dataclass(frozen=True)
class Hospital:
    """A hospital whose files were found.

    Attributes:
        kind: ``mimic`` or ``manifest``.
        tables: name -> file of each table that will be read.
        cxr_root: folder of the X-rays; None where they do not take part.
        ecg_root: folder of the ECGs; None where they do not take part.
        access: access class.
        truth: of a simulated hospital.
        coded_labs: results by codes (OMOP, MEDS); None where they come from a table of their own.
        convert_units: whether results in other units than MIMIC's are converted.
    """

    kind: str
    tables: dict[str, Path]
    cxr_root: Path | None
    ecg_root: Path | None
    access: AccessClass
    truth: Path | None = None
    coded_labs: CodedLabs | None = None
    convert_units: bool = False

    def load(self, connection: duckdb.DuckDBPyConnection, rules: CohortConfig, cache: ParquetCache) -> Source:
        """Reads the tables into the database; ``cache`` keeps MIMIC's as Parquet."""
        if self.kind == "manifest":
            labs = self.coded_labs or self.tables.get("labs")
            return load_manifest(connection, self.tables["manifest"], labs, rules.require, convert_units=self.convert_units)
        return load_mimic(connection, self.tables, cache, self.cxr_root, self.ecg_root)

    def facts(self, workspace: Path) -> dict[str, Any]:
        """What later stages need to know. Paths in the workspace are relative to it, so that it can be moved."""

        def place(path: Path | None) -> str | None:
            if path is None:
                return None
            return path.relative_to(workspace).as_posix() if path.is_relative_to(workspace) else str(path)

        return {
            "kind": self.kind,
            "cxr_root": place(self.cxr_root),
            "ecg_root": place(self.ecg_root),
            "access": self.access,
            "simulated_truth": place(self.truth),
            **({"convert_units": True} if self.convert_units else {}),
        }


def find_hospital(config: ExperimentConfig, workspace: Workspace) -> Hospital:
    """Finds the files of the hospital that takes part; nothing is read yet.

    Args:
        config: sections ``hospital`` and ``cohort``.
        workspace: its simulated hospital is taken when ``hospital`` names no files.

    Raises:
        IncompleteStage: no hospital is named, and none was simulated.
        ConfigError: the options contradict one another.
        InputError: a folder or table is missing.
    """
    hospital, require = config.hospital, config.cohort.require
    mimic = {"mimic_iv": hospital.mimic_iv, "mimic_cxr": hospital.mimic_cxr, "mimic_ecg": hospital.mimic_ecg}
    own = {name: getattr(hospital, name) for name in ("manifest", "labs", "labs_omop", "labs_meds")}
    own["convert_units"] = hospital.convert_units or None
    foreign = mimic if hospital.kind == "manifest" else own
    contradicting = [name for name, path in foreign.items() if path is not None]
    if contradicting:
        raise ConfigError(
            f"hospital.kind is '{hospital.kind}', so hospital.{contradicting[0]} has no meaning; "
            "give MIMIC's folders (kind: mimic) or a manifest and labs (kind: manifest), not both"
        )
    if hospital.kind == "manifest":
        return _find_manifest(hospital, require)
    if any(mimic.values()):
        return _find_mimic(hospital, require)
    try:
        require_complete(workspace.hospital, "simulate")
    except IncompleteStage as error:
        raise IncompleteStage(
            f"{error}; or name a hospital's own files: --mimic-iv, --mimic-cxr and --mimic-ecg, or --manifest and --labs"
        ) from None
    folder = workspace.hospital.resolve()
    simulated = {name: folder / name.replace("_", "-") for name in mimic}
    access = hospital.access or "synthetic"
    found = _find_mimic(hospital.model_copy(update={**simulated, "access": access}), require)
    return Hospital(found.kind, found.tables, found.cxr_root, found.ecg_root, access, folder / "truth.parquet")


def _find_mimic(hospital: HospitalConfig, require: tuple[str, ...]) -> Hospital:
    if hospital.mimic_iv is None:
        raise ConfigError("--mimic-iv is missing: the admissions and labs are in MIMIC-IV")
    roots = {"cxr": _absolute(hospital.mimic_cxr), "ecg": _absolute(hospital.mimic_ecg)}
    for modality, root in roots.items():
        if modality in require and root is None:
            raise ConfigError(f"--mimic-{modality} is missing: cohort.require asks for each admission's {modality}")
    taking_part = {modality: root if modality in require else None for modality, root in roots.items()}
    cxr_root, ecg_root = taking_part["cxr"], taking_part["ecg"]
    tables = find_mimic(hospital.mimic_iv.expanduser().resolve(), cxr_root, ecg_root, labs="labs" in require)
    return Hospital("mimic", tables, cxr_root, ecg_root, hospital.access or "credentialed")


def _find_manifest(hospital: HospitalConfig, require: tuple[str, ...]) -> Hospital:
    manifest = _absolute(hospital.manifest)
    labs = {name: _absolute(getattr(hospital, name)) for name in ("labs", "labs_omop", "labs_meds")}
    given = {name: place for name, place in labs.items() if place is not None}
    if manifest is None or ("labs" in require and not given):
        raise ConfigError(
            "a hospital of its own needs both files: --manifest admissions.csv --labs labs.csv "
            "(or --labs-omop or --labs-meds instead of --labs)"
        )
    if len(given) > 1:
        raise ConfigError(f"hospital.{' and hospital.'.join(given)}: the labs can come from one source only; leave one of them")
    taking_part = given if "labs" in require else {}
    tables = {"manifest": manifest} | {name: file for name, file in taking_part.items() if name == "labs"}
    for file in tables.values():
        if not file.is_file():
            raise InputError(f"{file}: {'is a folder; a CSV file is needed' if file.is_dir() else 'there is no such file'}")
    coded: CodedLabs | None = None
    for name, find in (("labs_omop", find_omop), ("labs_meds", find_meds)):
        if name in taking_part:
            coded = find(taking_part[name])
            tables |= coded.tables
    return Hospital(
        *("manifest", tables, manifest.parent, manifest.parent, hospital.access or "credentialed"),
        coded_labs=coded,
        convert_units=hospital.convert_units,
    )


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser().resolve()
