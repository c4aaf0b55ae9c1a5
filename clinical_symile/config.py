"""The configuration of an experiment: pydantic models, YAML in, digest out.

A configuration is plain data: no expressions, no code. ``load_config`` merges the defaults below, a YAML file and
``a.b=c`` overrides, in that order, and refuses keys that it does not know.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clinical_symile.errors import ConfigError
from clinical_symile.types import MODALITIES, Modality, Split

AccessClass = Literal["synthetic", "open", "credentialed"]

Momentum = Annotated[float, Field(ge=0, lt=1)]

PatientAttribute = Literal["gender", "age_band", "race", "cxr_view", "n_labs"]
"""What splits can be made alike in; ``cohort/strata.py`` says how each is read."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""What may name a run or a model: it becomes the name of a folder."""


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, and values do not change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True)


SectionT = TypeVar("SectionT", bound=Section)


class SimulationConfig(Section):
    """A simulated hospital (see ``clinical_symile/simulation/law.py`` for the generative model)."""

    admissions: int = Field(600, ge=20, le=90_000, description="admissions that have all three modalities")
    synergy: float = Field(0.5, ge=0, le=1, description="share of the ties that only the triple shows")
    seed: int = Field(0, ge=0)
    dicom: bool = Field(False, description="also write each X-ray as DICOM")
    quirks: bool = Field(False, description="add the traps of real data")


class HospitalConfig(Section):
    """Where the raw files are. Without paths, the workspace's simulated hospital is used."""

    kind: Literal["mimic", "manifest"] = "mimic"
    mimic_iv: Path | None = Field(None, description="folder with patients, admissions, labevents (or its parent of hosp/)")
    mimic_cxr: Path | None = None
    mimic_ecg: Path | None = None
    manifest: Path | None = Field(None, description="kind=manifest: CSV with one row per admission")
    labs: Path | None = Field(None, description="kind=manifest: long CSV of laboratory results")
    labs_omop: Path | None = Field(
        None, description="kind=manifest, instead of labs: OMOP's measurement table, concept beside it"
    )
    labs_meds: Path | None = Field(None, description="kind=manifest, instead of labs: folder of a MEDS data set")
    convert_units: bool = Field(False, description="kind=manifest: convert labs.csv to MIMIC's units (OMOP and MEDS always are)")
    access: AccessClass | None = Field(
        None, description="class that everything derived inherits; default: synthetic for a simulated hospital, else credentialed"
    )


class StrictRules(Section):
    """What ``rules: strict`` asks for beyond the paper's rules; each can be switched off."""

    cxr_during_stay: bool = Field(True, description="X-rays after discharge or death do not count")
    one_admission_per_study: bool = Field(True, description="an ECG or an X-ray study serves one admission only")
    plausible_labs: bool = Field(True, description="values beyond physiological limits (lab_limits.csv) do not count")
    expected_lab_units: bool = Field(True, description="values in another unit than the item's do not count")
    no_flat_ecg_leads: bool = Field(True, description="ECGs with a flat lead do not count")


