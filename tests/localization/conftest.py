"""Analytic spines: a tube bent to a circle, with everything known in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.vocabulary import segment_name
from leakloc.core.settings import LocalizationSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.levels.result import AlternativeNumbering, Disc, Levels, Numbering, Vertebra
from leakloc.segmentation.result import Candidate, Segmentation

NAMES = ("T12", "L1", "L2", "L3", "L4", "L5", "S1", "S2", "S3", "S4", "S5")
PITCHES_MM = (31.5, 33.5, 35.5, 36.0, 35.5, 32.5, 30.0, 25.0, 20.0, 17.0, 15.0)


@dataclass(frozen=True)
class Crescent:
    """Fluid against the outside of the sac: a sector of a shell.

    `thickness_mm` falls as a parabola from `peak_mm` to zero at both ends where given, and is
    even otherwise.
    """

    start_mm: float
    stop_mm: float
    thickness_mm: float
    toward_deg: float = 0.0
    """0 dorsal, 90 left, 180 ventral, -90 right."""
    half_angle_deg: float = 40.0
    peak_mm: float | None = None
    probability: float = 0.95
    compartments: tuple[str, ...] = ("epidural",)
    mimics: tuple[str, ...] = ()
    inner_mm: float | None = None

    def thickness_at(self, arc):
        inside = (arc >= self.start_mm) & (arc <= self.stop_mm)
        if self.peak_mm is None:
            return np.where(inside, self.thickness_mm, 0.0)
        reach = np.where(
            arc < self.peak_mm, self.peak_mm - self.start_mm, self.stop_mm - self.peak_mm
        )
        shape = 1.0 - ((arc - self.peak_mm) / reach) ** 2
        return np.where(inside, self.thickness_mm * np.maximum(shape, 0.0), 0.0)


@dataclass(frozen=True)
class Spine:
    """A canal of constant curvature, its sac, and fluid around it."""

    radius_mm: float = np.inf
    """Of the bend in the sagittal plane; positive for lordosis, negative for kyphosis."""
    sac_radius_mm: float = 8.0
    length_mm: float = 300.0
    sac_end_mm: float = 210.0
    first_disc_mm: float = 20.0
    """Where the disc T12-L1 lies."""
    crescents: Sequence[Crescent] = ()
    spacing_ijk_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    tilt_deg: tuple[float, float] = (0.0, 0.0)
    """Rotation of the grid about the left-right and the front-back axis."""
    names: tuple[str, ...] = NAMES
    body_distance_mm: float = 26.0
    field_mm: tuple[float, float] = (-10.0, 310.0)
    """Along the canal."""
    half_width_mm: float = 40.0
    status: str = "labelled"
    numbering_confidence: float = 0.95
    alternatives: tuple[AlternativeNumbering, ...] = ()
    fat_suppressed: bool | None = True
    noise: float = 10.0
    settings: LocalizationSettings = field(default_factory=LocalizationSettings)

    # --- the closed form ---------------------------------------------------------------
    def points(self, arc, left=0.0, dorsal=0.0):
        """LPS of canal coordinates."""
        arc, left, dorsal = np.broadcast_arrays(
            *(np.asarray(v, dtype=float) for v in (arc, left, dorsal))
        )
        s = arc - self.length_mm / 2
        if np.isinf(self.radius_mm):
            return np.stack([left, dorsal, -s], axis=-1)
        turn = s / self.radius_mm
        from_center = self.radius_mm - dorsal
        y = self.radius_mm - from_center * np.cos(turn)
        return np.stack([left, y, -from_center * np.sin(turn)], axis=-1)

    def canal(self, points):
        """Canal coordinates (arc, left, dorsal) of LPS points."""
        x, y, z = np.moveaxis(points, -1, 0)
        if np.isinf(self.radius_mm):
            return self.length_mm / 2 - z, x, y
        r = self.radius_mm
        turn = np.arctan2(-z / r, (r - y) / r)
        dorsal = r - np.sign(r) * np.hypot(r - y, z)
        return self.length_mm / 2 + r * turn, x, dorsal

    def disc_mm(self, segment: str) -> float:
        upper = NAMES.index(segment.split("-")[0])
        return self.first_disc_mm + sum(PITCHES_MM[1 : upper + 1])

    def body_mm(self, name: str) -> float:
        n = NAMES.index(name)
        below = self.disc_mm(segment_name(NAMES[n], "S5" if n else "L1"))
        return below - PITCHES_MM[n] / 2

    # --- as the stages hand it over ---------------------------------------------------
    def geometry(self) -> Geometry:
        ax, ay = np.deg2rad(self.tilt_deg)
        rx = np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
        ry = np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
        axes = rx @ ry
        w = self.half_width_mm
        corners = self.points(
            *np.meshgrid(np.linspace(*self.field_mm, 9), [-w, w], [-w, w], indexing="ij")
        ).reshape(-1, 3)
        local = corners @ axes
        low, high = local.min(axis=0), local.max(axis=0)
        i, j, k = np.ceil((high - low) / np.array(self.spacing_ijk_mm)).astype(int) + 1
        return Geometry.from_axes(
            (int(k), int(j), int(i)),
            origin_lps=axes @ low,
            spacing_ijk_mm=self.spacing_ijk_mm,
            directions_lps=axes,
        )

    def centerline(self) -> Centerline:
        return Centerline(self.points(np.arange(0.0, self.length_mm + 0.5)))

    def segmentation(self) -> Segmentation:
        geometry = self.geometry()
        indices = np.indices(geometry.shape).reshape(3, -1).T
        arc, left, dorsal = self.canal(geometry.lps_from_kji(indices))
        radius = np.hypot(left, dorsal)
        soft = float(np.mean(geometry.spacing_ijk_mm))
        sac_radius = self.sac_radius_at(arc)
        sac_fraction = np.clip(0.5 - (radius - sac_radius) / soft, 0, 1)
        sac_fraction[(arc < self.field_mm[0]) | (arc > self.sac_end_mm)] = 0
        sac = sac_fraction >= 0.5
        fraction = np.where(sac, 1.0, 0.0)
        label = np.zeros(len(arc), dtype=np.uint8)
        candidates = []
        for number, crescent in enumerate(self.crescents, start=1):
            inner = self.sac_radius_mm if crescent.inner_mm is None else crescent.inner_mm
            outer = inner + crescent.thickness_at(arc)
            turn = np.rad2deg(np.arctan2(left, dorsal)) - crescent.toward_deg
            turn = np.abs((turn + 180) % 360 - 180)
            inside = (crescent.half_angle_deg - turn) * np.deg2rad(1) * np.maximum(radius, 1)
            if crescent.half_angle_deg >= 180:
                inside = np.full_like(radius, 99.0)
            depth = np.minimum.reduce([outer - radius, radius - inner, inside])
            depth = np.minimum(depth, np.minimum(arc - crescent.start_mm, crescent.stop_mm - arc))
            share = np.clip(0.5 + depth / soft, 0, 1)
            share[sac] = 0
            chosen = share >= 0.5
            label[chosen] = number
            fraction = np.maximum(fraction, share)
            ml = float(share.sum()) * geometry.voxel_volume_ml
            center = np.average(geometry.lps_from_kji(indices[chosen]), axis=0)
            candidates.append(
                Candidate(
                    number,
                    True,
                    crescent.probability,
                    ml,
                    center,
                    "It is bright.",
                    crescent.mimics,
                    crescent.compartments,
                    {},
                )
            )
        shape = geometry.shape
        return Segmentation(
            fluid_fraction=Volume(fraction.reshape(shape).astype(np.float32), geometry),
            centerline=self.centerline(),
            thecal_sac=Volume(sac.reshape(shape).astype(np.uint8), geometry),
            collections=Volume(label.reshape(shape), geometry),
            candidates=tuple(candidates),
            fat_suppressed=self.fat_suppressed,
            csf_signal=1000.0,
            noise=self.noise,
        )

    def sac_radius_at(self, arc):
        return np.full_like(arc, self.sac_radius_mm)

    def levels(self, geometry: Geometry | None = None) -> Levels:
        geometry = geometry or self.geometry()
        forward = -self.body_distance_mm
        vertebrae = tuple(
            Vertebra(name, self.points(self.body_mm(name), 0.0, forward), 0.9)
            for name in self.names
        )
        discs = []
        for upper, lower in zip(self.names, self.names[1:], strict=False):
            name = segment_name(upper, lower)
            arc = self.disc_mm(name)
            up = self.points(arc - 1) - self.points(arc + 1)
            center = self.points(arc, 0.0, forward)
            discs.append(Disc(name, center, up / np.linalg.norm(up), 0.9))
        if self.status == "unlabelled":
            vertebrae, discs = (), []
        return Levels(
            status=self.status,  # type: ignore[arg-type]
            numbering=Numbering(
                "sacrum_up",
                "five lumbar vertebrae",
                self.numbering_confidence,
                5,
                alternatives=self.alternatives,
            ),
            vertebrae=vertebrae,
            discs=tuple(discs),
            mask=Volume(np.zeros(geometry.shape, dtype=np.uint8), geometry),
        )

    def localized(self, **options):
        from leakloc.localization import localize

        segmentation = self.segmentation()
        levels = self.levels(segmentation.collections.geometry)
        return localize(segmentation, levels, self.settings, **options)


@pytest.fixture(scope="session")
def spine():
    """Build a `Spine`."""
    return Spine


@pytest.fixture(scope="session")
def crescent():
    """Build a `Crescent`."""
    return Crescent
