"""The region around the canal in which fluid outside the dura is searched for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.canal_coordinates import CanalCoordinates
from leakloc.core.volume import FloatArray, Volume
from leakloc.segmentation.dura import RADIUS_RANGE_MM, Dura
from leakloc.segmentation.voxel_network import voxel_probabilities

Mask = npt.NDArray[np.bool_]
Array = npt.NDArray[np.float32]

HALF: Final = 0.5
"""Fluid fraction at which a voxel belongs to a component rather than to its rim."""

MIN_NETWORK_FRACTION: Final = 0.15
"""Fraction of the dura network below which a voxel contains no fluid; at 0.25, thin layers lose one
percent of their Dice coefficient (36 studies of development patients)."""

MAX_SURFACE_ERROR_MM: Final = 2.5
"""Maximum distance from the dural surface at which a voxel may lie on the other side of it."""


@dataclass(frozen=True, eq=False)
class Scene:
    """A region around the canal with the data used to classify collections.

    Parameters
    ----------
    network : Volume
        Fraction of CSF-like fluid in each voxel: that of the dura network outside the dura and
        within its range, the clipped signal elsewhere.
    fraction : Volume
        The same, with the voxel network at the border of sac and fluid.
    signal : Volume
        Fraction of fluid from the signal alone, 0..1.
    coordinates : CanalCoordinates
        Canal coordinates of the same grid.
    outside_mm : ndarray
        Distance outside the dural surface along the ray from the centerline, negative inside.
    inside : ndarray of bool
        Voxels that the dura contains, including the cisterns.
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
    inside: Mask
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
            Signal relative to CSF, not clipped.
        """
        csf = signal.with_array(np.clip(signal.array, 0.0, 1.0), "fluid fraction")
        c, outside, reached, network = locate_voxels(csf, dura)
        heavy_t2 = not (fat_like_fluid or tissue_bright)
        inside, fraction = _assign_voxels(signal, csf, network, outside, heavy_t2)
        return cls(
            network, fraction, csf, c, outside, inside, reached, dura, fat_like_fluid, tissue_bright
        )

    @property
    def sac(self) -> Mask:
        """Voxels inside the spinal dura, without the cisterns."""
        if self.dura.head_arc_mm == 0:  # the sac extends beyond the first point of the centerline
            return self.inside
        return self.inside & (self.coordinates.arc >= self.dura.head_arc_mm)


def locate_voxels(csf: Volume, dura: Dura) -> tuple[CanalCoordinates, Array, Mask, Volume]:
    """Return the position of voxels relative to the dural surface, and the fluid outside it.

    Parameters
    ----------
    csf : Volume
        Fraction of fluid from the signal alone, 0..1.
    dura : Dura

    Returns
    -------
    coordinates : CanalCoordinates
    outside_mm : ndarray
    reached : ndarray of bool
    network : Volume
        As the parameters of `Scene`.
    """
    c = CanalCoordinates.of(csf.geometry, dura.centerline)
    outside = np.empty(c.arc.shape, np.float32)
    for k in range(len(outside)):  # plane by plane to limit memory
        outside[k] = _outside_mm(dura, c.arc[k], c.left[k], c.dorsal[k])
    network = csf.array.copy()
    reached = (outside > 0) & (np.hypot(c.left, c.dorsal) <= RADIUS_RANGE_MM[1])
    reached &= (c.arc >= 0) & (c.arc <= dura.arc_mm[-1])
    values = dura.fluid_outside_at(c.arc[reached], c.left[reached], c.dorsal[reached])
    if values is None:
        reached[:] = False
    else:
        known = np.isfinite(values)  # rounding may exclude the outermost voxels
        reached[reached] = known
        network[reached] = values[known]
    return c, outside, reached, csf.with_array(network, "dura network outside the dura")


def _assign_voxels(
    signal: Volume, csf: Volume, network: Volume, outside_mm: Array, heavy_t2: bool
) -> tuple[Mask, Volume]:
    """Return the voxels inside the dura, and the fluid fraction refined outside it.

    The voxel network is applied near the surface and where the dura network detects fluid. Its
    training images were heavily T2-weighted: next to bright fat it does not delimit the sac.
    """
    surface = outside_mm <= 0.0
    fluid = np.where(surface, np.float32(0), network.array)
    near = np.abs(outside_mm) < MAX_SURFACE_ERROR_MM
    wet = fluid >= MIN_NETWORK_FRACTION
    sac, epidural = voxel_probabilities(signal.array, outside_mm, fluid, near | wet)
    inside = np.where(near, sac >= HALF, surface) if heavy_t2 else surface
    fraction = np.where(wet | (surface & ~inside), epidural, network.array)
    return inside, network.with_array(
        np.where(inside, csf.array, fraction), "fluid outside the dura"
    )


def _outside_mm(dura: Dura, arc: Array, left: Array, dorsal: Array) -> FloatArray:
    """Distance outside the dura along the ray from the centerline, negative inside."""
    # Planes of an oblique grid extend slightly beyond both ends of the centerline.
    last = float(dura.arc_mm[-1]) if dura.tip_arc_mm is None else None
    outside = np.hypot(left, dorsal) - dura.radius_at(np.clip(arc, 0.0, last), left, dorsal)
    if dura.tip_arc_mm is not None:  # below the sac: distance to its caudal end
        below = np.maximum(arc - np.float32(dura.tip_arc_mm), 0)
        outside = np.where(below > 0, np.hypot(outside, below), outside)
    return np.asarray(outside)
