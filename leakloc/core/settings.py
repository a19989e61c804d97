"""Every tunable of every stage, in one typed model.

Each field carries its unit in the name, its default, and the reason for it. A recipe is
a TOML file with the same sections; what a recipe does not name keeps its default. The
settings of a run are written into its report, so that it can be repeated.
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
    """Which implementation runs each swappable stage."""

    segmenter: str = "leakloc"
    """Name of a plug-in registered under the entry-point group `leakloc.segmenters`."""
    labeler: str = "leakloc"
    """Name of a plug-in registered under the entry-point group `leakloc.labelers`."""


class LoaderSettings(_Section):
    """Reading files and choosing series."""

    orientation_tolerance: float = Field(1e-3, gt=0, le=0.02)
    """Largest difference of direction cosines, and of the stack's drift off its normal per
    millimetre, among slices of one stack. Scanners jitter by 1e-5; 1e-3 is 0.06 degrees."""
    spacing_tolerance: float = Field(0.05, gt=0, le=0.3)
    """Largest deviation of a slice from an even grid, as a share of the spacing, that needs no
    interpolation: positions are written with two or three decimals."""
    gap_factor: float = Field(1.5, ge=1.2, le=1.9)
    """A step between slices above this multiple of the usual step means that slices are
    missing; half-way between one step and two."""
    max_bridged_gap_mm: float = Field(3.0, ge=0, le=10)
    """Widest step over missing slices that is interpolated; a wider one splits the stack. A
    collection thinner than this could vanish in the gap."""
    min_slices: int = Field(3, ge=2, le=50)
    """Fewest parallel slices that make a volume; below this there is no depth to measure."""
    slab_thickness_mm: float = Field(15.0, ge=5, le=100)
    """Slices of at least this thickness are projections (thick-slab myelography: 20 to 60 mm),
    useful to look at but never for level or volume."""
    slab_max_slices: int = Field(24, ge=1, le=200)
    """Most images of a thick-slab series: radial protocols take 6 to 16 angles."""
    heavy_echo_time_ms: float = Field(400.0, ge=200, le=2000)
    """Echo time from which a spin-echo series is a candidate for myelography. On 3D sequences
    with variable flip angles the nominal time does not prove it, so pixels decide."""
    heavy_body_ratio: float = Field(0.15, gt=0, lt=1)
    """80th over 99.5th percentile of the signal in the middle of the field up to which T2
    weighting is heavy: tissue is at 0 to 17 % of fluid (heavy spin echo to 3D turbo spin echo)."""
    conventional_body_ratio: float = Field(0.21, gt=0, lt=1)
    """The same ratio from which the weighting is that of an ordinary T2 image: 24 public lumbar
    T2 SPACE volumes lie at 0.22 to 0.83."""
    fluid_dark_below: float = Field(1.0, gt=0, lt=3)
    """Signal of the canal over that of vertebral bodies below which a series without a header is
    T1-weighted: 0.4 to 0.5 on T1 of phantoms, 2.2 and more on T2 and STIR, real volumes among
    them."""
    fine_voxel_mm: float = Field(1.2, gt=0, le=3)
    """Largest voxel edge of a volume fine enough in all directions for thin collections."""
    max_station_movement_mm: float = Field(5.0, ge=0, le=20)
    """Largest movement of the patient between overlapping stations that is undone before they
    are joined (0 to 3 mm is usual); a larger one is left and shows as a step."""
    verify_companions: bool = True
    """Compare companions of the myelogram's frame of reference with it, as patients move between
    series; takes about half a second each."""
    companion_moved_mm: float = Field(2.0, ge=0.5, le=20)
    """Movement against the myelogram from which a companion is registered: phantoms that did not
    move show up to 0.8 mm, and below half a slice of a companion nothing is gained. Where voxels
    are larger on the mean than this, a movement below their edge is not followed either."""
    alignment_search_mm: float = Field(40.0, ge=0, le=200)
    """How far along the body a moved companion of the same frame of reference is sought; patients
    slide by a vertebra at most while they stay on the couch."""
    alignment_competitor_mm: float = Field(15.0, ge=5, le=30)
    """Distance along the body from which a fit is another one: half the height of a vertebra with
    its disc."""
    alignment_competitor_factor: float = Field(1.5, ge=1, le=10)
    """How many times the mutual information of any rival a registration needs: right ones had 1.7
    to 4.5 on phantoms, images of different bodies 0.9 to 1.5 with few above."""
    alignment_residual_mm: float = Field(1.8, gt=0, le=10)
    """Largest disagreement of five stretches of the canal that a registration may leave (root mean
    square): right ones left 0.5 to 1.6 mm on phantoms, images of different bodies 2.1 mm and
    more."""
    max_archive_gib: float = Field(16.0, gt=0, le=1000)
    """Most GiB an archive may unpack to: several times the largest spine study."""
    max_archive_files: int = Field(50_000, ge=1)
    """Most files an archive may hold."""


class SegmentationSettings(_Section):
    """Fluid map, canal, dura and collections."""

    canal_grid_mm: float = Field(3.0, ge=1.0, le=5.0)
    """Voxel size at which the canal is searched for: a third of the sac's width."""
    canal_core_mm: float = Field(7.0, ge=3.0, le=12.0)
    """Radius of the bright disc looked for: that of an adult thecal sac."""
    canal_contrast: float = Field(0.2, gt=0.0, lt=1.0)
    """Least (inside - outside) / (inside + outside) along a canal; noise stays below 0.1."""
    canal_prior_weight: float = Field(2.0, ge=0.0, le=10.0)
    """Weight of the network's probability of canal against the brightness of the tube (1): on
    conventional T2 the brightest tube is often fat. Of 24 public volumes brightness alone lost
    the canal by more than 25 mm in four of eight looked at, with the prior in none of eleven."""
    canal_prior_threads: int = Field(2, ge=1, le=64)
    """Processor threads of the networks that give the prior and judge the dura."""
    canal_min_length_mm: float = Field(60.0, gt=0.0)
    """Shortest canal accepted: two lumbar levels; what is shorter cannot be told from a vessel."""
    canal_slope_cost: float = Field(0.15, ge=0.0)
    """Price of a path's slope (tan² from the vertical) per plane, in units of contrast."""
    fat_suppressed_below: float = Field(0.25, gt=0.0, lt=1.0)
    """Subcutaneous fat darker than this share of CSF counts as suppressed; without
    suppression it has 0.3-0.4 on a heavy 3D myelogram and 0.8 on a conventional T2."""
    sac_min_area_mm2: float = Field(12.0, gt=0.0)
    """Least cross-section of the sac; the pointed tip ends there."""
    sac_max_gap_mm: float = Field(45.0, ge=0.0)
    """Longest stretch over which the sac is bridged where it is not detected (stenosis, flow
    void): a lumbar level; the report names the level."""
    dura_smoothness: float = Field(0.5, ge=0.0)
    """Price of a step of two radii (0.6 mm) between neighbouring rays."""
    fat_suppressed: bool | None = None
    """Whether fat is suppressed, where the user knows better than header and signal."""
    fat_confusing_above: float = Field(0.5, gt=0.0, le=1.0)
    """Above this share of CSF, fat cannot be told from fluid by its signal."""
    tissue_conventional_above: float = Field(0.15, gt=0.0, lt=1.0)
    """Soft tissue brighter than this share of CSF gives a conventional T2 away, with its
    bright fat; on a heavy one muscle and marrow stay below 0.12."""
    fluid_min_fraction: float = Field(0.25, gt=0.0, le=1.0)
    """Expected fraction of extradural fluid from which on voxels are joined into a piece. The mask
    holds those of them that give it the greatest expected Dice coefficient; the rest counts for
    the volume only."""
    search_radius_mm: float = Field(35.0, gt=0.0)
    """Distance from the canal's centre within which fluid is looked for: past the foramina."""
    corridor_half_width_mm: float = Field(40.0, gt=0.0)
    """Half width of the corridor behind the spine: a surgical bed."""
    corridor_depth_mm: float = Field(120.0, gt=0.0)
    """Depth of that corridor: to the skin."""
    contact_gap_mm: float = Field(3.0, ge=0.0)
    """Largest gap between dura and a fluid that counts as connected with the canal."""
    collection_min_ml: float = Field(0.25, gt=0.0)
    """Smallest collection reported: at 0.3 a layer of 0.7 mL was lost, at 0.2 a rim of CSF at
    C1-C2 of a phantom was reported."""
    collection_min_probability: float = Field(0.4, gt=0.0, lt=1.0)
    """Probability from which on a candidate counts as a collection."""
    max_bright_tissue_probability: float = Field(0.75, gt=0.0, le=1.0)
    """Highest probability there: the answer rests on what the header says of fat."""
    bright_tissue_snr: float = Field(15.0, gt=0.0, le=200.0)
    """Signal of CSF over noise from which the header is believed there at all: below it (a true
    one of about 8) noise itself looks like bright tissue, and two of three leak-free phantoms were
    given a collection."""
    collection_gap_mm: float = Field(18.0, ge=0.0)
    """Gap along the canal across which two pieces are one collection: fat interrupts them."""


