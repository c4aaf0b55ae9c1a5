"""How well a model retrieves: ranks, metrics, patient-clustered intervals, paired differences, and the report about them."""

from clinical_symile.evaluation.bootstrap import PatientBootstrap, percentile_interval
from clinical_symile.evaluation.comparison import Comparison, compare
from clinical_symile.evaluation.evaluating import evaluate
from clinical_symile.evaluation.metrics import chance_values, higher_is_better, metric_columns, metric_label
from clinical_symile.evaluation.ranks import Ranks, rank_positives
from clinical_symile.evaluation.ranks_table import RANKS, RunRanks, read_ranks
from clinical_symile.evaluation.report import HTML, verdict
from clinical_symile.evaluation.schema import REPORT, Estimate, Report, read_report
from clinical_symile.evaluation.task import RetrievalTask
from clinical_symile.evaluation.truth import Oracle, find_oracle

__all__ = [
    "HTML",
    "RANKS",
    "REPORT",
    "Comparison",
    "Estimate",
    "Oracle",
    "PatientBootstrap",
    "Ranks",
    "Report",
    "RetrievalTask",
    "RunRanks",
    "chance_values",
    "compare",
    "evaluate",
    "find_oracle",
    "higher_is_better",
    "metric_columns",
    "metric_label",
    "percentile_interval",
    "rank_positives",
    "read_ranks",
    "read_report",
    "verdict",
]