class CohortConfig(Section):
    """The admissions that take part, their splits and candidate sets."""

    rules: Literal["symile-mimic", "strict"] = "symile-mimic"
    strict: StrictRules | None = Field(None, description="rules=strict only: its switches")
    lab_window_hours: float = Field(24, gt=0, description="labs: |charttime - admittime| at most this")
    ecg_window_hours: float = Field(24, gt=0, description="ECG: |ecg_time - admittime| at most this")
    cxr_after_hours: float = Field(24, ge=0, description="CXR: strictly later than this after admission")
    cxr_until_hours: float = Field(72, gt=0, description="CXR: at most this after admission")
    require: tuple[Modality, ...] = Field(MODALITIES, description="modalities an admission must have")
    val_fraction: float = Field(0.15, gt=0, lt=1)
    test_fraction: float = Field(0.25, gt=0, lt=1)
    val_size: int | None = Field(None, ge=1, description="admissions in val, exactly; replaces val_fraction")
    test_size: int | None = Field(None, ge=1, description="admissions in test, exactly; replaces test_fraction")
    train_size: int | None = Field(None, ge=1, description="admissions in train, exactly; those beyond it leave the cohort")
    stratify_by: tuple[PatientAttribute, ...] = Field(
        (), description="splits alike in these, taken from a patient's first admission"
    )
    splits_from: Path | None = Field(None, description="folder with train, val and test files, such as the release's")
    candidates: int = Field(10, ge=2, description="size of each candidate set, the positive included")
    seed: int = Field(0, ge=0)

    @property
    def switches(self) -> StrictRules:
        """The strict rules that apply: all off under the paper's rules."""
        return self.strict or StrictRules.model_validate(dict.fromkeys(StrictRules.model_fields, False))

    @model_validator(mode="before")
    @classmethod
    def _strict(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        rules, strict = data.get("rules", cls.model_fields["rules"].default), data.get("strict")
        if rules == "strict":
            return {**data, "strict": {} if strict is None else strict}
        if strict is not None:
            raise ValueError(
                f"the switches of cohort.strict mean nothing under rules = {rules}; set cohort.rules=strict (--rules strict)"
            )
        return data

    @model_validator(mode="after")
    def _windows_and_fractions(self) -> CohortConfig:
        if self.cxr_until_hours <= self.cxr_after_hours:
            raise ValueError("cxr_until_hours must be larger than cxr_after_hours")
        val_fraction = self.val_fraction if self.val_size is None else 0
        test_fraction = self.test_fraction if self.test_size is None else 0
        if val_fraction + test_fraction >= 1:
            raise ValueError("val_fraction + test_fraction must be below 1, otherwise nothing is left to train on")
        return self

    @model_validator(mode="after")
    def _splitting(self) -> CohortConfig:
        if len(set(self.stratify_by)) < len(self.stratify_by):
            raise ValueError("stratify_by names an attribute twice")
        for attribute, modality in (("cxr_view", "cxr"), ("n_labs", "labs")):
            if attribute in self.stratify_by and modality not in self.require:
                raise ValueError(f"stratify_by = {attribute} needs {modality} in cohort.require")
        deciding = [name for name in ("val_size", "test_size", "train_size", "stratify_by") if getattr(self, name)]
        if self.splits_from is not None and deciding:
            raise ValueError(
                f"splits_from decides all splits, so {' and '.join(deciding)} can decide nothing; leave one of them out"
            )
        return self


class PrepareConfig(Section):
    """Raw files to arrays."""

    max_reject_share: float = Field(0.05, ge=0, le=1, description="fail when a larger share of the admissions is rejected")
    allow_burned_in: bool = Field(False, description="accept DICOM files that say BurnedInAnnotation=YES")


class ModelConfig(Section):
    """Encoders and heads. The defaults are the released checkpoint's architecture."""

    cxr_encoder: Literal["resnet50", "small"] = "resnet50"
    ecg_encoder: Literal["resnet18", "small"] = "resnet18"
    labs_hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field((256, 1024), description="hidden widths of the laboratory MLP")
    embed_dim: int = Field(8192, ge=2)
    logit_scale_init: float = Field(-7.0, description="log of the initial scale")


class AugmentConfig(Section):
    """Random changes of the training inputs, for data sets too small to do without them. Off by default, as in the paper."""

    lab_dropout: float = Field(0, ge=0, lt=1, description="chance that a measured test is taken as not measured")
    ecg_roll: bool = Field(False, description="begin each record at a random sample; its start follows its end")
    ecg_noise: float = Field(0, ge=0, description="standard deviation of white noise, on the ECG's scale of -1 to 1")
    cxr_shift: int = Field(0, ge=0, lt=160, description="largest shift in pixels, each way; edges are repeated")
    cxr_exposure: float = Field(0, ge=0, description="standard deviation of contrast (a factor) and brightness")


class TrainConfig(Section):
    """Optimisation. The defaults are the released checkpoint's; see pipelines/configs for presets."""

    loss: Literal["symile", "clip"] = "symile"
    run: str | None = Field(None, pattern=NAME, description="folder name under runs/; default: the loss")
    negative_sampling: Literal["n", "n_squared"] = "n_squared"
    epochs: int = Field(80, ge=1)
    batch_size: int = Field(280, ge=2)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.5, ge=0)
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    schedule: Literal["constant", "cosine"] = Field("constant", description="of the learning rate; cosine has a 5 % warm-up")
    augment: AugmentConfig = AugmentConfig()
    freeze_logit_scale: bool = False
    max_logit_scale: float | None = Field(None, description="log-scale clamp after each step; none in the paper")
    select_by: Literal["loss", "accuracy_10way"] = Field("loss", description="validation metric that picks the epoch kept")
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = Field(1, ge=1)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: int = Field(0, ge=0)

    @property
    def run_name(self) -> str:
        """The folder name of this run under ``runs/``."""
        return self.run or self.loss


class EvaluateConfig(Section):
    """Metrics, intervals and baselines."""

    split: Literal["val", "test"] = "test"
    bootstrap: int = Field(2000, ge=100, description="patient-clustered resamples")
    confidence: float = Field(0.95, gt=0.5, lt=1)
    recall_at: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5, 10)
    batch_size: int = Field(128, ge=1)
    seed: int = Field(0, ge=0)


class IndexConfig(Section):
    """Which X-rays the gallery holds."""

    splits: tuple[Split, ...] = ("val", "test")
    batch_size: int = Field(128, ge=1)


class RegistryConfig(Section):
    """The name under which versions are registered."""

    name: str = Field("symile-mimic", pattern=NAME)
    tracking_uri: str | None = Field(None, description="default: sqlite in the workspace")


class ReviewConfig(Section):
    """The dashboard. Loopback only."""

    port: int = Field(8501, ge=1024, le=65535)