class LevelSettings(_Section):
    """Finding and numbering vertebrae."""

    detector: Literal["network", "profile"] = "network"
    """What finds discs: the anatomy network, or without it the rhythm of signal along the canal,
    a baseline that finds nine of ten discs but names only a third of patients right."""
    anchor: str | None = None
    """A disc known to the user and a point in it, such as `L4-L5@-3.5,12.0,-88.0` (LPS mm);
    all other names follow from it."""
    anchor_reach_mm: float = Field(20.0, ge=1, le=100)
    """Largest distance of the anchor from the disc it names: half a lumbar level."""
    lumbar_count: int | None = Field(None, ge=4, le=6)
    """Number of lumbar vertebrae, where known; else five, unless the count from C2 says other."""
    lowest_disc: str | None = None
    """Name of the lowest well-formed disc, such as `L5-S1` or `S1-S2`, where known."""

    size_low: float = Field(0.82, gt=0.4, le=1.0)
    """Smallest body size considered, relative to the mean adult."""
    size_high: float = Field(1.22, ge=1.0, lt=2.0)
    """Largest body size considered."""
    size_steps: int = Field(10, ge=3, le=50)
    """Number of body sizes tried; 4.5 % apart is finer than the scatter of one level."""
    size_sd: float = Field(0.08, gt=0, le=0.5)
    """Standard deviation of body size: women 0.93, men 1.05, and 5 % within each sex."""
    pitch_sd: float = Field(0.06, gt=0, le=0.5)
    """Relative scatter of one level's height about the body's size (7 to 8 %)."""
    center_sd_mm: float = Field(1.0, ge=0, le=10)
    """Error of a disc centre."""
    pitch_worst: float = Field(16.0, ge=4, le=100)
    """A gap counts as no worse than the square root of this many standard deviations: fused
    or collapsed levels exist."""
    presence: float = Field(3.0, ge=-5, le=5)
    """Log odds that a candidate in the row of discs is one, before its looks: few are not."""
    kind_weight: float = Field(0.6, ge=0, le=5)
    """Weight of what a candidate looks like on its own against spacing."""
    max_kind_evidence: float = Field(9.0, ge=0.5, le=20)
    """Most that the looks of one candidate count, in log odds."""
    missing_cost: float = Field(4.0, ge=0, le=20)
    """Log cost of a disc above the sacrum that is in the field but was not detected."""
    missing_sacral_cost: float = Field(0.1, ge=0, le=20)
    """The same in the sacrum, where most discs have vanished."""
    max_missing: float = Field(2.0, ge=1, le=30)
    """Discs missed in a row at an end of the chain count as this many at most."""
    end_margin_mm: float = Field(10.0, ge=0, le=50)
    """Discs nearer to the end of the field than this need not be detected."""
    variant_fraction: float = Field(0.077, gt=0, lt=0.5)
    """Share of people with four or six lumbar vertebrae (7.7 % of 418 whole-spine scans)."""
    conus_in_l1: float = Field(0.55, ge=-1, le=2)
    """Where the spinal cord usually ends, in heights of L1 from its top: near its lower third."""
    conus_sd_levels: float = Field(0.5, gt=0, le=5)
    """Standard deviation of that place between people, in levels (range T12 to L3 in 504)."""
    temperature: float = Field(2.0, gt=0, le=20)
    """Divides log evidence before it becomes belief: neighbouring discs are not independent."""
    counted_confidence: float = Field(0.98, gt=0, lt=1)
    """Highest confidence when counted from C2."""
    assumed_confidence: float = Field(0.86, gt=0, lt=1)
    """Highest confidence when counted from the sacrum: on lumbar MRI alone 14 % of 1049
    patients are numbered wrongly (clinical series)."""
    no_conus_factor: float = Field(0.9, gt=0, le=1)
    """Factor on the confidence counted from the sacrum where the cord's end is not seen: then
    nothing in the field tells five lumbar vertebrae from four or six."""
    transitional_probability: float = Field(0.25, gt=0, lt=1)
    """A transitional vertebra is suspected from this probability of another number of lumbar
    vertebrae on. The highest of 26 patients of SPIDER: 0.22."""

    transitional_fraction: float = Field(0.04, gt=0, lt=0.5)
    """Fraction of sacrum in the vertebra above the lumbosacral disc, or of lumbar vertebra below
    it, from which one of them is taken for transitional. Flags 29 of 33 phantoms of such a shape
    and 1 of 26 patients of SPIDER."""
    transitional_narrow: float = Field(0.78, gt=0, lt=1.5)
    """A lumbosacral disc of less than this share of the depth of the patient's own discs is taken
    for a sign of a sacralised vertebra above it."""
    transitional_wide: float = Field(0.78, gt=0, lt=1.5)
    """A disc S1-S2 of more than this share of it is taken for a sign of a lumbarised S1."""


