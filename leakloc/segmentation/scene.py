"""The region around the canal in which fluid outside the dura is searched for.

The dura network estimates the fraction of epidural fluid in canal coordinates, 2 mm apart along
the canal: it distinguishes fluid from other tissue, but blurs the border of the fluid. The signal
has the resolution of the image, but does not distinguish fluid in the sac from fluid outside it.
`refine_fraction` combines both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.canal_coordinates import CanalCoordinates
from leakloc.core.volume import FloatArray, Volume
from leakloc.segmentation.dura import RADIUS_RANGE_MM, Dura

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float32]

HALF: Final = 0.5
"""Fluid fraction at which a voxel belongs to a component rather than to its rim."""

MIN_NETWORK_FRACTION: Final = 0.15
"""Network fraction below which a voxel is not refined; at 0.25, thin layers lose one percent of
their Dice coefficient (36 studies of development patients)."""

MIN_REFERENCE: Final = 0.3
"""Minimum signal, relative to CSF, to which the signal of a component is normalized."""

VOXEL_WEIGHTS: Final = (-4.48, 0.97, 9.57, 5.47)
"""Weights of the evidence of `voxel_candidates`, fitted by ``pipelines/fit_collections.py``."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A region around the canal with the data used to classify collections.

    Parameters
    ----------
    network : Volume
        Fraction of CSF-like fluid in each voxel: that of the dura network outside the dura and
        within its range, the clipped signal elsewhere.
    fraction : Volume
        The same, refined by the signal at the border of components (`refine_fraction`).
    signal : Volume
        Fraction of fluid from the signal alone.
    coordinates : CanalCoordinates
        Canal coordinates of the same grid.
    outside_mm : ndarray
        Distance outside the dura along the ray from the centerline, negative inside.
    reached : ndarray of bool
        Whether a voxel is outside the dura and within the range of the network.
    dura : Dura
    fat_like_fluid : bool
        Whether fat is too bright to be distinguished from fluid.
    tissue_bright : bool
        Whether marrow and muscle are bright, as at short echo times, but fat is not.
    """

    network: Volume
    fraction: Volume
    signal: Volume
    coordinates: CanalCoordinates
    outside_mm: Array
    reached: Mask
    dura: Dura
    fat_like_fluid: bool
    tissue_bright: bool = False

    @classmethod
    def of(
        cls, signal: Volume, dura: Dura, fat_like_fluid: bool, tissue_bright: bool = False
    ) -> Scene:
        """Compute the data of a region (already cropped to the vicinity of the canal).

        Parameters
        ----------
        signal : Volume
            Fluid fraction from the signal alone, 0..1.
        """
        c = CanalCoordinates.of(signal.geometry, dura.centerline)
        outside = np.empty(c.arc.shape, np.float32)
        for k in range(len(outside)):  # plane by plane to limit memory
            outside[k] = _outside_mm(dura, c.arc[k], c.left[k], c.dorsal[k])
        network = signal
        reached = (outside > 0) & (np.hypot(c.left, c.dorsal) <= RADIUS_RANGE_MM[1])
        reached &= (c.arc >= 0) & (c.arc <= dura.arc_mm[-1])
        values = dura.fluid_outside_at(c.arc[reached], c.left[reached], c.dorsal[reached])
        if values is None:
            reached[:] = False
        else:
            known = np.isfinite(values)  # rounding may exclude the outermost voxels
            reached[reached] = known
            array = signal.array.copy()
            array[reached] = values[known]
            network = signal.with_array(array, "dura network outside the dura")
        fraction = refine_fraction(network, signal, outside > 0)
        return cls(
            network, fraction, signal, c, outside, reached, dura, fat_like_fluid, tissue_bright
        )

    @property
    def sac(self) -> Mask:
        """Voxels whose center lies inside the spinal dura."""
        sac = np.asarray(self.outside_mm <= 0.0)
        if self.dura.head_arc_mm > 0:  # above it lie the cisterns
            sac &= self.coordinates.arc >= self.dura.head_arc_mm
        return sac


def _outside_mm(dura: Dura, arc: Array, left: Array, dorsal: Array) -> FloatArray:
    """Distance outside the dura along the ray from the centerline, negative inside."""
    # Planes of an oblique grid extend slightly beyond both ends of the centerline.
    last = float(dura.arc_mm[-1]) if dura.tip_arc_mm is None else None
    outside = np.hypot(left, dorsal) - dura.radius_at(np.clip(arc, 0.0, last), left, dorsal)
    if dura.tip_arc_mm is not None:  # below the sac: distance to its caudal end
        below = np.maximum(arc - np.float32(dura.tip_arc_mm), 0)
        outside = np.where(below > 0, np.hypot(outside, below), outside)
    return np.asarray(outside)


def refine_fraction(network: Volume, signal: Volume, outside: Mask) -> Volume:
    """Refine the fluid fraction of the network with the signal of each voxel.

    Parameters
    ----------
    network : Volume
        Fluid fraction estimated by the network (see `Scene`).
    signal : Volume
        Signal relative to CSF, 0..1.
    outside : ndarray of bool
        Voxels outside the dura.

    Returns
    -------
    Volume
        Probability that fluid outside the dura fills at least half of the voxel; the network's
        fraction where it is below `MIN_NETWORK_FRACTION`.
    """
    labels, evidence = voxel_candidates(network, signal, outside)
    fraction = network.array.copy()
    fraction[labels > 0] = 1 / (1 + np.exp(-(evidence @ np.array(VOXEL_WEIGHTS))))
    return network.with_array(fraction, "fluid outside the dura, refined by the signal")


def voxel_candidates(
    network: Volume, signal: Volume, outside: Mask
) -> tuple[npt.NDArray[np.int32], FloatArray]:
    """Return the voxels that may contain epidural fluid, and the evidence for each.

    A voxel at the border of a component is half filled if it has half of the signal of the
    component. Next to the sac, the signal alone is ambiguous: there, the mean over the adjacent
    voxels tells fluid outside the dura from bright signal that is not.

    Returns
    -------
    labels : ndarray, int32
        Number of the component of the network's fluid, 0 elsewhere.
    evidence : ndarray, shape (n, 4)
        For the n voxels with a label: a constant 1, the log odds of the network's fraction, the
        signal relative to that of the component, and the mean over 3 x 3 x 3 voxels of the
        network's fraction minus the signal.
    """
    from scipy import ndimage

    fraction, level = network.array, signal.array
    labels, _ = ndimage.label(outside & (fraction >= MIN_NETWORK_FRACTION))
    excess = ndimage.uniform_filter(np.where(outside, fraction, np.float32(0)) - level, 3)
    relative = np.zeros_like(level)
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == number
        filled = level[box][inside & (fraction[box] > HALF)]
        if len(filled):
            reference = max(float(np.percentile(filled, 75)), MIN_REFERENCE)
            relative[box][inside] = np.clip(level[box][inside] / reference, 0.0, 1.2)
        else:
            labels[box][inside] = 0
    where = labels > 0
    odds = np.clip(fraction[where], 0.02, 0.98).astype(np.float64)
    columns = np.ones_like(odds), np.log(odds / (1 - odds)), relative[where], excess[where]
    return labels, np.stack(columns, axis=-1)
