"""Build the report (`leakloc.report.model`) from the results of all stages."""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy.typing as npt

from leakloc.analysis import AnalysisData
from leakloc.anatomy.vocabulary import NOTICE, Position
from leakloc.core.notes import Note
from leakloc.core.version import __version__
from leakloc.levels.schemes import LevelScheme, level_scheme
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.report import model

if TYPE_CHECKING:
    from leakloc.core.settings import Settings
    from leakloc.levels.result import Levels
    from leakloc.loaders.study import SkippedFile, StudyInfo, Triage, TriagedStack
    from leakloc.localization.result import (
        ExpectedHiatus,
        ExtentEnd,
        Localization,
        LocatedCollection,
        LocatedConus,
        LocatedSac,
        Planning,
        Profile,
    )
    from leakloc.segmentation.result import Candidate, Segmentation

IDENTITY_KEY_VARIABLE: Final = "LEAKLOC_IDENTITY_KEY"
"""Environment variable with the pseudonym key; not a setting, as reports contain all settings."""

_MM_DIGITS: Final = 2  # 0.01 mm, far below any voxel
_ML_DIGITS: Final = 4  # 0.1 µL, below one voxel of 0.5 mm
_FRACTION_DIGITS: Final = 4
_DIRECTION_DIGITS: Final = 6