class LocalizationSettings(_Section):
    """Mapping collections to levels, grading, planning."""

    arc_step_mm: float = Field(1.0, ge=0.25, le=5.0)
    """Length of a bin along the canal; about a voxel, far below a level (30 mm)."""
    section_smoothing_mm: float = Field(1.5, ge=0.0, le=10.0)
    """Gaussian sigma along the canal for cross-sections; evens out slices cut by bins."""
    end_area_mm2: float = Field(3.0, ge=0.0, le=50.0)
    """A collection ends where its cross-section falls below this (or a tenth of its largest,
    where that is less): a few voxels are noise."""
    segment_min_overlap_mm: float = Field(2.0, ge=0.0, le=20.0)
    """A segment counts as touched where the collection reaches this far into it; partial
    volume alone reaches about one voxel."""
    segment_min_fraction: float = Field(0.005, ge=0.0, le=0.5)
    """... and holds this share of the collection's volume."""
    interlaminar_below_disc_mm: float = Field(5.0, ge=0.0, le=15.0)
    """Lumbar interlaminar windows lie at or 5 to 10 mm below their disc."""

    occupied_thickness_mm: float = Field(0.4, ge=0.05, le=5.0)
    """Fluid counts as lying in a direction around the sac from this radial thickness on."""
    circumferential_deg: float = Field(270.0, ge=180.0, le=360.0)
    """A collection surrounds the sac where it takes up this angle or more."""
    circumferential_length_mm: float = Field(20.0, ge=0.0, le=200.0)
    """... over at least this length, the pitch of about one level,"""
    circumferential_fraction: float = Field(0.33, ge=0.0, le=1.0)
    """... and this share of its own length."""
    canal_radius_mm: float = Field(14.0, ge=5.0, le=30.0)
    """Fluid further than this from the canal's centre lies outside the bony canal (lumbar
    canals are 14 to 16 mm deep and 22 to 28 mm wide)."""
    longitudinal_levels: float = Field(3.0, ge=1.0, le=24.0)
    """A band over this many levels is longitudinal (3 to 4 levels in the literature)."""
    longitudinal_length_mm: float = Field(95.0, ge=20.0, le=600.0)
    """The same where no level is named; three mean lumbar levels."""
    outside_fraction: float = Field(0.35, ge=0.05, le=1.0)
    """A collection whose volume lies outside the canal by this share is a pseudomeningocele
    (behind it) or periradicular (beside it)."""

    compression_smoothing_mm: float = Field(4.0, ge=0.0, le=20.0)
    """Gaussian sigma of sac areas before they are compared with their neighbours'."""
    compression_reach_mm: float = Field(45.0, ge=10.0, le=200.0)
    """Stretch above and below a collection whose sac areas say what to expect in between;
    more than one level, so that discs and bodies even out."""
    sac_bulge_ratio: float = Field(1.6, ge=1.0, le=5.0)
    """A segment whose sac, relative to what is usual there, is wider than the median segment's by
    this factor may hold fluid that lies outside the dura. Depths of the sac in 17 people without a
    leak suggest at most 1.43 (area as depth to the power of 1.8)."""
    sac_tip_margin_mm: float = Field(8.0, ge=0.0, le=40.0)
    """Sac areas this close to its end are not measured: it tapers there by nature."""
    sac_tip_area_mm2: float = Field(2.5, ge=0.5, le=60.0)
    """The sac ends where its cross-section falls below this; a few voxels of a pointed end."""
    sac_taper_mm: float = Field(35.0, ge=0.0, le=100.0)
    """Over this last stretch the sac narrows by nature (20 to 55 mm), so neither compression
    nor the back of the canal is read from it."""
    field_margin_mm: float = Field(4.0, ge=0.0, le=30.0)
    """What ends this close to the edge of the field may go on beyond it."""

    definite_confidence: float = Field(0.8, ge=0.0, le=1.0)
    """Collections from this confidence on are graded definite."""
    probable_confidence: float = Field(0.5, ge=0.0, le=1.0)
    """Collections from this confidence on are graded probable, below it possible."""
    small_volume_ml: float = Field(0.3, ge=0.0, le=5.0)
    """Below this volume the basis says that a root sleeve holds as much."""
    thin_voxels: float = Field(1.5, ge=0.0, le=5.0)
    """Below this thickness, in voxels of the mean size, the basis calls a collection thin."""
    low_snr: float = Field(10.0, ge=1.0, le=100.0)
    """Below this ratio of CSF signal to noise the basis calls the image noisy."""
    fat_factor: float = Field(0.6, ge=0.0, le=1.0)
    """Confidence where fat is bright and the collection may be fat."""

    alternatives_max: int = Field(3, ge=1, le=10)
    """Other segments named at most."""
    alternative_min_score: float = Field(0.05, ge=0.0, le=1.0)
    """Segments below this score are not worth naming."""
    section_error: float = Field(0.07, ge=0.0, le=1.0)
    """Relative standard deviation of the error of a cross-section, from 71 simulated collections
    of development patients, on which the network was trained (median 0.09)."""
    level_set_probability: float = Field(0.85, ge=0.0, le=1.0)
    """Least probability that the reported set of levels holds the largest cross-section. At 0.85
    it did in 97 % of the same 71 collections, with 1.3 segments on the mean."""

    blind_codes: tuple[str, ...] = ("no_myelogram", "no_fluid_sensitive_volume")
    """Notes of earlier stages after which no answer is given, for the input cannot tell."""
    max_blind_confidence: float = Field(0.45, ge=0.0, le=1.0)
    """Highest confidence of a collection then: below `probable_confidence`, hence possible."""
    absent_confidence: float = Field(0.8, ge=0.0, le=1.0)
    """Confidence of a negative answer without any doubtful signal; MR myelography missed one
    leak in eight to five in published series."""
    fat_min_probability: float = Field(0.25, ge=0.0, le=1.0)
    """Rejected signal of this probability that may be unsuppressed fat leaves the answer open."""
    numbering_caveat_below: float = Field(0.9, ge=0.0, le=1.0)
    """Below this confidence of the numbering the summary names the alternative too."""

    hiatus_min_confidence: float = Field(0.5, ge=0.0, le=1.0)
    """Below this confidence the sacral hiatus counts as not detected."""
    hiatus_min_from_sac_mm: float = Field(20.0, ge=0.0, le=60.0)
    """A hiatus nearer to the end of the thecal sac is not reported as detected (34.8 mm was
    the least of 200 adults: Park et al., Korean J Phys Anthropol 2016;29:145)."""
    hiatus_from_levels: bool = True
    """Whether distances are measured from S4 where the hiatus was not detected and S4 is in the
    field, with a warning and a range; otherwise no distance is reported."""
    hiatus_beyond_trace_mm: float = Field(15.0, ge=0.0, le=60.0)
    """How far below the traced canal S4 may lie for that; one sacral segment."""
    hiatus_fraction: float = Field(0.83, ge=0.5, le=1.1)
    """Usual place of its apex along the back of the sacral bodies: S4 in two thirds to four
    fifths of people, S3 or S5 in most others,"""
    hiatus_fraction_sd: float = Field(0.12, ge=0.02, le=1.0)
    """... and its spread between people."""
    hiatus_roof_fraction: float = Field(0.3, ge=0.1, le=0.6)
    """The roof of the sacral canal is followed from this share of the sacral bodies' back on:
    above, the thecal sac and the gaps between the arches of S1 and S2 disturb."""
    hiatus_roof_mm: float = Field(5.0, ge=1.0, le=12.0)
    """From the middle of that roof (4 to 7 mm thick) to the posterior epidural line before it."""
    hiatus_bright_factor: float = Field(0.6, ge=0.0, le=1.0)
    """Confidence of a hiatus found where fat in the canal is bright, and the roof before it and
    the fat under the skin run into one another, relative to one on a fat-suppressed image."""
    hiatus_min_below_mm: float = Field(6.0, ge=1.0, le=8.0)
    """The field must show this much without a roof below the apex: with half of it, a sacrum cut
    by the field's edge passed for one that ends (2 of 5 phantoms without a hiatus)."""
    hiatus_margin_mm: float = Field(8.0, ge=0.0, le=30.0)
    """The canal's middle goes on this far below the apex, half of the opening's height (16 to
    19 mm)."""
    posterior_epidural_mm: float = Field(1.0, ge=0.0, le=8.0)
    """From the back of the sac to the path: just behind the dura, where the posterior epidural
    space is left open even between its fat pads."""
    default_dorsal_mm: float = Field(2.5, ge=0.0, le=10.0)
    """From the canal's centre to the path where neither sac nor sacral canal was seen."""
    epidural_dark_fraction: float = Field(0.5, ge=0.1, le=0.9)
    """The posterior epidural space ends where the signal behind the sac falls below this share
    of what fills it, at the dark flaval ligament or the arch."""
    epidural_depth_max_mm: float = Field(12.0, ge=4.0, le=30.0)
    """Deeper than this it is not measured: the arch is missing or not seen."""
    skin_air_fraction: float = Field(0.12, ge=0.01, le=0.5)
    """Air begins where signal stays below this share of the brightest fat under the skin."""
    interlaminar_reach_mm: float = Field(60.0, ge=10.0, le=200.0)
    """Windows further than this from the level are not named; under two lumbar levels."""
    interlaminar_max: int = Field(3, ge=1, le=10)
    """Windows named at most."""
    path_step_mm: float = Field(2.0, ge=0.5, le=10.0)
    """Distance between points of a path."""
    path_smoothing_mm: float = Field(8.0, ge=0.0, le=40.0)
    """Gaussian sigma of the path's distance from the centreline; a catheter does not follow
    every dent of the sac."""
    path_sd_fraction: float = Field(0.10, ge=0.0, le=0.5)
    """Spread of path lengths between people, as a share of the length,"""
    path_sd_mm: float = Field(8.0, ge=0.0, le=50.0)
    """... and in mm, added in quadrature."""
    path_max_sd: float = Field(3.0, ge=1.0, le=10.0)
    """Paths further than this many spreads from the mean are called implausible."""


