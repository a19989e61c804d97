"""Settings of all stages as one typed (pydantic) model.

Each field has its unit in the name, a default, and the reason for the default. A recipe is a TOML
file with the same sections; settings that it omits keep their defaults. The settings of a run are
written to its report, so that it can be reproduced.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from leakloc.core.errors import OutputError, SettingsError


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class StageSettings(_Section):
    """Implementation (plug-in) of each replaceable stage."""

    segmenter: str = "leakloc"
    """Name of a plug-in registered under the entry-point group `leakloc.segmenters`."""
    labeler: str = "leakloc"
    """Name of a plug-in registered under the entry-point group `leakloc.labelers`."""


class LoaderSettings(_Section):
    """Reading files and choosing series."""

    orientation_tolerance: float = Field(1e-3, gt=0, le=0.02)
    """Maximum difference between direction cosines of the slices of one stack, and maximum in-plane
    drift per millimeter along the normal. Scanner jitter is 1e-5; 1e-3 corresponds to 0.06
    degrees."""
    spacing_tolerance: float = Field(0.05, gt=0, le=0.3)
    """Maximum deviation of a slice position from a regular grid, as a fraction of the spacing, that
    is accepted without interpolation; positions are written with two or three decimals."""
    gap_factor: float = Field(1.5, ge=1.2, le=1.9)
    """A distance between slices above this multiple of the usual spacing indicates missing slices;
    1.5 is halfway between one and two spacings."""
    max_bridged_gap_mm: float = Field(3.0, ge=0, le=10)
    """Maximum distance between slices around a gap that is interpolated; a larger gap splits the
    stack. A collection thinner than this could be missed in the gap."""
    min_slices: int = Field(3, ge=2, le=50)
    """Minimum number of parallel slices of a volume."""
    slab_thickness_mm: float = Field(15.0, ge=5, le=100)
    """Slices of at least this thickness are projections (thick-slab myelography: 20 to 60 mm),
    which are not used for levels or volumes."""
    slab_max_slices: int = Field(24, ge=1, le=200)
    """Maximum number of images of a thick-slab series; radial protocols acquire 6 to 16 angles."""
    heavy_echo_time_ms: float = Field(400.0, ge=200, le=2000)
    """Minimum echo time of a spin-echo series considered for myelography. With variable flip angles
    (3D) the nominal echo time is not conclusive, so the T2 weighting is verified on the pixel
    data."""
    heavy_body_ratio: float = Field(0.15, gt=0, lt=1)
    """Maximum ratio of the 80th to the 99.5th percentile of the signal in the central field of view
    for heavy T2 weighting; tissue has 0 to 17 % of the signal of fluid (heavy spin echo to 3D turbo
    spin echo)."""
    conventional_body_ratio: float = Field(0.21, gt=0, lt=1)
    """Minimum value of the same ratio for conventional T2 weighting; 24 public lumbar T2 SPACE
    volumes have 0.22 to 0.83."""
    fluid_dark_below: float = Field(1.0, gt=0, lt=3)
    """Ratio of canal to vertebral body signal below which a series without a DICOM header is
    classified as T1-weighted: 0.4 to 0.5 on T1 of phantoms, 2.2 and more on T2 and STIR of phantoms
    and patients."""
    fine_voxel_mm: float = Field(1.2, gt=0, le=3)
    """Maximum voxel edge length of a volume that resolves thin collections in all directions."""
    max_station_movement_mm: float = Field(5.0, ge=0, le=20)
    """Maximum patient movement between overlapping stations that is corrected before they are
    composed (0 to 3 mm is usual); larger movement is not corrected and remains visible as a
    step."""
    verify_companions: bool = True
    """Whether companion series in the myelogram's frame of reference are checked for patient
    movement between series; takes about half a second per series."""
    companion_moved_mm: float = Field(2.0, ge=0.5, le=20)
    """Minimum movement relative to the myelogram at which a companion series is registered; unmoved
    phantoms show up to 0.8 mm. If the mean voxel edge is larger than this, movement below the mean
    voxel edge is ignored."""
    alignment_search_mm: float = Field(40.0, ge=0, le=200)
    """Craniocaudal search range for a companion series that moved within the same frame of
    reference; patients on the table move by at most one vertebra."""
    alignment_competitor_mm: float = Field(15.0, ge=5, le=30)
    """Minimum craniocaudal distance at which another fit is a competing one: half the height of a
    vertebra and its disc."""
    alignment_competitor_factor: float = Field(1.5, ge=1, le=10)
    """Minimum ratio of mutual information to that of any competing fit for a registration to be
    accepted: 1.7 to 4.5 for correct registrations of phantoms, 0.9 to 1.5 (few above) for images of
    different bodies."""
    alignment_residual_mm: float = Field(1.8, gt=0, le=10)
    """Maximum root-mean-square disagreement of five canal sections after registration: 0.5 to 1.6
    mm for correct registrations of phantoms, 2.1 mm and more for images of different bodies."""
    max_archive_gib: float = Field(16.0, gt=0, le=1000)
    """Maximum unpacked size of an archive in GiB: several times the largest spine study."""
    max_archive_files: int = Field(50_000, ge=1)
    """Maximum number of files in an archive."""


class SegmentationSettings(_Section):
    """Fluid map, canal, dura and collections."""

    canal_grid_mm: float = Field(3.0, ge=1.0, le=5.0)
    """Voxel size of the grid on which the canal is searched: one third of the width of the thecal
    sac."""
    canal_core_mm: float = Field(7.0, ge=3.0, le=12.0)
    """Radius of the bright disk searched for: that of an adult thecal sac."""
    canal_contrast: float = Field(0.2, gt=0.0, lt=1.0)
    """Minimum (inside - outside) / (inside + outside) along the canal; noise stays below 0.1."""
    canal_prior_weight: float = Field(2.0, ge=0.0, le=10.0)
    """Weight of the network's canal probability relative to brightness (1), because fat is often
    the brightest tube on conventional T2. Of 24 public volumes, brightness alone missed the canal
    by more than 25 mm in four of eight reviewed, with the prior in none of eleven."""
    canal_prior_threads: int = Field(2, ge=1, le=64)
    """Processor threads for the canal and dura networks."""
    canal_min_length_mm: float = Field(60.0, gt=0.0)
    """Minimum length of the canal: two lumbar levels; shorter tubes cannot be distinguished from
    vessels."""
    canal_slope_cost: float = Field(0.15, ge=0.0)
    """Cost of the path's slope (tan² from the vertical) per plane, in units of contrast."""
    fat_suppressed_below: float = Field(0.25, gt=0.0, lt=1.0)
    """Subcutaneous fat with less than this fraction of the CSF signal counts as suppressed; without
    suppression it has 0.3-0.4 on heavily T2-weighted 3D myelography and 0.8 on conventional T2."""
    sac_min_area_mm2: float = Field(12.0, gt=0.0)
    """Minimum cross-sectional area of the thecal sac; the sac ends caudally where it falls below
    this."""
    sac_max_gap_mm: float = Field(45.0, ge=0.0)
    """Maximum length over which the sac is bridged where it is not detected (stenosis, flow void):
    one lumbar level. The report names the level."""
    dura_smoothness: float = Field(0.5, ge=0.0)
    """Cost of a change by two radii (0.6 mm) between neighboring rays."""
    fat_suppressed: bool | None = None
    """Whether fat is suppressed; overrides the DICOM header and the signal."""
    fat_confusing_above: float = Field(0.5, gt=0.0, le=1.0)
    """Above this fraction of the CSF signal, fat cannot be distinguished from fluid by signal."""
    tissue_conventional_above: float = Field(0.15, gt=0.0, lt=1.0)
    """Soft tissue above this fraction of the CSF signal indicates conventional T2 weighting, with
    bright fat; on heavily T2-weighted images muscle and marrow stay below 0.12."""
    fluid_min_fraction: float = Field(0.25, gt=0.0, le=1.0)
    """Minimum expected fraction of epidural fluid of the voxels joined into a component. The mask
    is the subset with the highest expected Dice coefficient; the other voxels count only toward the
    volume."""
    search_radius_mm: float = Field(35.0, gt=0.0)
    """Distance from the canal center within which fluid is searched for, to beyond the foramina."""
    corridor_half_width_mm: float = Field(40.0, gt=0.0)
    """Half width of the search region posterior to the spine, which covers a surgical bed."""
    corridor_depth_mm: float = Field(120.0, gt=0.0)
    """Depth of that region, which reaches the skin."""
    contact_gap_mm: float = Field(3.0, ge=0.0)
    """Maximum distance from the dura of fluid that counts as connected with the canal."""
    collection_min_ml: float = Field(0.25, gt=0.0)
    """Minimum volume of a reported collection. At 0.3 mL a layer of 0.7 mL was missed; at 0.2 mL a
    rim of CSF at C1-C2 of a phantom was reported."""
    collection_min_probability: float = Field(0.4, gt=0.0, lt=1.0)
    """Minimum probability of a candidate that is reported as a collection."""
    max_bright_tissue_probability: float = Field(0.75, gt=0.0, le=1.0)
    """Maximum probability of a collection where soft tissue is bright, because fat suppression is
    then known only from the DICOM header."""
    bright_tissue_snr: float = Field(15.0, gt=0.0, le=200.0)
    """Minimum CSF signal-to-noise ratio at which fat suppression in the DICOM header is accepted
    where soft tissue is bright. Below it (a true ratio of about 8) noise resembles bright tissue,
    and two of three leak-free phantoms had a false-positive collection."""
    collection_gap_mm: float = Field(18.0, ge=0.0)
    """Maximum gap along the canal between components of one collection; fat may interrupt a
    collection."""


