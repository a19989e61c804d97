"""The text of every warning: one table, read by the stages, the documentation and translators.

A code is part of the report format: it is never renamed. A text is one sentence without patient
data; values are inserted by `str.format`, which also rounds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Message:
    """Text and properties of a warning code.

    Parameters
    ----------
    text : str or mapping
        Template with named placeholders, or several templates by the name of the variant.
    advice : str, optional
        What the reader can do, if the text does not say it; shown in the documentation.
    precludes_finding : bool, optional
        Whether the input cannot show epidural fluid: no finding is definite.
    precludes_absence : bool, optional
        Whether fluid may be hidden: the finding is not ``absent``.
    is_incomplete : bool, optional
        Whether a considerable part of the myelogram was not analyzed: the finding is
        ``indeterminate``.
    excludes_series : bool, optional
        Whether the series is excluded regardless of its name and contrast.
    concerns_images : bool, optional
        Whether it is about the figures, the HTML report or the DICOM objects.
    """

    text: str | Mapping[str, str] = ""
    advice: str = ""
    precludes_finding: bool = False
    precludes_absence: bool = False
    is_incomplete: bool = False
    excludes_series: bool = False
    concerns_images: bool = False

    @property
    def templates(self) -> Mapping[str, str]:
        """Templates by variant; the only one of a message without variants is ``""``."""
        return {"": self.text} if isinstance(self.text, str) else self.text


_TRANSFER: Final = "Transfer the series again if the scanner has all slices."
_SINGLE_SLICES: Final = {
    "": "{slices} slice(s) in {orientations} orientation(s): fewer than {min_slices} parallel "
    "slices do not form a volume",
    "gaps": "{slices} slice(s) in {orientations} orientation(s): fewer than {min_slices} parallel "
    "slices between gaps do not form a volume",
}
_CHECK_COMPANION: Final = "Compare the reported levels with the images of that series."


def _not_written(what: str, *, concerns_images: bool = True) -> Message:
    return Message(
        f"The {what} could not be written ({{error}}); the rest of the report is complete.",
        "Run the analysis again; report the error if it persists.",
        concerns_images=concerns_images,
    )


_LOADERS: Final = {
    "ambiguous_positions": Message(
        "several different images have the same position and cannot be distinguished",
        "Export each repetition as a separate series.",
    ),
    "archives_not_read": Message(
        "{count} archive(s) in the folder were not read, because it contains images",
        "Extract them, or analyze them separately.",
    ),
    "bad_orientation": Message(
        "the Image Orientation is not a pair of orthogonal unit vectors",
    ),
    "burned_in_annotation": Message(
        "{count} image(s) are marked as having burned-in text",
        "Check the images for patient data before sharing figures or DICOM objects.",
    ),
    "color_image": Message(
        "color images are screenshots or maps, not MR signal",
        excludes_series=True,
    ),
    "companion_alignment_unverified": Message(
        "the position of the {series} relative to the myelogram could not be verified in the "
        "images ({reason}); the position in the header was used",
        _CHECK_COMPANION,
    ),
    "companion_frame_assumed": Message(
        "the {series} file has no frame of reference; as it overlaps the myelogram, it was assumed "
        "to have the same coordinate system",
        _CHECK_COMPANION,
    ),
    "companion_frame_confirmed": Message(
        "the {series} has a different frame of reference from the myelogram, but both images agree "
        "at the positions stated in the headers; it was used without registration",
    ),
    "companion_moved": Message(
        "the patient moved by up to {moved_mm:.1f} mm between the {series} and the myelogram; it "
        "was registered rigidly (parts of the canal agree within {residual_mm:.1f} mm)",
        _CHECK_COMPANION,
    ),
    "companion_not_fused": Message(
        "the {series} is not aligned with the myelogram as its header states, and no rigid "
        "registration fits ({reason}); it was not used",
    ),
    "companion_other_frame": Message(
        {
            "not_registered": "the {series} has a different frame of reference from the myelogram "
            "and could not be registered: {reason}; it was not used",
            "not_used": "the {series} has a different frame of reference from the myelogram, so it "
            "was not used",
        },
    ),
    "companion_registered": Message(
        "the {series} has another frame of reference; it was registered rigidly to the myelogram "
        "(parts of the canal agree within {residual_mm:.1f} mm)",
        _CHECK_COMPANION,
    ),
    "companion_stations_stitched": Message(
        "{count} stations of the {series} series were composed to count the levels: movement of up "
        "to {moved_mm:.1f} mm between stations corrected",
    ),
    "decimal_comma": Message(
        "{count} image(s) have decimal commas in numbers of the header (the standard requires "
        "points); they were read as decimal points",
        "Verify the dimensions of the images.",
    ),
    "duplicate_instances": Message(
        "{count} duplicate file(s) were ignored",
    ),
    "duplicate_slices": Message(
        "{count} duplicate slice(s) with other instance UIDs were ignored",
    ),
    "end_slices_may_be_missing": Message(
        "the header states {stated} images, but {present} exist: slices may be missing at an end",
        _TRANSFER,
    ),
    "frame_of_reference_varies": Message(
        "the slices have {count} different Frame of Reference UIDs, although they form one regular "
        "stack; they were used as one",
    ),
    "instance_uids_not_unique": Message(
        "{count} different images have SOP Instance UIDs that are not unique; all were used",
        "Correct the anonymization: DICOM objects of the report refer to images by their UID.",
    ),
    "intrathecal_contrast": Message(
        "series {series} is not used: {reason}",
        "Compare it with the reported collections; contrast outside the sac is not analyzed.",
    ),
    "irregular_geometry": Message(
        "{error}",
    ),
    "mask_resampled": Message(
        {
            "inside": "the {mask} has another grid ({spacing} mm) and was resampled by nearest "
            "neighbor",
            "partly_outside": "the {mask} has another grid ({spacing} mm) and was resampled by "
            "nearest neighbor; {outside:.0%} of it lies outside the {onto} and was ignored",
        },
        "Draw the mask on the grid of the myelogram to preserve its outline.",
    ),
    "missing_slices": Message(
        "{missing} of {total} slices are missing: {gaps}; they were interpolated from adjacent "
        "slices",
        _TRANSFER,
    ),
    "mixed_slopes": Message(
        "some slices have a Rescale Slope and others have none or zero, so their signal cannot be "
        "compared",
        "Export the series again.",
    ),
    "mixed_orientations": Message(_SINGLE_SLICES),
    "mosaic": Message(
        "a Siemens mosaic (diffusion or functional series) is not supported",
        excludes_series=True,
    ),
    "myelogram_not_used": Message(
        "series {series} appears to be a myelogram by its {evidence}, but was not used: {reason}",
        "Correct or export the series again, or select it by its number if it is usable.",
    ),
    "nifti_forms_disagree": Message(
        "qform and sform of the NIfTI header disagree by up to {distance_mm:.0f} mm; the sform was "
        "used",
        "Compare the positions with the DICOM series, or delete the incorrect form.",
    ),
    "no_myelogram": Message(
        "no heavily T2-weighted series was found; a conventional fluid-sensitive volume was used "
        "instead, {identification}{fat}",
        "Select a fat-suppressed, heavily T2-weighted series, if the study has one.",
        precludes_finding=True,
    ),
    "no_pixel_spacing": Message(
        "no Pixel Spacing: lengths cannot be measured",
    ),
    "no_position": Message(
        "no Image Position or Orientation: slices cannot be positioned",
    ),
    "one_of_several_stations": Message(
        "{count} stations do not overlap; the most caudal one was analyzed",
        "Analyze the other stations separately by their series number.",
    ),
    "orientation_varies": Message(
        "the orientation of the slices varies by {degrees:.2f} degrees; they were used as parallel",
    ),
    "private_scale": Message(
        "slices had different private scales, which were removed",
    ),
    "repetitions": Message(
        {
            "": "{count} repetitions of the same slices were separated",
            "versions": "{count} versions of the same slices were separated by {attribute}",
        },
    ),
    "secondary_capture": Message(
        "the SOP Class of the images is Secondary Capture, which has no position in the patient",
        "Export the original MR images.",
        excludes_series=True,
    ),
    "series_incomplete": Message(
        "{left} of {total} slices of series {series} were not used ({reason}); the finding is "
        "indeterminate",
        "Transfer or export the series again; report the error if the series is complete.",
        is_incomplete=True,
    ),
    "series_partly_used": Message(
        {
            "": "{left} of {total} images of series {series} were not used ({reason})",
            "versions": "{left} of {total} images of series {series} were not used: other "
            "versions (echoes, image types or repetitions) of the slices used",
        },
        "Select other images of the series by exporting them as a separate series.",
    ),
    "sheared_stack": Message(
        "slices are sheared by {degrees:.1f} degrees; they were resampled to an orthogonal grid",
    ),
    "slope_ignored": Message(
        "{count} of {total} images have a Rescale Slope of zero or none that is a number; their "
        "stored values were used",
    ),
    "split_at_gap": Message(
        "slices are missing over up to {widest_mm:.3g} mm (step {step_mm:.3g} mm), which is too "
        "wide to interpolate; the series was split into {parts} parts",
        _TRANSFER,
    ),
    "stations_stitched": Message(
        "{count} stations of one myelogram were composed: gains matched, movement of up to "
        "{moved_mm:.1f} mm between stations corrected",
    ),
    "steady_state_myelogram": Message(
        "the myelogram is a balanced steady-state series, on which fat is also bright",
        "Compare collections with a fat-suppressed series.",
    ),
    "too_few_slices": Message(_SINGLE_SLICES, _TRANSFER),
    "truncated_slices": Message(
        "{truncated} of {total} images are truncated and treated as missing; transfer the series "
        "again",
    ),
    "uneven_spacing": Message(
        "the slice spacing varies from {min_mm:.3g} to {max_mm:.3g} mm; the slices were "
        "interpolated to a {spacing_mm:.3g} mm grid",
    ),
    "units_converted": Message(
        "the lengths in the header are stated in {unit} and were converted to mm",
    ),
    "unreadable": Message(
        "no image is complete",
        _TRANSFER,
    ),
    "weak_t2_weighting": Message(
        "the series named myelography has the tissue signal of conventional T2 images",
        "Compare collections with a fat-suppressed series.",
    ),
}

_SEGMENTATION: Final = {
    "bright_tissue": Message(
        "Marrow and muscle are bright on this series (short echo time) although its header states "
        "fat suppression: fluid is distinguished from them by signal alone.",
        "Verify collections adjacent to bone or muscle.",
    ),
    "canal_not_found": Message(
        "No canal was detected on the myelogram; its centerline follows the supplied sac.",
    ),
    "fat_like_fluid": Message(
        "Soft tissue and fat are bright, as on conventional T2: fluid outside the dura cannot be "
        "distinguished from fat.",
        "Select a fat-suppressed series, if the study has one.",
        precludes_absence=True,
    ),
    "fat_not_suppressed": Message(
        "Fat has {fraction:.0%} of the signal of CSF: only clearly brighter signal is classified "
        "as fluid.",
        "Verify collections against epidural fat.",
    ),
    "fluid_given": Message(
        "the epidural fluid was taken from a supplied mask, not segmented by leakloc",
    ),
    "given_fluid_dim": Message(
        "{count} supplied collection(s) have only {fractions} of the CSF signal on the myelogram "
        "and were counted by whole voxels; check that the mask belongs to this study",
    ),
    "masks_overlap": Message(
        "{fraction:.0%} of the supplied fluid lay inside the sac and was counted as fluid",
    ),
    "sac_given": Message(
        "the thecal sac was taken from a supplied mask, not segmented by leakloc",
    ),
    "sac_mask_dim": Message(
        "only {fraction:.0%} of the supplied sac is as bright as fluid on the myelogram: check "
        "that it belongs to this study and that left and right are correct",
    ),
    "sac_tip_outside": Message(
        "The caudal end of the thecal sac lies outside the field of view.",
    ),
    "too_many_pieces": Message(
        "the supplied fluid has {count} components; the 255 largest were used",
        "Remove small components from the mask, or give each collection its own label.",
    ),
    "signal_saturated": Message(
        "{fraction:.0%} of the thecal sac has the maximum signal of the image (saturated): the "
        "dura adjacent to fluid may be invisible, and extent and volume of fluid wrong.",
        "Use the original images, not an export with a limited gray scale.",
    ),
}

_LEVELS: Final = {
    "companion_in_other_frame": Message(
        "The {role} series has a different frame of reference from the myelogram and was not used "
        "for level detection.",
    ),
    "corrections_not_compared": Message(
        "Corrections of an earlier report were applied; their file contains no positions to verify "
        "that levels and collections have the same names and numbers as in that report.",
        "Compare the level names and the collections with those of the earlier report.",
    ),
    "counted_on_localizer": Message(
        "Levels above the other series were counted on a localizer or another low-resolution "
        "series: verify the count on it.",
    ),
    "detector_failed": Message(
        "{error}; discs were detected by the profile detector: level names are often wrong",
    ),
    "doubtful_count": Message(
        "The count from C2 skipped {structures} more disc-like structure(s): it may be off by one "
        "or more levels; verify it on a sagittal series.",
    ),
    "level_map_empty": Message(
        "The supplied levels include no level map; the map of this report is empty.",
    ),
    "levels_given": Message(
        {
            "map": "The levels are from a supplied map ({scheme}).",
            "list": "The levels are from a supplied list.",
        },
    ),
    "levels_not_found": Message(
        "No chain of discs was detected: no level is named.",
        "Include a sagittal T1 or T2 series, or supply the levels.",
    ),
    "localizer_without_c2": Message(
        "C2 was not identified on the localizer, which extends above the other series: a count "
        "down from C2 on it would distinguish four or six lumbar vertebrae from five.",
    ),
    "no_anchor": Message(
        "Neither C2 nor the lumbosacral disc was identified in the field of view: levels are named "
        "by vertebral size alone and may be off by several levels.",
        "Label a disc (`--anchor`) or include a series that shows C2 or the sacrum.",
    ),
    "sacrum_cut": Message(
        "The field of view ends {below_mm:.0f} mm below the presumed lumbosacral disc: too little "
        "of the sacrum is visible to confirm it.",
        "Verify the lumbosacral disc on a series that shows the sacrum.",
    ),
    "transitional_suspected": Message(
        {
            "": "A transitional vertebra or another number of lumbar vertebrae is possible; verify "
            "the numbering on a series that includes C2.",
            "signs": "A transitional vertebra or another number of lumbar vertebrae is possible "
            "({signs}); verify the numbering on a series that includes C2.",
            "counted": "Counting from C2 gives {lumbar} lumbar vertebrae: counting up from the "
            "sacrum gives other names; state the reference when communicating a level.",
        },
    ),
}

_LOCALIZATION: Final = {
    "collection_reaches_field_edge": Message(
        "Collection {id} reaches the {end} end of the field of view and may extend beyond it.",
    ),
    "cyst_on_path": Message(
        {
            "one": "1 cyst-like structure in the sacral canal between the end of the thecal sac "
            "and the hiatus.",
            "several": "{count} cyst-like structures in the sacral canal between the end of the "
            "thecal sac and the hiatus.",
        },
    ),
    "hiatus_from_levels": Message(
        "The sacral hiatus was not detected. Distances are measured from S4, its level in two of "
        "three people; their range is for a hiatus between the middle of S3 and the end of S5.",
    ),
    "hiatus_not_visible": Message(
        "The sacral hiatus was not detected or lies outside the field of view; distances from it "
        "are not reported.",
    ),
    "path_implausible": Message(
        "The canal from the sacral hiatus to {disc} measures {length_mm:.0f} mm (mean in adults "
        "{mean_mm:.0f} mm): the level numbering or the position of the hiatus may be wrong.",
        "Verify the numbering of the levels and the position of the hiatus.",
    ),
    "second_myelogram_additional": Message(
        {
            "": "A second myelogram shows {volume_ml:.1f} mL of fluid at {place} that was not "
            "detected on the first.",
            "outside": "A second myelogram shows {volume_ml:.1f} mL of fluid at {place}, outside "
            "the field of view of the first.",
        },
        "Compare both myelograms there; select the second by its number to analyze it.",
    ),
    "sac_interrupted": Message(
        "The thecal sac is hardly visible at {segments}: severe stenosis or a signal void. Its "
        "outline there is inferred from the levels above and below.",
    ),
    "sac_not_followed": Message(
        "The thecal sac could not be followed caudal to {segments}, although it usually ends "
        "between L5-S1 and S3: severe stenosis, a signal void or incorrect level numbering. Fluid "
        "caudal to {segments} may be missed.",
        "Compare the caudal end of the sac with a sagittal series; supply a corrected mask "
        "(`--sac`) or verify the numbering.",
    ),
    "sac_unusually_wide": Message(
        "The thecal sac is unusually wide at {segments}: adjacent fluid may be included in its "
        "segmentation.",
        "Check the outline of the thecal sac there; supply a corrected mask (`--sac`).",
    ),
}

_REPORT: Final = {
    "no_dicom_source": Message(
        "No DICOM objects were created, as the myelogram is not a DICOM series.",
        concerns_images=True,
    ),
    "pictures_removed": Message(
        "The levels were renumbered without the images: figures and DICOM objects with the "
        "previous names were removed. leakloc relabel --study recreates them.",
        concerns_images=True,
    ),
    "caudal_sheet_not_written": _not_written("caudal access sheet", concerns_images=False),
    "dicom_captures_not_written": _not_written("DICOM secondary captures"),
    "dicom_objects_not_written": _not_written("DICOM objects"),
    "dicom_segmentation_not_written": _not_written("DICOM segmentation"),
    "dicom_structured_report_not_written": _not_written("DICOM structured report"),
    "masks_not_written": _not_written("masks", concerns_images=False),
    "overlays_not_written": _not_written("overlays"),
    "page_3d_not_written": _not_written("3D viewer"),
    "page_not_written": _not_written("HTML report"),
    "pdf_not_written": _not_written("PDF of the figures"),
    "pictures_not_written": _not_written("figures"),
    "relabel_file_not_written": _not_written("relabel file", concerns_images=False),
    "tables_not_written": _not_written("tables", concerns_images=False),
    "markups_not_written": _not_written("markups", concerns_images=False),
    "bids_not_written": _not_written("BIDS derivatives", concerns_images=False),
    "fhir_not_written": _not_written("FHIR bundle", concerns_images=False),
    "viewer_not_written": _not_written("viewer"),
}

MESSAGES: Final[Mapping[str, Message]] = {
    **_LOADERS,
    **_SEGMENTATION,
    **_LEVELS,
    **_LOCALIZATION,
    **_REPORT,
}
"""Messages by code. A plug-in may use other codes; see `leakloc.core.notes.Note`."""