@dataclass(frozen=True)
class Source:
    """Image information in the report, with the identity according to ``report.identity``.

    Parameters
    ----------
    study : model.StudyIdentity
    series : tuple of model.Series
    skipped : tuple of model.SkippedFiles
    notes : tuple of Note
        Warnings from reading the study and selecting its series.
    """

    study: model.StudyIdentity
    series: tuple[model.Series, ...]
    skipped: tuple[model.SkippedFiles, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class Relabelled:
    """Results with renumbered levels, without images.

    Parameters
    ----------
    source : Source
        Image information of the original report.
    runtime_s : dict
        Run time in seconds of the stages that were repeated.
    """

    source: Source
    segmentation: Segmentation
    levels: Levels
    localization: Localization
    settings: Settings
    runtime_s: dict[str, float]


Results = AnalysisData | Relabelled
"""Input of `build_report`."""


def source_of(results: Results) -> Source:
    """Image information in the report: study, series with their roles, and skipped files."""
    if isinstance(results, Relabelled):
        return results.source
    study, triage = results.study, results.triage
    return Source(
        identity(study.info, results.settings),
        _series(triage),
        _skipped(study.skipped),
        (*study.notes, *triage.notes),
    )


def build_report(
    analysis: Results,
    *,
    outputs: model.Outputs | None = None,
    notes: Iterable[Note] = (),
    runtime_s: Mapping[str, float] | None = None,
    created: datetime | None = None,
) -> model.Report:
    """Build the report from the results of all stages.

    Parameters
    ----------
    analysis : AnalysisData or Relabelled
        Results of all stages.
    outputs : Outputs, optional
        Files written with the report; none if omitted.
    notes : iterable of Note
        Further warnings, for example from failed writers.
    runtime_s : mapping, optional
        Run time in seconds of further steps, by name.
    created : datetime, optional
        Defaults to the current time.

    Returns
    -------
    Report
        Unknown, NaN and infinite values are None (0 for confidences).
    """
    settings = analysis.settings
    found, source = analysis.localization, source_of(analysis)
    runtime = {**analysis.runtime_s, **(runtime_s or {})}
    warnings = [
        *source.notes,
        *analysis.segmentation.notes,
        *analysis.levels.notes,
        *found.notes,
        *notes,
    ]
    return model.Report(
        notice=NOTICE,
        generator=model.Generator(
            name="leakloc",
            version=__version__,
            created=(created or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            config=settings.model_dump(mode="json"),
            config_sha256=settings.sha256,
            runtime_s={
                "total": round(sum(runtime.values()), 3),
                **{name: round(seconds, 3) for name, seconds in runtime.items()},
            },
        ),
        study=source.study,
        series=source.series,
        levels=_levels(
            analysis.levels,
            analysis.localization.conus,
            level_scheme(analysis.settings.report.level_scheme),
        ),
        thecal_sac=_sac(found.sac),
        collections=tuple(_collection(c) for c in found.collections),
        finding=model.Finding(
            leak=found.finding.leak,
            level=found.finding.level,
            confidence=_fraction(found.finding.confidence),
            summary=found.finding.summary,
        ),
        planning=_planning(found.planning),
        quality=model.Quality(
            snr=_nonnegative(found.quality.snr, 2),
            coverage=model.Coverage(
                cranial=found.quality.coverage_cranial, caudal=found.quality.coverage_caudal
            ),
            warnings=_warnings(warnings),
        ),
        outputs=outputs or model.Outputs(),
        skipped_files=source.skipped,
        rejected=_rejected(analysis),
    )


def _rejected(results: Results) -> tuple[model.Rejected, ...]:
    """Return the rejected candidates, for review by the reader."""
    line = results.segmentation.centerline
    coordinate = LevelCoordinate.from_levels(results.levels, line)

    def rejected(c: Candidate) -> model.Rejected:
        arc_mm, left_mm, dorsal_mm = (float(mm) for mm in line.project(c.center_lps))
        lateral: Position = "left" if left_mm > 0 else "right"
        sagittal: Position = "dorsal" if dorsal_mm > 0 else "ventral"
        return model.Rejected(
            volume_ml=_nonnegative(c.volume_ml, _ML_DIGITS) or 0.0,
            center_lps_mm=_point(c.center_lps),
            level=coordinate.segment_at(arc_mm),
            position=lateral if abs(left_mm) > abs(dorsal_mm) else sagittal,
            probability=_fraction(c.probability),
            reason=c.reason,
            mimics=c.mimics,
        )

    left_out = (c for c in results.segmentation.candidates if not c.accepted)
    return tuple(
        rejected(c) for c in sorted(left_out, key=lambda c: (-c.probability, -c.volume_ml))
    )


def identity(info: StudyInfo, settings: Settings) -> model.StudyIdentity:
    """Return the study's identity according to the setting ``report.identity``.

    ``keep`` copies the header values. ``hash`` (the default) replaces the patient ID and the
    accession number by the first 16 hex digits of an HMAC-SHA256. If the environment variable
    ``LEAKLOC_IDENTITY_KEY`` is set, it is the key: a patient has the same pseudonym in all
    reports of the site, which cannot be computed without the key. Otherwise the key is the
    Study Instance UID: pseudonyms are reproducible within a study and not linkable between
    studies, but a guessed patient ID can be confirmed. ``remove`` writes null, including the
    study date. The Study Instance UID is always kept, as planning software needs it to find the
    images; if it must not be kept, de-identify the images first.
    """
    mode = settings.report.identity
    if mode == "keep":
        return model.StudyIdentity(
            study_instance_uid=info.study_instance_uid,
            study_date=info.study_date,
            accession_number=info.accession_number,
            patient_id=info.patient_id,
            identity=mode,
        )
    hashed = mode == "hash"
    return model.StudyIdentity(
        study_instance_uid=info.study_instance_uid,
        study_date=info.study_date if hashed else None,
        accession_number=_pseudonym(info.accession_number, info) if hashed else None,
        patient_id=_pseudonym(info.patient_id, info) if hashed else None,
        identity=mode,
    )


def _pseudonym(value: str | None, info: StudyInfo) -> str | None:
    if not value:
        return None
    key = os.environ.get(IDENTITY_KEY_VARIABLE) or info.study_instance_uid or ""
    return hmac.new(key.encode(), value.encode(), hashlib.sha256).hexdigest()[:16]


def _series(triage: Triage) -> tuple[model.Series, ...]:
    return tuple(_one_series(stack) for stack in triage.stacks)


def _one_series(triaged: TriagedStack) -> model.Series:
    stack = triaged.stack
    geometry = stack.geometry
    return model.Series(
        series_instance_uid=stack.series_instance_uid,
        description=stack.description,
        role=triaged.role,
        used_for=triaged.used_for,
        reason=triaged.reason,
        n_instances=stack.n_instances,
        shape=geometry.shape if geometry else None,
        spacing_mm=_point(geometry.spacing_kji_mm, 4) if geometry else None,
        notes=_warnings(stack.notes),
    )


def _levels(levels: Levels, conus: LocatedConus | None, scheme: LevelScheme) -> model.Levels:
    numbering = levels.numbering
    return model.Levels(
        status=levels.status,
        numbering=model.Numbering(
            method=numbering.method,
            assumption=numbering.assumption,
            confidence=_fraction(numbering.confidence),
            transitional_suspected=bool(numbering.transitional_suspected),
            lumbar_count=numbering.lumbar_count,
            alternatives=tuple(
                model.NumberingAlternative(
                    shift=a.shift, confidence=_fraction(a.confidence), reason=a.reason
                )
                for a in numbering.alternatives
            ),
        ),
        vertebrae=tuple(
            model.Vertebra(
                name=v.name,
                center_lps_mm=_rounded_point(v.center_lps),
                confidence=_fraction(v.confidence),
            )
            for v in levels.vertebrae
        ),
        discs=tuple(
            model.Disc(
                name=d.name,
                center_lps_mm=_rounded_point(d.center_lps),
                normal_lps=_rounded_point(d.normal_lps, _DIRECTION_DIGITS),
                confidence=_fraction(d.confidence),
            )
            for d in levels.discs
        ),
        label_values={
            v.name: scheme.values[v.name] for v in levels.vertebrae if v.name in scheme.values
        },
        conus=None
        if conus is None
        else model.Conus(lps_mm=_rounded_point(conus.point_lps), level=conus.level),
    )


def _sac(sac: LocatedSac) -> model.ThecalSac:
    return model.ThecalSac(
        volume_ml=_nonnegative(sac.volume_ml, _ML_DIGITS),
        csf_volume_ml=_nonnegative(sac.csf_volume_ml, _ML_DIGITS),
        caudal_end=model.CaudalEnd(lps_mm=_point(sac.caudal_end_lps), level=sac.caudal_end_level),
        by_segment=tuple(
            model.SacSegment(
                segment=s.segment,
                volume_ml=_nonnegative(s.volume_ml, _ML_DIGITS),
                min_area_mm2=_nonnegative(s.min_area_mm2),
                mean_area_mm2=_nonnegative(s.mean_area_mm2),
            )
            for s in sac.by_segment
        ),
    )


def _collection(c: LocatedCollection) -> model.Collection:
    fractions = c.position_fractions
    return model.Collection(
        id=c.id,
        level=c.level,
        level_set=c.level_set,
        alternatives=tuple(
            model.LevelAlternative(level=a.level, score=_fraction(a.score), basis=a.basis)
            for a in c.alternatives
        ),
        segments=c.segments,
        extent=model.Extent(
            cranial=_end(c.cranial), caudal=_end(c.caudal), length_mm=_nonnegative(c.length_mm)
        ),
        position=model.PositionFractions(
            label=c.position,
            dorsal=_fraction(fractions.get("dorsal", 0.0)),
            ventral=_fraction(fractions.get("ventral", 0.0)),
            left=_fraction(fractions.get("left", 0.0)),
            right=_fraction(fractions.get("right", 0.0)),
        ),
        compartments=c.compartments,
        pattern=c.pattern,
        volume_ml=_nonnegative(c.volume_ml, _ML_DIGITS),
        max_thickness_mm=_nonnegative(c.max_thickness_mm),
        max_area_mm2=_nonnegative(c.max_area_mm2),
        sac_compression=None
        if _finite(c.sac_compression) is None
        else _fraction(c.sac_compression or 0),
        centroid_lps_mm=_point(c.centroid_lps),
        epicenter_lps_mm=_point(c.epicenter_lps),
        confidence=_fraction(c.confidence),
        grade=c.grade,
        basis=c.basis,
        mimics_considered=c.mimics_considered,
        profile=_profile(c.profile),
    )


def _end(end: ExtentEnd) -> model.ExtentEnd:
    return model.ExtentEnd(
        lps_mm=_point(end.point_lps), segment=end.segment, description=end.description or None
    )


def _profile(profile: Profile) -> model.Profile:
    return model.Profile(
        arc_mm=tuple(round(float(a), _MM_DIGITS) for a in profile.arc_mm),
        thickness_mm=tuple(_finite(t, _MM_DIGITS) for t in profile.thickness_mm),
        area_mm2=tuple(_finite(a, _MM_DIGITS) for a in profile.area_mm2),
    )


def _expected_hiatus(expected: ExpectedHiatus | None) -> model.ExpectedHiatus | None:
    if expected is None:
        return None
    return model.ExpectedHiatus(
        level=expected.level,
        lps_mm=_rounded_point(expected.point_lps),
        cranial_lps_mm=_rounded_point(expected.cranial_lps),
        caudal_lps_mm=_rounded_point(expected.caudal_lps),
    )


def _range(range_mm: tuple[float, float] | None) -> tuple[float, float] | None:
    if range_mm is None or not all(map(math.isfinite, range_mm)):
        return None
    return round(float(range_mm[0]), _MM_DIGITS), round(float(range_mm[1]), _MM_DIGITS)


def _planning(planning: Planning) -> model.Planning:
    return model.Planning(
        sacral_hiatus=model.SacralHiatus(
            visible=bool(planning.hiatus.visible),
            lps_mm=_point(planning.hiatus.point_lps),
            confidence=_fraction(planning.hiatus.confidence),
            expected=_expected_hiatus(planning.hiatus.expected),
        ),
        targets=tuple(
            model.Target(
                collection=t.collection,
                level=t.level,
                canal_distance_from_hiatus_mm=_nonnegative(t.canal_distance_from_hiatus_mm),
                path_lps_mm=tuple(_rounded_point(p) for p in t.path_lps),
                nearest_interlaminar=t.nearest_interlaminar,
                canal_distance_range_mm=_range(t.canal_distance_range_mm),
                distance_to_caudal_end_mm=_finite(t.distance_to_caudal_end_mm, _MM_DIGITS),
                distance_to_cranial_end_mm=_finite(t.distance_to_cranial_end_mm, _MM_DIGITS),
                crossings=tuple(
                    model.Crossing(
                        disc=x.disc,
                        distance_from_hiatus_mm=round(float(x.distance_from_hiatus_mm), _MM_DIGITS),
                    )
                    for x in t.crossings
                ),
                interlaminar=tuple(
                    model.InterlaminarWindow(
                        segment=w.segment,
                        along_canal_mm=round(float(w.along_canal_mm), _MM_DIGITS),
                        skin_to_canal_mm=_nonnegative(w.skin_to_canal_mm),
                    )
                    for w in t.interlaminar
                ),
                narrowest_posterior_depth=None
                if t.narrowest_depth is None
                else model.NarrowestDepth(
                    depth_mm=round(float(t.narrowest_depth.depth_mm), _MM_DIGITS),
                    lps_mm=_rounded_point(t.narrowest_depth.point_lps),
                    level=t.narrowest_depth.level,
                ),
                cysts=tuple(
                    model.CystOnPath(
                        volume_ml=round(float(c.volume_ml), _ML_DIGITS),
                        center_lps_mm=_rounded_point(c.center_lps),
                    )
                    for c in t.cysts
                ),
            )
            for t in planning.targets
        ),
        sac_tip_to_hiatus_mm=_finite(planning.sac_tip_to_hiatus_mm, _MM_DIGITS),
    )


def _warnings(notes: Iterable[Note]) -> tuple[model.Warning_, ...]:
    """Remove duplicate warnings: stages pass on the notes of earlier stages."""
    unique = dict.fromkeys(
        (re.sub(r"[^a-z0-9]+", "_", note.code.lower()).strip("_") or "note", note.message)
        for note in notes
    )
    return tuple(model.Warning_(code=code, message=message) for code, message in unique)


def _skipped(files: Iterable[SkippedFile]) -> tuple[model.SkippedFiles, ...]:
    counts = Counter(file.reason for file in files)
    return tuple(
        model.SkippedFiles(reason=reason, count=count) for reason, count in counts.most_common()
    )


def _finite(value: float | None, digits: int = _MM_DIGITS) -> float | None:
    """Return the rounded value, or None if it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), digits)


def _nonnegative(value: float | None, digits: int = _MM_DIGITS) -> float | None:
    known = _finite(value, digits)
    return None if known is None or known < 0 else known


def _fraction(value: float) -> float:
    """Clip to 0..1; None, NaN and infinite values become 0."""
    known = _finite(value, _FRACTION_DIGITS)
    return 0.0 if known is None else min(max(known, 0.0), 1.0)


def _point(point: npt.ArrayLike | None, digits: int = _MM_DIGITS) -> model.Point | None:
    if point is None:
        return None
    x, y, z = _floats(point)
    if not all(map(math.isfinite, (x, y, z))):
        return None
    return round(x, digits), round(y, digits), round(z, digits)


def _rounded_point(point: npt.ArrayLike, digits: int = _MM_DIGITS) -> model.Point:
    x, y, z = _floats(point)
    return round(x, digits), round(y, digits), round(z, digits)


def _floats(point: npt.ArrayLike) -> list[float]:
    import numpy as np

    return [float(value) for value in np.asarray(point, dtype=np.float64).ravel()]