class LevelSettings(_Section):
    """Finding and numbering vertebrae."""

    detector: Literal["network", "profile"] = "network"
    """Disc detector: the anatomy network, or `profile`, a baseline that uses the periodic signal
    along the canal and finds nine of ten discs but numbers only one third of patients correctly."""
    anchor: str | None = None
    """A known disc and a point in it, such as `L4-L5@-3.5,12.0,-88.0` (LPS, mm), from which all
    other levels are numbered."""
    anchor_reach_mm: float = Field(20.0, ge=1, le=100)
    """Maximum distance of the anchor point from the disc it names: half a lumbar level."""
    lumbar_count: int | None = Field(None, ge=4, le=6)
    """Number of lumbar vertebrae, if known; otherwise five, unless counting from C2 gives another
    number."""
    lowest_disc: str | None = None
    """Name of the lowest well-formed disc, such as `L5-S1` or `S1-S2`, if known."""
    variant_fraction: float = Field(0.077, gt=0, lt=0.5)
    """Proportion of people with four or six lumbar vertebrae (7.7 % of 418 whole-spine scans)."""
    assumed_confidence: float = Field(0.86, gt=0, lt=1)
    """Maximum confidence when levels are counted from the sacrum; on lumbar MRI alone 14 % of 1049
    patients are numbered incorrectly (clinical series)."""
    transitional_probability: float = Field(0.25, gt=0, lt=1)
    """Minimum probability of another number of lumbar vertebrae at which a transitional vertebra is
    suspected; the maximum in 26 patients of SPIDER was 0.22."""


