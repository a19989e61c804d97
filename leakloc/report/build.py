"""Build the report (`leakloc.report.model`) from the results of all stages."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from leakloc.analysis import AnalysisData
from leakloc.anatomy.vocabulary import NOTICE, lateral_side, quadrant
from leakloc.core.notes import Note
from leakloc.core.version import __version__
from leakloc.levels.schemes import LevelScheme, level_scheme
from leakloc.localization.coordinate import LevelCoordinate
from leakloc.report import model
from leakloc.report.usage import Usage, selections_of, usage_of

if TYPE_CHECKING:
    from leakloc.core.settings import Settings
    from leakloc.levels.result import Levels
    from leakloc.loaders.study import SkippedFile, StudyInfo, TriagedStack
    from leakloc.localization.result import Conus, Localization
    from leakloc.segmentation.result import Candidate, Segmentation

IDENTITY_KEY_VARIABLE: Final = "LEAKLOC_IDENTITY_KEY"
"""Environment variable with the pseudonym key; not a setting, as reports contain all settings."""

_SPACING_DIGITS: Final = 4
"""Digits of voxel spacings in mm."""


def build_report(
    analysis: AnalysisData,
    *,
    outputs: model.Outputs | None = None,
    notes: Iterable[Note] = (),
    runtime_s: Mapping[str, float] | None = None,
    created: datetime | None = None,
    corrections: tuple[model.Corrections, ...] = (),
) -> model.Report:
    """Build the report from the results of all stages.

    Parameters
    ----------
    analysis : AnalysisData
        Results of all stages.
    outputs : Outputs, optional
        Files written with the report; none if omitted.
    notes : iterable of Note
        Further warnings, for example from failed writers.
    runtime_s : mapping, optional
        Run time in seconds of further steps, by name.
    created : datetime, optional
        Defaults to the current time.
    corrections : tuple of Corrections
        Corrections by readers that the results contain.

    Returns
    -------
    Report
        Unknown, NaN and infinite values are None (0 for confidences).
    """
    study, triage, settings = analysis.study, analysis.triage, analysis.settings
    parts = result_parts(
        analysis.segmentation,
        analysis.levels,
        analysis.localization,
        settings,
        input_notes=(*triage.notes, *study.notes),
        notes=notes,
        runtime_s={**analysis.runtime_s, **(runtime_s or {})},
        created=created,
    )
    return model.Report(
        notice=NOTICE,
        study=identity(study.info, settings),
        series=_series(analysis),
        skipped_files=_skipped(study.skipped),
        outputs=outputs or model.Outputs(),
        corrections=corrections,
        **parts,
    )


def result_parts(
    segmentation: Segmentation,
    levels: Levels,
    localization: Localization,
    settings: Settings,
    *,
    input_notes: Iterable[Note],
    notes: Iterable[Note],
    runtime_s: Mapping[str, float],
    created: datetime | None = None,
) -> dict[str, Any]:
    """Return the parts of the report that depend on the results of the stages, by name.

    Parameters
    ----------
    input_notes : iterable of Note
        Warnings from reading the study and selecting its series.
    notes : iterable of Note
        Further warnings.
    runtime_s : mapping
        Run time in seconds by stage.
    created : datetime, optional
        Defaults to the current time.
    """
    warnings = (*input_notes, *segmentation.notes, *levels.notes, *localization.notes, *notes)
    return {
        "generator": model.Generator(
            name="leakloc",
            version=__version__,
            created=(created or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            config=settings.model_dump(mode="json"),
            config_sha256=settings.sha256,
            runtime_s={
                "total": round(sum(runtime_s.values()), 3),
                **{name: round(seconds, 3) for name, seconds in runtime_s.items()},
            },
        ),
        "levels": _levels(levels, localization.conus, level_scheme(settings.report.level_scheme)),
        "thecal_sac": localization.thecal_sac,
        "collections": localization.collections,
        "fluid_by_segment": localization.fluid_by_segment,
        "finding": localization.finding,
        "planning": localization.planning,
        "postoperative": localization.postoperative,
        "quality": model.Quality(
            snr=localization.snr, coverage=localization.coverage, warnings=_warnings(warnings)
        ),
        "rejected": _rejected(segmentation, levels),
    }


def _rejected(segmentation: Segmentation, levels: Levels) -> tuple[model.Rejected, ...]:
    """Return the rejected candidates, for review by the reader."""
    line = segmentation.centerline
    coordinate = LevelCoordinate.from_levels(levels, line)

    def rejected(c: Candidate) -> model.Rejected:
        arc_mm, left_mm, dorsal_mm = (float(mm) for mm in line.project(c.center_lps))
        return model.Rejected(
            volume_ml=c.volume_ml,
            center_lps_mm=c.center_lps,
            level=coordinate.nearest_segment(arc_mm),
            position=quadrant(left_mm, dorsal_mm),
            side=lateral_side(left_mm),
            probability=c.probability,
            reason=c.reason,
            mimics=c.mimics,
        )

    left_out = (c for c in segmentation.candidates if not c.accepted)
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


def _series(analysis: AnalysisData) -> tuple[model.Series, ...]:
    basis, triage = analysis.basis, analysis.triage
    selections = selections_of(triage) if basis is None else basis.series
    landmarks = None if basis is None else basis.landmarks
    usages = (usage_of(s, analysis.levels, analysis.localization, landmarks) for s in selections)
    return tuple(
        _one_series(stack, usage, analysis.settings)
        for stack, usage in zip(triage.stacks, usages, strict=True)
    )


def _one_series(triaged: TriagedStack, usage: Usage, settings: Settings) -> model.Series:
    stack = triaged.stack
    geometry = stack.geometry
    # Without DICOM headers the description is the name of the file, which may name the patient.
    named = stack.series_instance_uid is not None or settings.report.identity == "keep"
    description = stack.description if named else ""
    return model.Series(
        series_instance_uid=stack.series_instance_uid,
        description=description,
        role=triaged.role,
        used_for=usage.used_for,
        contribution=usage.contribution,
        reason=triaged.reason,
        n_instances=stack.n_instances,
        shape=geometry.shape if geometry else None,
        spacing_mm=tuple(round(mm, _SPACING_DIGITS) for mm in geometry.spacing_kji_mm)
        if geometry
        else None,
        notes=_warnings(stack.notes),
    )


def _levels(levels: Levels, conus: Conus | None, scheme: LevelScheme) -> model.Levels:
    numbering = levels.numbering
    return model.Levels(
        status=levels.status,
        numbering=model.Numbering(
            method=numbering.method,
            assumption=numbering.assumption,
            confidence=numbering.confidence,
            transitional_suspected=bool(numbering.transitional_suspected),
            lumbar_count=numbering.lumbar_count,
            alternatives=tuple(
                model.NumberingAlternative(shift=a.shift, confidence=a.confidence, reason=a.reason)
                for a in numbering.alternatives
            ),
        ),
        vertebrae=tuple(
            model.Vertebra(name=v.name, center_lps_mm=v.center_lps, confidence=v.confidence)
            for v in levels.vertebrae
        ),
        discs=tuple(
            model.Disc(
                name=d.name,
                center_lps_mm=d.center_lps,
                normal_lps=d.normal_lps,
                confidence=d.confidence,
            )
            for d in levels.discs
        ),
        label_values={
            v.name: scheme.values[v.name] for v in levels.vertebrae if v.name in scheme.values
        },
        conus=conus,
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
