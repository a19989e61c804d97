"""Masks as a BIDS derivative dataset: file names, label tables and metadata.

https://bids-specification.readthedocs.io/en/stable/derivatives/imaging.html#segmentations
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from leakloc.anatomy.vocabulary import NOTICE
from leakloc.report.label_files import dseg_table, mask_labels

if TYPE_CHECKING:
    from leakloc.core.settings import ReportSettings
    from leakloc.core.volume import Volume
    from leakloc.report.model import Report

ROOT: Final = "derivatives/leakloc"
"""Folder of the dataset in the report folder."""

_BIDS_VERSION: Final = "1.10.0"
_LABEL_DIGITS: Final = 8
"""Hexadecimal digits of a computed subject label: no collision is expected in 10 000 studies."""
_DESCRIPTIONS: Final = {"thecal_sac": "sac", "epidural_fluid": "fluid", "levels": "levels"}
"""Values of the entity `desc` by the name of the mask."""


def subject_label(report: Report, settings: ReportSettings, sac: Volume) -> str:
    """Return the label of the subject: the setting, or a hash without patient data.

    The hash is of the Study Instance UID; of the mask of the sac if there is none.
    """
    if settings.bids_subject:
        return settings.bids_subject
    uid = report.study.study_instance_uid
    content = sac.array.tobytes() if uid is None else uid.encode()
    return hashlib.sha256(content).hexdigest()[:_LABEL_DIGITS]


def mask_stems(report: Report, settings: ReportSettings, sac: Volume) -> dict[str, str]:
    """Return the path of each mask in the report folder, without suffix and extension."""
    entities = [f"sub-{subject_label(report, settings, sac)}"]
    if settings.bids_session:
        entities.append(f"ses-{settings.bids_session}")
    folder, name = "/".join([ROOT, *entities, "anat"]), "_".join(entities)
    return {mask: f"{folder}/{name}_desc-{desc}" for mask, desc in _DESCRIPTIONS.items()}


def text_files(report: Report, stems: dict[str, str]) -> dict[str, str]:
    """Return the text files of the dataset by their path in the report folder.

    Parameters
    ----------
    report : Report
    stems : dict
        Paths of the masks, as from `mask_stems`.
    """
    description = {
        "Name": "Thecal sac, epidural fluid and vertebral levels",
        "BIDSVersion": _BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": report.generator.name, "Version": report.generator.version}],
    }
    files = {
        f"{ROOT}/dataset_description.json": _json(description),
        f"{ROOT}/README": f"Masks written by leakloc. {NOTICE}\n",
    }
    for mask, labels in mask_labels(report).items():
        files[f"{stems[mask]}_dseg.tsv"] = dseg_table(labels)
        files[f"{stems[mask]}_dseg.json"] = _json({"Description": NOTICE})
    return files


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2) + "\n"