class ReportSettings(_Section):
    """What is written, and how much of the patient's identity goes with it."""

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
    """What is written; report.json always is, it makes the folder a report. `relabel` is
    relabel.npz, from which `leakloc relabel` names the levels anew. On demand too: pdf (the
    figures as lines and type), html3d (a page in three dimensions, needs WebGL2) and csv
    (collections.csv and levels.csv)."""
    identity: Literal["keep", "hash", "remove"] = "hash"
    """Patient ID and accession number in report.json and report.html: as in the headers,
    as a keyed hash (key: environment variable LEAKLOC_IDENTITY_KEY), or null (the study
    date too). The Study Instance UID always stays, planners find the images by it."""
    dicom_identity: Literal["keep", "remove"] = "keep"
    """Patient module of the DICOM objects: that of the source images, because an archive
    files them beside the images by it, or empty."""
    level_scheme: Literal[
        "leakloc", "totalspineseg", "spineps", "totalsegmentator", "totalsegmentator_mr", "sct"
    ] = "leakloc"
    """Whose values masks/levels.nii.gz is written with (`leakloc.levels.schemes`), so that it
    can stand in for that program's map; vertebrae it has no value for are left out of the map."""
    mask_compression: int = Field(1, ge=0, le=9)
    """gzip level of the masks: masks hardly shrink beyond level 1, which is the fastest."""
    picture_height_px: int = Field(900, ge=400, le=2000)
    """Height of a picture, so that it is legible at 1:1 on a full-HD screen."""