class LocalizationSettings(_Section):
    """Localization of collections to levels, grading and planning."""

    arc_step_mm: float = Field(1.0, ge=0.25, le=5.0)
    """Length of a bin along the canal: about a voxel, far below a level (30 mm)."""
    section_smoothing_mm: float = Field(1.5, ge=0.0, le=10.0)
    """Gaussian sigma along the canal for cross-sections, which smooths partially covered bins."""
    end_area_mm2: float = Field(3.0, ge=0.0, le=50.0)
    """A collection ends where its cross-sectional area falls below this or below a tenth of its
    maximum, whichever is less."""
    segment_min_overlap_mm: float = Field(2.0, ge=0.0, le=20.0)
    """Minimum extent of a collection within a segment for the segment to be involved; partial
    volume alone extends about one voxel."""
    segment_min_fraction: float = Field(0.005, ge=0.0, le=0.5)
    """Minimum fraction of the collection's volume within an involved segment."""
    interlaminar_below_disc_mm: float = Field(5.0, ge=0.0, le=15.0)
    """Distance of lumbar interlaminar windows below their disc; they lie at the disc or 5 to 10 mm
    below it."""

    occupied_thickness_mm: float = Field(0.4, ge=0.05, le=5.0)
    """Minimum radial thickness at which fluid counts as present in a direction around the sac."""
    circumferential_deg: float = Field(270.0, ge=180.0, le=360.0)
    """Minimum angle around the sac of a circumferential collection."""
    circumferential_length_mm: float = Field(20.0, ge=0.0, le=200.0)
    """Minimum length with that angle: about one level."""
    circumferential_fraction: float = Field(0.33, ge=0.0, le=1.0)
    """Minimum fraction of the collection's length with that angle."""
    canal_radius_mm: float = Field(14.0, ge=5.0, le=30.0)
    """Fluid farther than this from the canal center lies outside the bony canal (lumbar canals are
    14 to 16 mm deep and 22 to 28 mm wide)."""
    longitudinal_levels: float = Field(3.0, ge=1.0, le=24.0)
    """Minimum number of levels of a longitudinal collection (3 to 4 levels in the literature)."""
    longitudinal_length_mm: float = Field(95.0, ge=20.0, le=600.0)
    """Minimum length of a longitudinal collection if levels are not numbered: three mean lumbar
    levels."""
    outside_fraction: float = Field(0.35, ge=0.05, le=1.0)
    """Minimum fraction of the volume outside the canal of a pseudomeningocele (posterior) or a
    periradicular collection (lateral)."""

    compression_smoothing_mm: float = Field(4.0, ge=0.0, le=20.0)
    """Gaussian sigma of sac areas before comparison with neighboring positions."""
    compression_reach_mm: float = Field(45.0, ge=10.0, le=200.0)
    """Distance above and below a collection over which the expected sac area is estimated; more
    than one level, to average discs and bodies."""
    sac_bulge_ratio: float = Field(1.6, ge=1.0, le=5.0)
    """Sac width of a segment, relative to the expected width and the median segment, above which
    the sac mask may include epidural fluid. Sac depths of 17 people without a leak suggest at most
    1.43 (area as depth to the power of 1.8)."""
    sac_tip_margin_mm: float = Field(8.0, ge=0.0, le=40.0)
    """Sac areas this close to the caudal end of the thecal sac are not measured, because the sac
    tapers there."""
    sac_tip_area_mm2: float = Field(2.5, ge=0.5, le=60.0)
    """The thecal sac ends where its cross-sectional area falls below this."""
    sac_taper_mm: float = Field(35.0, ge=0.0, le=100.0)
    """Length of the caudal taper of the sac (20 to 55 mm), over which compression and the posterior
    border of the canal are not measured."""
    field_margin_mm: float = Field(4.0, ge=0.0, le=30.0)
    """Structures that end this close to the edge of the field of view may continue beyond it."""

    definite_confidence: float = Field(0.8, ge=0.0, le=1.0)
    """Minimum confidence of a collection graded definite."""
    probable_confidence: float = Field(0.5, ge=0.0, le=1.0)
    """Minimum confidence of a collection graded probable; below it the grade is possible."""
    small_volume_ml: float = Field(0.3, ge=0.0, le=5.0)
    """Below this volume the stated basis notes that a root sleeve may have the same volume."""
    thin_voxels: float = Field(1.5, ge=0.0, le=5.0)
    """Below this thickness, in voxels of mean size, the stated basis describes the collection as
    thin."""
    low_snr: float = Field(10.0, ge=1.0, le=100.0)
    """Below this CSF signal-to-noise ratio the stated basis describes the image as noisy."""
    fat_factor: float = Field(0.6, ge=0.0, le=1.0)
    """Confidence factor where fat is bright and the collection may be fat."""

    alternatives_max: int = Field(3, ge=1, le=10)
    """Maximum number of alternative segments reported."""
    alternative_min_score: float = Field(0.05, ge=0.0, le=1.0)
    """Minimum score of a reported alternative segment."""
    section_error: float = Field(0.07, ge=0.0, le=1.0)
    """Relative standard deviation of the error of a cross-section, from 71 simulated collections of
    development patients, on which the network was trained (median 0.09)."""
    level_set_probability: float = Field(0.85, ge=0.0, le=1.0)
    """Minimum probability that the reported set of levels includes the largest cross-section. At
    0.85 it did in 97 % of the same 71 collections, with 1.3 segments on average."""

    blind_codes: tuple[str, ...] = ("no_myelogram", "no_fluid_sensitive_volume")
    """Warning codes of earlier stages after which no answer is reported, because the input is
    insufficient."""
    max_blind_confidence: float = Field(0.45, ge=0.0, le=1.0)
    """Maximum confidence of a collection in that case: below `probable_confidence`, hence
    possible."""
    absent_confidence: float = Field(0.8, ge=0.0, le=1.0)
    """Confidence of a negative result without equivocal signal; MR myelography missed one leak in
    eight to five in published series."""
    fat_min_probability: float = Field(0.25, ge=0.0, le=1.0)
    """Minimum probability of a rejected candidate, possibly unsuppressed fat, that makes the result
    indeterminate."""
    numbering_caveat_below: float = Field(0.9, ge=0.0, le=1.0)
    """Below this confidence of the numbering the summary also states the alternative."""

    hiatus_min_confidence: float = Field(0.5, ge=0.0, le=1.0)
    """Below this confidence the sacral hiatus counts as not detected."""
    hiatus_min_from_sac_mm: float = Field(20.0, ge=0.0, le=60.0)
    """Minimum distance of a detected hiatus from the caudal end of the thecal sac (34.8 mm was the
    minimum in 200 adults: Park et al., Korean J Phys Anthropol 2016;29:145)."""
    hiatus_from_levels: bool = True
    """Whether distances are measured from S4, with a warning and a range, if the hiatus was not
    detected and S4 is in the field of view; otherwise no distance is reported."""
    hiatus_beyond_trace_mm: float = Field(15.0, ge=0.0, le=60.0)
    """Maximum distance of S4 below the traced canal for that purpose: one sacral segment."""
    hiatus_fraction: float = Field(0.83, ge=0.5, le=1.1)
    """Mean position of the apex of the hiatus along the posterior border of the sacral bodies: S4
    in two thirds to four fifths of people, S3 or S5 in most others."""
    hiatus_fraction_sd: float = Field(0.12, ge=0.02, le=1.0)
    """Standard deviation of that position between people."""
    hiatus_roof_fraction: float = Field(0.3, ge=0.1, le=0.6)
    """The roof of the sacral canal is traced below this fraction of the posterior border of the
    sacral bodies; above it, the thecal sac and the gaps between the arches of S1 and S2
    interfere."""
    hiatus_roof_mm: float = Field(5.0, ge=1.0, le=12.0)
    """Distance from the middle of that roof (4 to 7 mm thick) to the posterior epidural line
    anterior to it."""
    hiatus_bright_factor: float = Field(0.6, ge=0.0, le=1.0)
    """Confidence factor for a hiatus detected where fat in the canal is bright and the roof and
    subcutaneous fat are hard to separate, relative to a fat-suppressed image."""
    hiatus_min_below_mm: float = Field(6.0, ge=1.0, le=8.0)
    """Minimum extent of the field of view without a roof below the apex; with half of it, a sacrum
    truncated by the field was taken for its end (2 of 5 phantoms without a hiatus)."""
    hiatus_margin_mm: float = Field(8.0, ge=0.0, le=30.0)
    """Distance the canal centerline continues below the apex: half of the height of the opening (16
    to 19 mm)."""
    posterior_epidural_mm: float = Field(1.0, ge=0.0, le=8.0)
    """Distance of the path from the posterior border of the sac: just outside the dura, where the
    posterior epidural space is open even between its fat pads."""
    default_dorsal_mm: float = Field(2.5, ge=0.0, le=10.0)
    """Distance of the path from the canal center where neither sac nor sacral canal was
    detected."""
    epidural_dark_fraction: float = Field(0.5, ge=0.1, le=0.9)
    """The posterior epidural space ends where the signal posterior to the sac falls below this
    fraction of the signal within it, at the dark ligamentum flavum or lamina."""
    epidural_depth_max_mm: float = Field(12.0, ge=4.0, le=30.0)
    """Maximum measured depth of the epidural space; beyond it the arch is absent or not visible."""
    skin_air_fraction: float = Field(0.12, ge=0.01, le=0.5)
    """Air begins where the signal stays below this fraction of the brightest subcutaneous fat."""
    interlaminar_reach_mm: float = Field(60.0, ge=10.0, le=200.0)
    """Maximum distance from the level of reported interlaminar windows: under two lumbar levels."""
    interlaminar_max: int = Field(3, ge=1, le=10)
    """Maximum number of interlaminar windows reported."""
    path_step_mm: float = Field(2.0, ge=0.5, le=10.0)
    """Distance between points of a path."""
    path_smoothing_mm: float = Field(8.0, ge=0.0, le=40.0)
    """Gaussian sigma of the path's distance from the centerline; a catheter does not follow every
    concavity of the sac."""
    path_sd_fraction: float = Field(0.10, ge=0.0, le=0.5)
    """Standard deviation of path lengths between people, as a fraction of the length."""
    path_sd_mm: float = Field(8.0, ge=0.0, le=50.0)
    """Additional standard deviation in mm, added in quadrature."""
    path_max_sd: float = Field(3.0, ge=1.0, le=10.0)
    """Paths that deviate by more than this many standard deviations from the mean are reported as
    implausible."""


