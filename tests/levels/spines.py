"""Made spines: where discs would be, and a detector that reports them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from leakloc.anatomy.centerline import Centerline
from leakloc.anatomy.reference import reference_chain
from leakloc.anatomy.spine import Spine
from leakloc.core.settings import LevelSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.levels.detection import DetectedDisc, Detections
from leakloc.levels.labeling import label
from leakloc.levels.result import Levels

AHEAD_MM = 25.0


@dataclass
class MadeSpine:
    """A straight spine along z; disc names from `first` to `last`, found by a perfect detector."""

    first: str = "T11-T12"
    last: str = "S1-S2"
    lumbar_count: int = 5
    scale: float = 1.0
    missed: tuple[str, ...] = ()
    false_at: tuple[float, ...] = ()
    """Heights of false discs, as fractions of the distance from the first to the last disc."""
    false_score: float = 0.4
    margin_mm: float = 18.0
    cord_ends_at: tuple[str, float] | None = None
    """A disc and the distance of the conus below it; None for a sac without visible contents."""
    in_between_mm: float = 0.0
    """How far above the lumbosacral disc bone looks like sacrum; negative for bone below it that
    looks lumbar."""
    last_depth: float = 1.0
    """Depth of the lumbosacral disc relative to the usual one."""
    remnant_depth_mm: float = 22.0
    """Depth of discs within the sacrum."""
    remnant_score: float = 0.55
    centers: dict[str, np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        chain = reference_chain(self.lumbar_count)
        self.chain = chain
        z = -self.scale * np.concatenate([[0.0], np.cumsum(chain.chord_mm[1:-1])])
        start, stop = chain.discs.index(self.first), chain.discs.index(self.last) + 1
        self.names = chain.discs[start:stop]
        middle = 0.5 * (z[start] + z[stop - 1])
        self.centers = {
            chain.discs[n]: np.array([0.0, -AHEAD_MM, z[n] - middle]) for n in range(start, stop)
        }
        self.top = self.centers[self.first][2] + self.margin_mm
        self.bottom = self.centers[self.last][2] - self.margin_mm

    @property
    def geometry(self) -> Geometry:
        count = int((self.top - self.bottom) / 3.0) + 1
        return Geometry.from_axes(
            (count, 40, 20), origin_lps=(-28.5, -80.0, self.bottom), spacing_ijk_mm=(3, 3, 3)
        )

    @property
    def volume(self) -> Volume:
        return Volume(np.ones(self.geometry.shape, np.float32), self.geometry)

    @property
    def centerline(self) -> Centerline:
        z = np.arange(self.top, self.bottom, -1.0)
        return Centerline(np.stack([0 * z, 0 * z, z], axis=-1))

    @property
    def segmentation(self) -> SimpleNamespace:
        """A sac of 20 mm along the centerline, with a cord of 10 mm that tapers over 15 mm."""
        if self.cord_ends_at is None:
            return blind_segmentation(self.volume, self.centerline)
        disc, below_mm = self.cord_ends_at
        k, j, i = np.indices(self.geometry.shape)
        x, y, z = np.moveaxis(self.geometry.lps_from_ijk(np.stack([i, j, k], axis=-1)), -1, 0)
        sac = np.hypot(x, y) < 10
        above_tip_mm = z - self.centers[disc][2] + below_mm
        cord = np.hypot(x, y) < 5 * np.sqrt(np.clip(above_tip_mm / 15.0, 0, 1))
        return SimpleNamespace(
            centerline=self.centerline,
            thecal_sac=Volume(sac.astype(np.uint8), self.geometry),
            fluid_fraction=Volume((sac & ~cord).astype(np.float32), self.geometry),
            foramen_magnum_arc_mm=None,
        )

    def detect(self, image, centerline) -> Detections:
        chain, geometry = self.chain, self.geometry
        discs = []
        for name, center in self.centers.items():
            if name in self.missed:
                continue
            n = chain.discs.index(name)
            tilt = np.radians(chain.tilt_deg[n])
            normal = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
            score = (
                0.94 if n < chain.junction else 0.85 if n == chain.junction else self.remnant_score
            )
            own = chain.depth_mm[n] * (self.last_depth if n == chain.junction else 1.0)
            depth = self.scale * (self.remnant_depth_mm if n > chain.junction else own)
            discs.append(DetectedDisc(center, normal, score, depth))
        for fraction in self.false_at:
            height = (1 - fraction) * self.centers[self.first][2] + fraction * self.centers[
                self.last
            ][2]
            center = np.array([9.0, -AHEAD_MM + 9.0, height])
            discs.append(DetectedDisc(center, np.array([0.0, 0.0, 1.0]), self.false_score, 10.0))
        k, j, i = np.indices(geometry.shape)
        points = geometry.lps_from_ijk(np.stack([i, j, k], axis=-1))
        column = (np.abs(points[..., 0]) < 24) & (np.abs(points[..., 1] + AHEAD_MM) < 18)
        over = self._above_sacrum(points)
        mobile, sacral = column & over, column & ~over
        return Detections(
            tuple(sorted(discs, key=lambda d: -d.center_lps[2])),
            Volume(np.where(mobile, 0.99, 0.01).astype(np.float32), geometry),
            "made",
            Volume(np.where(sacral, 0.97, 0.01).astype(np.float32), geometry),
        )

    def _above_sacrum(self, points_lps: np.ndarray) -> np.ndarray:
        """Whether points lie above the plane of the lumbosacral disc, moved by `in_between_mm`."""
        name = self.chain.discs[self.chain.junction]
        if name not in self.centers:
            return np.ones(points_lps.shape[:-1], bool)
        tilt = np.radians(self.chain.tilt_deg[self.chain.junction])
        normal = np.array([0.0, -np.sin(tilt), np.cos(tilt)])
        return (points_lps - self.centers[name]) @ normal > self.in_between_mm


def blind_segmentation(volume: Volume, centerline: Centerline) -> SimpleNamespace:
    """A canal without visible contents."""
    empty = np.zeros(volume.array.shape, np.float32)
    return SimpleNamespace(
        centerline=centerline,
        thecal_sac=volume.with_array(empty.astype(np.uint8)),
        fluid_fraction=volume.with_array(empty),
        foramen_magnum_arc_mm=None,
    )


def label_spine(
    spine: MadeSpine,
    settings: LevelSettings | None = None,
    companions: dict[str, Volume] | None = None,
    myelogram: Volume | None = None,
) -> Levels:
    """Label a made spine with its own detector."""
    return label(
        Spine(myelogram or spine.volume),
        companions or {},
        spine.segmentation,
        settings or LevelSettings(),
        detector=spine.detect,
    )


def draw_spine(disc: float, body: float) -> tuple[MadeSpine, Volume]:
    """A made spine as signal: bodies and discs in front of a bright canal."""
    spine = MadeSpine(last="L5-S1", margin_mm=40.0)
    low, high = spine.bottom, spine.top
    geometry = Geometry.from_axes(
        (int(high - low), 90, 12), origin_lps=(-22, -70, low), spacing_ijk_mm=(4, 1, 1)
    )
    k, j, i = np.indices(geometry.shape)
    _, y, z = np.moveaxis(geometry.lps_from_ijk(np.stack([i, j, k], axis=-1)), -1, 0)
    array = np.full(geometry.shape, 0.1, np.float32)
    column = (y > -44) & (y < -9)
    array[column] = body
    for center in spine.centers.values():
        array[column & (np.abs(z - center[2]) < 5)] = disc
    array[np.abs(y) < 8] = 1.0
    noise = np.random.default_rng(1).normal(0, 0.005, geometry.shape)
    return spine, Volume((array + noise).clip(0).astype(np.float32), geometry)
