"""The laboratory encoding as a scikit-learn transformer, for pipelines that are built from those."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from clinical_symile.modalities.labs import LabStatistics, encode


class LabPercentileEncoder(TransformerMixin, BaseEstimator):
    """Raw laboratory values (NaN = not measured) to percentiles and indicators.

    Unlike ``QuantileTransformer`` it is the right-continuous ECDF, also where values tie, and unlike ``SimpleImputer`` it
    imputes the mean *percentile*.

    Example:
        >>> LabPercentileEncoder().fit_transform([[1.0], [3.0], [float("nan")]])
        array([[0.5 , 1.  ],
               [1.  , 1.  ],
               [0.75, 0.  ]], dtype=float32)
    """

    def fit(self, X: ArrayLike, y: object = None) -> LabPercentileEncoder:  # noqa: N803 (scikit-learn's name)
        """Learns ``statistics_`` from training rows.

        Args:
            X: (n, k) raw values, NaN where not measured. The column names of a data frame become item ids.
            y: ignored.
        """
        matrix = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        self.statistics_ = LabStatistics.fit(matrix, self._columns())
        return self

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:  # noqa: N803
        """(n, k) raw values to (n, 2 k): the percentiles, then the indicators of what was measured."""
        check_is_fitted(self)
        matrix = validate_data(self, X, reset=False, dtype=np.float64, ensure_all_finite="allow-nan")
        return encode(*self.statistics_.transform(matrix))

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> NDArray[np.object_]:
        """``<item>_percentile`` for each column, then ``<item>_observed``."""
        check_is_fitted(self)
        names = list(input_features) if input_features is not None else self._columns()
        return np.array([f"{name}_{part}" for part in ("percentile", "observed") for name in names], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []  # always float32
        return tags

    def _columns(self) -> list[str]:
        named = getattr(self, "feature_names_in_", None)
        return [str(name) for name in named] if named is not None else [f"x{k}" for k in range(self.n_features_in_)]