class ReportSettings(_Section):
    """Outputs and patient identity."""

    write: tuple[
        Literal[
            "json", "masks", "png", "html", "seg", "sr", "sc", "relabel", "pdf", "html3d", "csv"
        ],
        ...,
    ] = (
        "json",
        "masks",
        "png",
        "html",
        "seg",
        "sr",
        "sc",
        "relabel",
    )
    """Outputs to write; report.json is always written. `relabel` writes relabel.npz, with which
    `leakloc relabel` renumbers the levels; on request also pdf (vector figures), html3d (3D page,
    needs WebGL2) and csv (collections.csv and levels.csv)."""
    identity: Literal["keep", "hash", "remove"] = "hash"
    """Patient ID and accession number in report.json and report.html: unchanged, as a keyed hash
    (key: environment variable LEAKLOC_IDENTITY_KEY), or null, with the study date. The Study
    Instance UID is always kept so that planning software can find the images."""
    dicom_identity: Literal["keep", "remove"] = "keep"
    """Patient module of the DICOM objects: that of the source images, so that archives file the
    objects with them, or empty."""
    level_scheme: Literal[
        "leakloc", "totalspineseg", "spineps", "totalsegmentator", "totalsegmentator_mr", "sct"
    ] = "leakloc"
    """Label values of masks/levels.nii.gz (`leakloc.levels.schemes`), so that it can replace
    another program's level map; vertebrae without a value in the scheme are omitted."""
    mask_compression: int = Field(1, ge=0, le=9)
    """gzip level of the masks; levels above 1 are slower and hardly smaller."""
    picture_height_px: int = Field(900, ge=400, le=2000)
    """Height of a figure in pixels, legible at 1:1 on a full-HD screen."""


