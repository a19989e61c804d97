"""Otsu's threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def otsu_threshold(values: npt.NDArray[Any], bins: int) -> float:
    """Return the threshold of maximum variance between the values below and above it.

    Parameters
    ----------
    values : ndarray
        At least one.
    bins : int
        Number of bins of the histogram, of equal width; the threshold is the edge of a bin.

    Returns
    -------
    float
        The maximum if all values are equal.

    References
    ----------
    Otsu N, IEEE Trans Syst Man Cybern 1979;9:62.
    """
    highest = float(values.max())
    if values.min() == highest:
        return highest
    counts, edges = np.histogram(values, bins)
    centers = 0.5 * (edges[1:] + edges[:-1])
    below = np.cumsum(counts)[:-1].astype(np.float64)  # positive, as the first bin is not empty
    above = counts.sum() - below
    sums = np.cumsum(counts * centers)
    means = sums[:-1] / below, (sums[-1] - sums[:-1]) / above
    between = below * above * (means[0] - means[1]) ** 2
    return float(edges[1 + int(between.argmax())])