class PipelineConfig(Section):
    """What ``run`` and ``demo`` do beyond one stage at a time."""

    losses: tuple[Literal["symile", "clip"], ...] = Field(
        ("symile", "clip"), min_length=1, description="one model is trained for each"
    )
    register_better: bool = Field(True, description="register the model that validation prefers; the gate must let it pass")


class ExperimentConfig(Section):
    """Everything an experiment depends on."""

    simulation: SimulationConfig = SimulationConfig()
    hospital: HospitalConfig = HospitalConfig()
    cohort: CohortConfig = CohortConfig()
    prepare: PrepareConfig = PrepareConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    index: IndexConfig = IndexConfig()
    registry: RegistryConfig = RegistryConfig()
    review: ReviewConfig = ReviewConfig()
    pipeline: PipelineConfig = PipelineConfig()


def load_config(file: Path | None = None, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Defaults, then a YAML file, then ``section.key=value`` overrides.

    Args:
        file: YAML file with any subset of the sections.
        overrides: strings such as ``"train.lr=5e-4"``; the value is read as YAML.

    Raises:
        ConfigError: the file is not there, is no YAML mapping, or a key or value is not allowed. The message names it.
    """
    return load_section(ExperimentConfig, file, overrides, example="train.lr=5e-4")


def load_section(model: type[SectionT], file: Path | None, overrides: Sequence[str], *, example: str) -> SectionT:
    """Any model of configuration: defaults, then a YAML file, then overrides; as ``load_config``.

    Args:
        model: the model.
        file: YAML file with any subset of its keys.
        overrides: strings such as ``example``; keys of sections within sections are joined by dots.
        example: for the message about an override that is not written like one.

    Raises:
        ConfigError: as ``load_config``.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        tree = _read_yaml(file, model, example)
    for override in overrides:
        _apply_override(tree, override, example)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        overridden = [override.partition("=")[0].strip() for override in overrides]
        raise ConfigError(_explain(error, model, file, overridden)) from None


def config_digest(section: BaseModel | Mapping[str, Any]) -> str:
    """SHA-256 of a configuration in canonical JSON, first 16 hex digits."""
    data = section.model_dump(mode="json") if isinstance(section, BaseModel) else dict(section)
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _read_yaml(file: Path, model: type[BaseModel], example: str) -> dict[str, Any]:
    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as a configuration file ({error})") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        wanted = f"sections such as '{example.partition('.')[0]}:'" if "." in example else "keys and values"
        raise ConfigError(f"{file}: must hold {wanted}, but holds a {type(loaded).__name__}")
    sections = {key for key, field in model.model_fields.items() if isinstance(field.default, Section)}
    loaded = {
        key: {} if value is None and key in sections else value for key, value in loaded.items()
    }  # all may be commented out
    # Relative paths in a file are relative to that file, so that a configuration can be moved with its data.
    hospital = loaded.get("hospital")
    if isinstance(hospital, dict):
        for key in ("mimic_iv", "mimic_cxr", "mimic_ecg", "manifest", "labs", "labs_omop", "labs_meds"):
            if isinstance(hospital.get(key), str):
                hospital[key] = str((file.parent / os.path.expanduser(hospital[key])).resolve())
    cohort = loaded.get("cohort")
    if isinstance(cohort, dict) and isinstance(cohort.get("splits_from"), str):
        cohort["splits_from"] = str((file.parent / os.path.expanduser(cohort["splits_from"])).resolve())
    return loaded


def _apply_override(tree: dict[str, Any], override: str, example: str) -> None:
    path, separator, raw = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys) or ("." in example and len(keys) < 2):
        form = "section.key=value" if "." in example else "key=value"
        raise ConfigError(f"--set {override!r}: write it as {form}, for example {example}")
    node = tree
    for key in keys[:-1]:
        child = node.setdefault(key, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {key!r} is not a section")
        node = child
    try:
        node[keys[-1]] = yaml.safe_load(raw)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML; quote it") from None


def _explain(error: ValidationError, model: type[BaseModel], file: Path | None, overridden: Sequence[str]) -> str:
    """Turns pydantic's report into one line per mistake, with a suggestion for a misspelt key.

    The file is blamed only for what no option gave.
    """
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        given = any(f"{key}.".startswith(f"{where}.") or f"{where}.".startswith(f"{key}.") for key in overridden)
        origin = f"{file}: " if file and not given else ""
        if item["type"] == "extra_forbidden":
            known = _known_keys(model, tuple(str(part) for part in item["loc"][:-1]))
            close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
            lines.append(f"{origin}unknown key {where!r}; {hint}")
        else:
            lines.append(f"{origin}{where or 'configuration'} = {item['input']!r}: {item['msg']}")
    return "\n".join(lines)


def _known_keys(model: type[BaseModel], path: tuple[str, ...]) -> list[str]:
    for part in path:
        if part not in model.model_fields:  # an entry of a list or a mapping
            return []
        annotation = model.model_fields[part].annotation
        sections = [
            kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)
        ]
        if not sections:
            return []
        model = sections[0]
    return sorted(model.model_fields)