class NodeSettings(_Section):
    """Receiving studies over the network and returning results; does not affect the analysis."""

    settle_s: float = Field(60.0, ge=0.1, le=86400)
    """A study is analyzed when nothing has arrived for this long and no association that sent part
    of it is open; scanners and archives send a study in several associations with pauses."""
    max_associations: int = Field(16, ge=1, le=200)
    """Maximum number of concurrent senders: archives open 1 to 8, some scanners one per series."""
    max_instance_mib: int = Field(1024, ge=1, le=4096)
    """Maximum size of an object accepted: an enhanced MR object of 2000 frames of 384 x 384 has 560
    MiB."""
    max_receiving_mib: int = Field(2048, ge=1, le=65536)
    """Maximum total size of the objects being received that are held in memory, over all
    senders."""
    max_study_instances: int = Field(20000, ge=1, le=1000000)
    """Maximum number of objects of one study: ten times a large spine study."""
    min_free_mib: int = Field(1024, ge=0, le=1048576)
    """Minimum free disk space; below it objects are refused (status A700), because results need
    space too."""
    network_timeout_s: float = Field(60.0, ge=1, le=3600)
    """Timeout after which an idle association or a stalled send is closed."""
    also_accept: tuple[str, ...] = ()
    """UIDs of further storage SOP classes accepted and stored with the MR images, for archives that
    only send whole studies; they are not analyzed."""
    resend_s: float = Field(60.0, ge=0.1, le=86400)
    """Delay before a failed send is repeated; doubled each time, up to an hour."""
    resend_for_h: float = Field(72.0, ge=0, le=8760)
    """Period over which a failed send is repeated; an archive may be unavailable over a weekend."""
    tls_certificate: str = ""
    """PEM file of this node's certificate; if set, the node accepts TLS only."""
    tls_key: str = ""
    """PEM file of its key; empty if the certificate file contains it."""
    tls_authorities: str = ""
    """PEM file of the certificate authorities of peers; senders must then present a certificate. AE
    titles do not authenticate a sender."""
    tls_return: bool = False
    """Whether results are sent over TLS, to a peer whose certificate is verified."""
    poll_s: float = Field(30.0, ge=0.1, le=86400)
    """Time between two queries of a DICOMweb server."""
    look_back_days: int = Field(3, ge=0, le=36500)
    """Maximum age of the studies of a DICOMweb server that are considered, in days."""
    select: Literal["spine", "mr"] = "spine"
    """MR studies of a DICOMweb server to process: those whose descriptions name the spine or no
    body region, or all."""


