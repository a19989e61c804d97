"""The phantom: anatomy and findings of one seed, rendered on request."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from leakloc.anatomy.vocabulary import LABEL_VALUES
from leakloc.core.volume import FloatArray, Geometry, Provenance, Volume
from leakloc.validation.phantom import artifacts
from leakloc.validation.phantom.anatomy import draw_anatomy
from leakloc.validation.phantom.body import Body
from leakloc.validation.phantom.canvas import CanalGrid, Points
from leakloc.validation.phantom.findings import draw_findings
from leakloc.validation.phantom.scenario import (
    SCENARIOS,
    Scenario,
    SequenceName,
    Vendor,
    find_scenario,
)
from leakloc.validation.phantom.sequences import (
    CSF,
    FAT,
    FLUID,
    TEXTURE,
    WATER,
    Sequence,
    draw_sequences,
)
from leakloc.validation.phantom.series import PhantomSeries, plan_series, station_slices
from leakloc.validation.phantom.shapes import Float
from leakloc.validation.phantom.truth import Masks, Truth, measure_truth

_VENDORS: Final[tuple[Vendor, ...]] = ("siemens", "ge", "philips", "canon", "uih")

FINE_MM: Final = 0.6
"""Maximum edge length of subvoxels near the canal."""

FINEST_SPLIT: Final = 3
"""Maximum number of subvoxels along an edge."""

BODY_MM: Final = 2.0
"""Maximum thickness of the parts of thick slices, away from the canal."""

THICK_MM: Final = 5.0
"""Slice thickness above which no finer grid is used near the canal."""

BLEND_ROWS: Final = 8
"""Rows discarded, then blended, at the ends of a station in composition."""

SATURATED_MM: Final = 68.0
"""Distance of the anterior saturation band from the canal."""

SATURATION_EDGE_MM: Final = 4.0

SLAB_VOXELS: Final = 700_000
"""Number of points rendered at a time, to limit memory."""


_SUBJECT: Final = frozenset({"anatomy", "findings", "body", "vendor", "sequences"})
"""Random draws that do not change when the subject is scanned again."""


def make_phantom(scenario: str | Scenario, seed: int, repeat: int = 0) -> Phantom:
    """Create a phantom without rendering it.

    Parameters
    ----------
    scenario : str or Scenario
        A name from `SCENARIOS`, or a custom scenario.
    seed : int
        Random seed of anatomy, findings, protocol and noise.
    repeat : int
        Number of the repeat scan: 0 for the first scan. A repeat scan has the same anatomy,
        findings and protocol, and another position and tilt of the grids, noise, receive field
        and flow voids.

    Raises
    ------
    SettingsError
        If no scenario has that name.
    """
    return Phantom(find_scenario(scenario, SCENARIOS), seed, repeat)


@dataclass(frozen=True, eq=False)
class Phantom:
    """One subject with findings, and the corresponding MR study.

    Parameters
    ----------
    scenario : Scenario
    seed : int
    repeat : int
        Number of the repeat scan, as in `make_phantom`.
    """

    scenario: Scenario
    seed: int
    repeat: int = 0

    def _rng(self, purpose: str) -> np.random.Generator:
        """Return an independent random generator for a purpose."""
        if self.repeat and purpose not in _SUBJECT:
            purpose = f"{purpose} repeat {self.repeat}"
        words = [zlib.crc32(self.scenario.name.encode()), self.seed, zlib.crc32(purpose.encode())]
        return np.random.default_rng(words)

    @cached_property
    def body(self) -> Body:
        """Anatomy and findings."""
        anatomy = draw_anatomy(self.scenario, self._rng("anatomy"))
        anatomy, findings = draw_findings(self.scenario, anatomy, self._rng("findings"))
        return Body(anatomy, findings, self._rng("body"))

    @cached_property
    def truth(self) -> Truth:
        """Levels, collections and paths in patient coordinates."""
        return measure_truth(self.body, self.seed)

    @cached_property
    def vendor(self) -> Vendor:
        """Vendor of the names and headers of the study."""
        drawn = str(self._rng("vendor").choice(_VENDORS))
        return self.scenario.vendor or drawn  # type: ignore[return-value]

    @cached_property
    def sequences(self) -> dict[SequenceName, Sequence]:
        """Sequences of the protocol."""
        return draw_sequences(
            self.scenario, self.vendor, self.body.anatomy.field_t, self._rng("sequences")
        )

    @cached_property
    def _voids(self) -> artifacts.FlowVoids:
        return artifacts.draw_voids(self.scenario, self.body.anatomy, self._rng("voids"))

    @cached_property
    def _saturation(self) -> np.float32:
        """Strength of the anterior saturation band on sagittal slices."""
        rng = self._rng("saturation")
        return np.float32(rng.uniform(0.6, 0.92) if rng.random() < 0.6 else 0.0)

    @cached_property
    def _fat_patches(self) -> artifacts.FatPatches:
        return artifacts.draw_fat_patches(self.scenario, self.body.anatomy, self._rng("fat"))

    def series(self) -> list[PhantomSeries]:
        """Return the series of the study in scanner order, not yet rendered."""
        anatomy, findings = self.body.anatomy, self.body.findings
        reach = [fluid.reach_mm for fluid in (*findings.collections, *findings.mimics)]
        focus = float(np.mean(reach[0])) if reach else anatomy.site("L4").middle_mm
        return plan_series(
            self.scenario, anatomy, self.vendor, self.sequences, focus, self._rng("series")
        )

    def myelogram_geometry(self) -> Geometry:
        """Return the grid of the (composed) three-dimensional myelogram of the study.

        Raises
        ------
        LookupError
            If the scenario has none.
        """
        for planned in reversed(self.series()):
            if planned.sequence.name in ("ht2w_3d", "ht2w_bssfp"):
                return planned.geometry
        raise LookupError(f"scenario {self.scenario.name!r} has no three-dimensional myelogram")

    def masks(self, geometry: Geometry) -> Masks:
        """Return the ground-truth masks on a grid.

        Parameters
        ----------
        geometry : Geometry
            Any grid; partial volumes refer to its voxels.
        """
        column, canal = self.body.column, self.body.canal
        sac, sleeves, fluid = np.zeros((3, *geometry.shape), np.float32)
        ids, levels, discs = np.zeros((3, *geometry.shape), np.uint8)
        values = np.array([LABEL_VALUES[s.name] for s in self.body.anatomy.sites] + [0], np.uint8)
        collections = self.body.findings.collections
        width = float(np.cbrt(np.prod(geometry.spacing_ijk_mm)))
        grid = CanalGrid(self.body.anatomy, geometry)
        for start, stop in _ranges(geometry.shape):
            points = grid.slab(start, stop)
            shape = (stop - start, *geometry.shape[1:])
            in_sac = canal.sac_fraction(points, width)
            fractions = canal.fluid_fractions(points, collections, width)
            for rows, fine, fine_width in self._fine_points(grid, points, start):
                count = len(fine.arc) // len(rows)
                in_sac[rows] = canal.sac_fraction(fine, fine_width).reshape(-1, count).mean(axis=1)
                finer = canal.fluid_fractions(fine, collections, fine_width)
                fractions[:, rows] = finer.reshape(len(finer), len(rows), count).mean(axis=2)
            total = np.clip(fractions.sum(axis=0), 0, 1)
            sac[start:stop] = in_sac.reshape(shape)
            sleeves[start:stop] = canal.sleeve_fraction(points, width).reshape(shape)
            fluid[start:stop] = total.reshape(shape)
            if len(collections):
                number = (fractions.argmax(axis=0) + 1).astype(np.uint8)
                ids[start:stop] = np.where(total >= 0.5, number, 0).reshape(shape)
            bodies, disc_sites = column.labels(points)
            levels[start:stop] = values[bodies].reshape(shape)
            discs[start:stop] = values[disc_sites].reshape(shape)
        provenance = self._provenance()
        return Masks(
            *(Volume(a, geometry, provenance) for a in (sac, sleeves, ids, fluid, levels, discs))
        )

    def image(
        self,
        sequence: SequenceName | Sequence,
        geometry: Geometry,
        *,
        station: int | None = None,
    ) -> Volume:
        """Return the image of a sequence on a grid: float32, about 0 to 1500.

        Parameters
        ----------
        sequence : str or Sequence
        geometry : Geometry
        station : int, optional
            Station index; gain and patient shift differ between stations.
        """
        if not isinstance(sequence, Sequence):
            sequence = self.sequences[sequence]
        rng = self._rng(f"image {sequence.name} {station} {np.round(geometry.origin_lps, 2)}")
        gain, shifted = self._station(station, geometry)
        image, bright = self._signal(sequence, shifted)
        field = artifacts.receive_field(shifted, self.body.anatomy, self.scenario, rng)
        image *= field
        bright *= field
        if sequence.name.startswith("ht2w") and sequence.thickness_mm is None:
            axis = int(np.abs(geometry.directions_lps[2]).argmax())
            artifacts.add_fold_over(image, self.scenario.wrap, 2 - axis)
        strength = self.scenario.ghosts * (2.0 if sequence.thickness_mm else 1.0)
        if min(image.shape[1:]) > 8:
            shift = int(image.shape[2] * float(rng.uniform(0.1, 0.3)))
            artifacts.add_ghosts(image, bright, strength, 2, shift)
        del bright
        artifacts.blur(image, sequence.blur_voxels, sequence.thickness_mm is None)
        artifacts.add_rician_noise(image, sequence.csf_signal / sequence.snr, rng)
        image *= np.float32(gain)
        return Volume(image, geometry, self._provenance(sequence.name))

    def _provenance(self, series: str = "") -> Provenance:
        return Provenance(f"phantom {self.scenario.name} {self.seed}", None, series)

    def _station(self, station: int | None, geometry: Geometry) -> tuple[float, Geometry]:
        if station is None:
            return 1.0, geometry
        rng = self._rng(f"station {station}")
        gain = 1 + self.scenario.station_gain * float(rng.uniform(-1, 1))
        couch_shift = rng.uniform(-1, 1, 3) * self.scenario.station_shift_mm
        if station == self.scenario.stations - 1:
            couch_shift[:] = 0  # the truth refers to the lowest station
        affine = geometry.affine_lps.copy()
        affine[:3, 3] += couch_shift
        return gain, replace(geometry, affine_lps=affine)

    def _signal(self, sequence: Sequence, geometry: Geometry) -> tuple[Float, Float]:
        """Return the noise-free signal, and its pulsating part."""
        image = np.empty(geometry.shape, np.float32)
        bright = np.empty(geometry.shape, np.float32)
        coarse = (sequence.thickness_mm or 0.0) > THICK_MM
        for start, stop, grid, parts, width_mm in self._blocks(sequence, geometry):
            first = start if parts == 1 else 0
            shape = (stop - start, parts, *geometry.shape[1:])
            points = grid.slab(first, first + (stop - start) * parts)
            signal, pulsating = self._signal_at(sequence, points, width_mm)
            if not coarse:
                for rows, fine, fine_width in self._fine_points(grid, points, first):
                    finer = self._signal_at(sequence, fine, fine_width)
                    signal[rows], pulsating[rows] = (
                        part.reshape(len(rows), -1).mean(axis=1) for part in finer
                    )
            image[start:stop] = signal.reshape(shape).mean(axis=1)
            bright[start:stop] = pulsating.reshape(shape).mean(axis=1)
        return image, bright

    def _blocks(
        self, sequence: Sequence, geometry: Geometry
    ) -> Iterator[tuple[int, int, CanalGrid, int, float]]:
        """Yield ranges of slices with their render grid, parts per slice and point width."""
        anatomy = self.body.anatomy
        in_plane = float(np.mean(geometry.spacing_ijk_mm[:2]))
        if sequence.thickness_mm is None:
            grid = CanalGrid(anatomy, geometry)
            for start, stop in _ranges(geometry.shape):
                yield start, stop, grid, 1, float(np.cbrt(np.prod(geometry.spacing_ijk_mm)))
            return
        coarsest = BODY_MM if sequence.thickness_mm <= THICK_MM else 2 * BODY_MM
        parts = max(int(np.ceil(sequence.thickness_mm / coarsest)), 1)
        step = sequence.thickness_mm / parts
        everything = slice(None)
        for k in range(geometry.shape[0]):
            one = geometry.cropped((slice(k, k + 1), everything, everything))
            affine = one.affine_lps.copy()
            normal = geometry.directions_lps[:, 2]
            affine[:3, 2] = normal * step
            affine[:3, 3] -= normal * step * (parts - 1) / 2
            thin = Geometry((parts, *geometry.shape[1:]), affine)
            yield k, k + 1, CanalGrid(anatomy, thin), parts, 0.5 * (in_plane + step)

    def _fine_points(
        self, grid: CanalGrid, points: Points, first: int
    ) -> Iterator[tuple[npt.NDArray[np.intp], Points, float]]:
        """Yield subvoxel points of voxels near the canal in batches, with their width.

        `points` are the voxels of the grid from slice `first` on.
        """
        geometry, near = grid.geometry, self.body.canal.near(points)
        counts = [
            int(np.clip(np.ceil(mm / FINE_MM), 1, FINEST_SPLIT)) for mm in geometry.spacing_kji_mm
        ]
        offsets: FloatArray = np.stack(
            np.meshgrid(
                *((np.arange(n) + 0.5) / n - 0.5 for n in counts), indexing="ij"
            ), axis=-1
        ).reshape(-1, 3)  # fmt: skip
        width = float(np.cbrt(np.prod(geometry.spacing_ijk_mm) / len(offsets)))
        batch = max(SLAB_VOXELS // len(offsets), 1)
        for begin in range(0, len(near), batch):
            rows = near[begin : begin + batch]
            k, j, i = np.unravel_index(rows, (len(rows) + 10**9, *geometry.shape[1:]))
            kji = np.stack([k + first, j, i], axis=-1).astype(float)
            spread = (kji[:, None, :] + offsets[None]).reshape(-1, 3)
            yield rows, grid.at(spread), width

    def _signal_at(
        self, sequence: Sequence, points: Points, width_mm: float
    ) -> tuple[Float, Float]:
        body = self.body
        canvas = body.paint(points, sequence.palette(), width_mm)
        fat = canvas[:, FAT]
        solid = np.flatnonzero(canvas[:, WATER] + fat > 0)
        fat_fraction = fat[solid] / (canvas[solid, WATER] + fat[solid])
        if sequence.fat_suppressed:
            fat = fat * self._fat_patches.factor(points)
        elif sequence.contrast == "inversion":
            fat = fat * np.float32(0.25)
        tissue = canvas[:, WATER] + fat
        variation = canvas[solid, TEXTURE]
        tissue[solid] *= body.grain(points.take(solid), variation, fat_fraction, width_mm)
        csf = canvas[:, CSF]
        if sequence.void_strength > 0:
            csf = csf * self._voids.factor(points, sequence.void_strength)
        signal: Float = np.maximum(tissue, 0) + csf + canvas[:, FLUID]
        if "_sagittal" in sequence.name:
            beyond = (-SATURATED_MM - points.dorsal) / SATURATION_EDGE_MM
            signal *= 1 - self._saturation / (1 + np.exp(np.clip(-beyond, -30, 30)))
        if body.findings.screws:
            distance = body.findings.screw_distance(points.arc, points.left, points.dorsal)
            signal = _metal(signal, distance, sequence)
        return np.asarray(signal, np.float32), csf

    def render(self, series: PhantomSeries) -> list[Volume]:
        """Return the images of one series, one volume per stack.

        Composed series are computed from their stations, projections from the
        myelogram.
        """
        if series.derived:
            return self._projections(series)
        if series.composed:
            return [self._composed(series)]
        return [
            self.image(series.sequence, stack, station=series.station) for stack in series.stacks
        ]

    def _composed(self, series: PhantomSeries) -> Volume:
        parts = station_slices(self.scenario, series.geometry)
        stations = [
            self.image(series.sequence, series.geometry.cropped(part), station=number)
            for number, part in enumerate(parts)
        ]
        return self.compose(stations, series)

    def compose(self, stations: list[Volume], series: PhantomSeries) -> Volume:
        """Compose the rendered stations of a series, cranial to caudal.

        Gains and shifts are not corrected, so that seams are visible as on some
        scanners.
        """
        geometry = series.geometry
        total = np.zeros(geometry.shape, np.float32)
        weight = np.zeros(geometry.shape[1], np.float32)
        for image, part in zip(stations, station_slices(self.scenario, geometry), strict=True):
            rows = part[1]
            count = rows.stop - rows.start
            from_end = np.minimum(np.arange(count), np.arange(count)[::-1])
            ramp = np.clip((from_end - BLEND_ROWS) / BLEND_ROWS, 1e-3, 1).astype(np.float32)
            total[:, rows] += image.array * ramp[None, :, None]
            weight[rows] += ramp
        total /= weight[None, :, None]
        return Volume(total, geometry, self._provenance(series.name))

    def _projections(self, series: PhantomSeries) -> list[Volume]:
        source = next(
            planned
            for planned in reversed(self.series())
            if planned.sequence.name in ("ht2w_3d", "ht2w_bssfp")
        )
        return project(self.render(source)[0], series.stacks)


def project(volume: Volume, stacks: tuple[Geometry, ...]) -> list[Volume]:
    """Return maximum-intensity projections of a volume on single-slice grids.

    Parameters
    ----------
    volume : Volume
    stacks : tuple of Geometry
        Grids of `series.projection_grids`, rotated about the j axis of the volume.
    """
    views = []
    reach = 0.5 * float(
        np.hypot(
            volume.geometry.shape[0] * volume.geometry.spacing_ijk_mm[2],
            volume.geometry.shape[2] * volume.geometry.spacing_ijk_mm[0],
        )
    )
    step = 2.0
    count = int(2 * reach / step)
    for stack in stacks:
        affine = stack.affine_lps.copy()
        normal = stack.directions_lps[:, 2]
        affine[:3, 2] = normal * step
        affine[:3, 3] -= normal * step * (count - 1) / 2
        deep = Geometry((count, *stack.shape[1:]), affine)
        array = volume.resample(deep).array.max(axis=0, keepdims=True)
        views.append(Volume(array.astype(np.float32), stack, volume.provenance.then("projected")))
    return views


def _metal(signal: Float, distance: Float, sequence: Sequence) -> Float:
    """Apply a signal void around each screw, with a bright rim of signal pileup."""
    spread = 1.6 if sequence.field_t > 2 else 1.0
    if sequence.contrast in ("ssfp", "gradient"):
        spread *= 1.8
    void = 3.0 * spread
    left = np.clip((distance - void) / 1.5, 0, 1)
    rim = np.exp(-0.5 * ((distance - void - 2.0) / 0.9) ** 2)
    pile = np.float32(0.45 * sequence.csf_signal)
    fat_returns = np.exp(-np.maximum(distance - void, 0) / 8) * np.float32(0.08)
    return np.asarray(
        signal * left + pile * rim * (signal > 0) + fat_returns * sequence.csf_signal * left,
        np.float32,
    )


def _ranges(shape: tuple[int, int, int]) -> Iterator[tuple[int, int]]:
    step = max(SLAB_VOXELS // (shape[1] * shape[2]), 1)
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])