class NodeSettings(_Section):
    """Receiving studies from a network and sending results back; no part of an analysis."""

    settle_s: float = Field(60.0, ge=0.1, le=86400)
    """How long nothing of a study may arrive, and no association that sent of it be open, before
    it is analysed: scanners and archives send a study in several associations with pauses."""
    max_associations: int = Field(16, ge=1, le=200)
    """Senders at a time: archives open 1 to 8, some scanners one per series."""
    max_instance_mib: int = Field(1024, ge=1, le=4096)
    """Largest object taken: an enhanced MR object of 2000 frames of 384 x 384 has 560 MiB."""
    max_receiving_mib: int = Field(2048, ge=1, le=65536)
    """Objects being received, all senders together, that are held in memory."""
    max_study_instances: int = Field(20000, ge=1, le=1000000)
    """Most objects of one study: ten times what a large spine study has."""
    min_free_mib: int = Field(1024, ge=0, le=1048576)
    """Room on the disk below which nothing is taken (status A700); results need room too."""
    network_timeout_s: float = Field(60.0, ge=1, le=3600)
    """An association silent for this long is closed, and so is a send that stalls."""
    also_accept: tuple[str, ...] = ()
    """UIDs of further storage SOP classes to keep beside the MR images, for archives that only
    send whole studies; they are not analysed."""
    resend_s: float = Field(60.0, ge=0.1, le=86400)
    """Wait before a failed send is tried again; doubled each time, up to an hour."""
    resend_for_h: float = Field(72.0, ge=0, le=8760)
    """How long sending is tried: an archive may be down over a weekend."""
    tls_certificate: str = ""
    """PEM file of this node's certificate; it then speaks TLS only. Empty for none."""
    tls_key: str = ""
    """PEM file of its key; empty where the certificate's file holds it."""
    tls_authorities: str = ""
    """PEM file of the authorities that certify peers. Senders must then show a certificate, the
    only real proof of who calls: AE titles are names, not passwords."""
    tls_return: bool = False
    """Whether results are sent back over TLS, to a peer whose certificate is checked."""
    poll_s: float = Field(30.0, ge=0.1, le=86400)
    """Time between two queries of a DICOMweb server."""
    look_back_days: int = Field(3, ge=0, le=36500)
    """Studies of a DICOMweb server older than this are left alone: an archive holds years."""
    select: Literal["spine", "mr"] = "spine"
    """Which MR studies of a DICOMweb server are taken: those whose descriptions name the spine or
    say nothing, or all."""