class Settings(_Section):
    """All settings of one analysis."""

    stages: StageSettings = Field(default_factory=StageSettings)
    """Implementation (plug-in) of each replaceable stage."""
    loaders: LoaderSettings = Field(default_factory=LoaderSettings)
    """Reading files and choosing series."""
    segmentation: SegmentationSettings = Field(default_factory=SegmentationSettings)
    """Fluid map, canal, dura and collections."""
    levels: LevelSettings = Field(default_factory=LevelSettings)
    """Finding and numbering vertebrae."""
    localization: LocalizationSettings = Field(default_factory=LocalizationSettings)
    """Localization of collections to levels, grading and planning."""
    report: ReportSettings = Field(default_factory=ReportSettings)
    """Outputs and patient identity."""
    node: NodeSettings = Field(default_factory=NodeSettings)
    """Receiving studies over the network and returning results; does not affect the analysis."""

    @classmethod
    def load(cls, path: str | Path) -> Settings:
        """Read a TOML recipe with the sections and keys that `leakloc config` prints.

        Raises
        ------
        SettingsError
            If the file cannot be read, a key is unknown, or a value is invalid.
        """
        import tomllib

        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"cannot read the recipe {path}: {error}") from error
        values.pop("recipe", None)  # name and description
        return cls.from_dict(values, source=str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "settings") -> Settings:
        """Validate nested values; unknown keys and out-of-range values raise `SettingsError`."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"{source}: {where}: {first['msg']}") from error

    def changed(self, **values: Any) -> Settings:
        """Return a copy with some values replaced, as ``section__key=value``.

        Examples
        --------
        >>> Settings().changed(stages__labeler="mine").stages.labeler
        'mine'
        """
        nested = self.model_dump(mode="python")
        for name, value in values.items():
            section, _, key = name.partition("__")
            if section not in nested or key not in nested[section]:
                raise SettingsError(f"no setting is named {name!r}; use section__key")
            nested[section][key] = value
        return self.from_dict(nested)

    def differences(self) -> dict[str, dict[str, Any]]:
        """Return the values that differ from the defaults, by section and key.

        Examples
        --------
        >>> Settings().changed(stages__labeler="mine").differences()
        {'stages': {'labeler': 'mine'}}
        """
        mine, usual = self.model_dump(), Settings().model_dump()
        found = {
            section: {key: v for key, v in values.items() if v != usual[section][key]}
            for section, values in mine.items()
        }
        return {section: values for section, values in found.items() if values}

    def save(self, path: str | Path) -> None:
        """Write a recipe for `load` and ``leakloc analyze --pipeline``.

        Raises
        ------
        OutputError
            If the file cannot be written.
        """
        try:
            Path(path).write_text(self.to_toml(), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write the recipe {path}: {error.strerror}") from error

    @property
    def sha256(self) -> str:
        """SHA-256 of all settings that affect an analysis; independent of the machine."""
        text = json.dumps(self.model_dump(mode="json", exclude={"node"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_toml(self) -> str:
        """Return all values as TOML, each with its description as a comment."""
        import tomlkit

        document = tomlkit.document()
        for section_name, section in type(self).model_fields.items():
            table = tomlkit.table()
            if section.description:
                table.comment(section.description)
            model: _Section = getattr(self, section_name)
            for key, field in type(model).model_fields.items():
                for line in (field.description or "").splitlines():
                    table.add(tomlkit.comment(line.strip()))
                value = getattr(model, key)
                if value is None:  # TOML has no null; absent means default
                    table.add(tomlkit.comment(f"{key} = (unset)"))
                else:
                    table.add(key, list(value) if isinstance(value, tuple) else value)
            document.add(section_name, table)
        return tomlkit.dumps(document)


def find_recipe(name: str) -> Path:
    """Return the TOML file of a recipe: a path, or the name of a recipe shipped with leakloc.

    Raises
    ------
    SettingsError
        If there is no such file.
    """
    package = Path(__file__).parents[1]
    shipped = [package / "recipes", package.parent / "pipelines"]  # installed, or a checkout
    for path in [Path(name), *(folder / f"{name}.toml" for folder in shipped)]:
        if path.is_file():
            return path
    known = sorted({file.stem for folder in shipped for file in folder.glob("*.toml")})
    raise SettingsError(
        f"no recipe file {name!r}; specify a file or one of: {', '.join(known) or 'none shipped'}"
    )
