"""MLflow: runs, registry, served model, comparison. The only room with MLflow, which is imported when it is first needed."""

from clinical_symile.tracking.comparison import Comparison, Interval, MetricRow, compare
from clinical_symile.tracking.mlflow_tracker import MlflowTracker
from clinical_symile.tracking.registry import register
from clinical_symile.tracking.store import open_store, tracking_uri
from clinical_symile.tracking.studies import record_study
from clinical_symile.tracking.versions import (
    ModelVersion,
    champion_model_dir,
    document,
    find_champion,
    find_version,
    list_versions,
    model_dir,
    promote,
    read_report,
)

__all__ = [
    "Comparison",
    "Interval",
    "MetricRow",
    "MlflowTracker",
    "ModelVersion",
    "champion_model_dir",
    "compare",
    "document",
    "find_champion",
    "find_version",
    "list_versions",
    "model_dir",
    "open_store",
    "promote",
    "read_report",
    "record_study",
    "register",
    "tracking_uri",
]
