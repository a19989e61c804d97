"""List the series of a study as plain rows, for manual selection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leakloc.core.errors import InputError
from leakloc.loaders.roles import roles
from leakloc.loaders.study import Study, TriagedStack
from leakloc.loaders.triage import triage

if TYPE_CHECKING:
    from leakloc.core.settings import LoaderSettings


def series_table(
    study: Study,
    settings: LoaderSettings,
    *,
    myelogram_uid: str | None = None,
    companion_uids: Sequence[str] = (),
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """List every stack with its role, and every skipped file, each with the reason.

    A study that `triage` rejects is also listed, with no series marked as used.

    Returns
    -------
    rows : list of dict
        JSON-ready, one per stack in scanner order.
    skipped : list of dict
        File name and reason.

    Raises
    ------
    InputError
        If a series specified by the caller cannot be used.
    """
    try:
        stacks = triage(
            study,
            settings,
            myelogram_uid=myelogram_uid,
            companion_uids=companion_uids,
            verify=False,
        ).stacks
    except InputError:
        if myelogram_uid is not None or companion_uids:
            raise
        stacks = roles(study, settings)
    skipped = [{"file": item.path.name, "reason": item.reason} for item in study.skipped]
    return [_row(item) for item in stacks], skipped


def _row(item: TriagedStack) -> dict[str, Any]:
    stack, geometry = item.stack, item.stack.geometry
    return {
        "series": stack.series_number,
        "series_instance_uid": stack.series_instance_uid,
        "role": item.role,
        "used_for": list(item.used_for),
        "description": stack.description,
        "n_instances": stack.n_instances,
        "shape": None if geometry is None else list(geometry.shape),
        "spacing_mm": None if geometry is None else list(geometry.spacing_ijk_mm),
        "reason": item.reason,
        "score": round(item.score, 2),
        "heaviness": None if item.heaviness is None else round(item.heaviness, 3),
        "notes": [f"{note.code}: {note.message}" for note in stack.notes],
    }
