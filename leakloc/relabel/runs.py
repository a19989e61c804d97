"""Run lengths of a mask, the form of painted and erased fluid in ``corrections.json``.

Run lengths, separated by spaces, are numbers of consecutive voxels that are alternately not
selected and selected. Voxels are in the order ``i``, ``k``, ``j`` (``j`` varies fastest).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def run_lengths(mask: npt.NDArray[np.bool_]) -> str:
    """Return the run lengths of a mask ``[k, j, i]``; an empty text without selected voxels.

    Examples
    --------
    >>> mask = np.zeros((2, 3, 1), bool)
    >>> mask[0, 2, 0] = mask[1, 0, 0] = True
    >>> run_lengths(mask)
    '2 2'
    """
    line = mask.transpose(2, 0, 1).ravel()
    edges = np.flatnonzero(np.diff(line, prepend=False, append=False))
    return " ".join(map(str, np.diff(edges, prepend=0)))


def mask_of(runs: str, shape_kji: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Return the mask ``[k, j, i]`` of run lengths, which must not exceed the grid.

    Examples
    --------
    >>> np.argwhere(mask_of("2 2", (2, 3, 1))).tolist()
    [[0, 2, 0], [1, 0, 0]]
    """
    k, j, i = shape_kji
    lengths = np.array(runs.split(), np.int64)
    line = np.zeros(i * k * j, bool)
    for start, stop in np.cumsum(lengths)[: len(lengths) // 2 * 2].reshape(-1, 2):
        line[start:stop] = True
    return np.ascontiguousarray(line.reshape(i, k, j).transpose(1, 2, 0))