class Settings(_Section):
    """All settings of one analysis."""

    stages: StageSettings = Field(default_factory=StageSettings)
    """Which implementation runs each swappable stage."""
    loaders: LoaderSettings = Field(default_factory=LoaderSettings)
    """Reading files and choosing series."""
    segmentation: SegmentationSettings = Field(default_factory=SegmentationSettings)
    """Fluid map, canal, dura and collections."""
    levels: LevelSettings = Field(default_factory=LevelSettings)
    """Finding and numbering vertebrae."""
    localization: LocalizationSettings = Field(default_factory=LocalizationSettings)
    """Mapping collections to levels, grading, planning."""
    report: ReportSettings = Field(default_factory=ReportSettings)
    """What is written, and how much of the patient's identity goes with it."""
    node: NodeSettings = Field(default_factory=NodeSettings)
    """Receiving studies from a network and sending results back; no part of an analysis."""

    @classmethod
    def load(cls, path: str | Path) -> Settings:
        """Read a TOML recipe; sections and keys as `leakloc config` prints them.

        Raises
        ------
        SettingsError
            If the file cannot be read, or a key or value is not one of ours.
        """
        import tomllib

        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"cannot read the recipe {path}: {error}") from error
        values.pop("recipe", None)  # name and description, for humans
        return cls.from_dict(values, source=str(path))

    @classmethod
    def from_dict(cls, values: dict[str, Any], source: str = "settings") -> Settings:
        """Validate nested values; unknown keys and values out of range are errors."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SettingsError(f"{source}: {where}: {first['msg']}") from error

    def changed(self, **values: Any) -> Settings:
        """A copy with some values replaced, named ``section__key=value``.

        Examples
        --------
        >>> Settings().changed(stages__labeler="mine").stages.labeler
        'mine'
        """
        nested = self.model_dump(mode="python")
        for name, value in values.items():
            section, _, key = name.partition("__")
            if section not in nested or key not in nested[section]:
                raise SettingsError(f"no setting is named {name!r}; write section__key")
            nested[section][key] = value
        return self.from_dict(nested)

    def differences(self) -> dict[str, dict[str, Any]]:
        """The values that are not the defaults, by section and key.

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
        """Write a recipe that `load` and ``leakloc analyze --pipeline`` take.

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
        """Digest of all values an analysis depends on, the same on every machine."""
        text = json.dumps(self.model_dump(mode="json", exclude={"node"}), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_toml(self) -> str:
        """All values as TOML, each with its documentation as a comment."""
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
    """The TOML file of a recipe: a path, or the name of one that comes with leakloc.

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
        f"no recipe file {name!r}; name a TOML file or one of: {', '.join(known) or 'none shipped'}"
    )
