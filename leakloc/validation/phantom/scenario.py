"""Scenarios of the phantom: findings, anatomy, acquisition, artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal, TypedDict, TypeVar

from leakloc.anatomy.vocabulary import Position
from leakloc.core.errors import SettingsError, suggestion
from leakloc.validation.phantom.tissues import TissueName

FieldOfView = Literal[
    "lumbar", "lumbar_without_hiatus", "thoracolumbar", "cervicothoracic", "whole_spine"
]
Vendor = Literal["siemens", "ge", "philips", "canon", "uih"]
SequenceName = Literal[
    "ht2w_3d",
    "ht2w_bssfp",
    "ht2w_slab",
    "ht2w_mip",
    "t2_sagittal",
    "stir_sagittal",
    "t1_sagittal",
    "t2_axial",
    "t1_axial_post",
    "localizer",
    "t1_axial",
    "t1_sagittal_post",
    "t1_intrathecal",
    "ht2w_coronal",
    "t2_fs_sagittal",
]
_Scenario = TypeVar("_Scenario")
CollectionKind = Literal["epidural", "periradicular"]
LumbosacralShape = Literal["regular", "sacralised", "lumbarised"]


@dataclass(frozen=True)
class CollectionSpec:
    """Specification of one epidural collection; shape and extent vary with the seed.

    Parameters
    ----------
    levels : tuple of str
        Candidate motion segments of its center; one is drawn.
    position : str
        Side of the sac.
    kind : str
        ``"epidural"``: a layer along the sac; ``"periradicular"``: fluid around one root.
    thickness_mm : tuple of float
        Range of the maximum thickness between dura and canal wall.
    cranial_levels, caudal_levels : tuple of float
        Ranges of the cranial and caudal extent from the segment, in levels.
    tissue : str
        Tissue that fills it.
    pseudomeningocele_mm : tuple of float
        Range of the mean radius of a pool posterior to the laminae; (0, 0) for none.
    tract : bool
        Whether a tract connects the pool to a subcutaneous collection.
    rim_mm : float
        Thickness of a rim of tissue around it that enhances after intravenous contrast.
    dural_gap_mm : tuple of float
        Range of the width of a gap in the dura filled with CSF, of double length along the canal,
        between sac and epidural layer; (0, 0) for none.
    """

    levels: tuple[str, ...]
    position: Position
    kind: CollectionKind = "epidural"
    thickness_mm: tuple[float, float] = (3.0, 6.0)
    cranial_levels: tuple[float, float] = (0.8, 1.6)
    caudal_levels: tuple[float, float] = (0.8, 1.6)
    tissue: TissueName = "epidural_csf"
    pseudomeningocele_mm: tuple[float, float] = (0.0, 0.0)
    tract: bool = False
    rim_mm: float = 0.0
    dural_gap_mm: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class MimicSpec:
    """Specification of bright fluid that mimics a collection.

    Parameters
    ----------
    kind : str
        ``"perineural_cyst"`` around a root, which passes through its center,
        ``"root_diverticulum"`` next to a root, ``"facet_cyst"`` adjacent to a facet joint,
        ``"seroma"`` in the wound posterior to the spine without contact to the canal,
        ``"hematoma"`` in the dorsal epidural space.
    levels : tuple of str
        Motion segments (for root cysts and diverticula the root is named after the lower
        vertebra).
    radius_mm : tuple of float
        Range of the mean radius; for a hematoma, of the thickness.
    """

    kind: Literal["perineural_cyst", "root_diverticulum", "facet_cyst", "seroma", "hematoma"]
    levels: tuple[str, ...]
    radius_mm: tuple[float, float]


@dataclass(frozen=True)
class RetrospinalSpec:
    """Specification of retrospinal fluid between the posterior arches of C1 and C2.

    Parameters
    ----------
    half_width_mm, half_height_mm, half_depth_mm : tuple of float
        Ranges of its lateral, craniocaudal and anteroposterior half axes.
    """

    half_width_mm: tuple[float, float] = (8.0, 15.0)
    half_height_mm: tuple[float, float] = (3.5, 6.0)
    half_depth_mm: tuple[float, float] = (2.5, 5.0)


@dataclass(frozen=True)
class Scenario:
    """Definition of a phantom study, except for the seed.

    Create custom scenarios with `dataclasses.replace`, for example
    ``replace(SCENARIOS["normal"], snr=15.0, obliquity_deg=12.0)``.
    """

    name: str
    """Part of the random seed; the anatomy depends on the name."""
    description: str
    collections: tuple[CollectionSpec, ...] = ()
    mimics: tuple[MimicSpec, ...] = ()
    retrospinal: RetrospinalSpec | None = None
    """Retrospinal fluid at C1-C2, not a collection; with None all other draws are the same."""
    atlas: bool = False
    """Model dens, posterior arch of C1 and the foramen magnum above them. Otherwise the canal
    opens 8 mm above C2, without C1."""
    laminectomy: bool = False
    """Remove laminae and spinous process at the segment of the first collection or mimic."""
    lumbar_counts: tuple[int, ...] = (5,)
    """Numbers of lumbar vertebrae; one is drawn."""
    lumbosacral: tuple[LumbosacralShape, ...] = ("regular",)
    """Shapes of the lumbosacral junction; one is drawn. ``"sacralised"``: the last lumbar
    vertebra is partially sacralized; ``"lumbarised"``: the first sacral one is partially
    lumbarized. Vertebrae are named by counting from C2."""
    scoliosis_deg: tuple[float, float] = (0.0, 6.0)
    """Range of the Cobb angle of the lateral curve."""
    stenosis_area_mm2: float | None = None
    """Sac area at the segment of the first collection; None for no stenosis."""
    abdominal_fluid: float = 0.15
    """Fraction of the bowel filled with fluid, 0 to 1; above 0.5 also ureters, full bladder,
    gallbladder and pleural fluid."""
    screws: bool = False
    """Pedicle screws at the three vertebrae around the first collection."""

    vendor: Vendor | None = None
    """Vendor of names and headers; None to draw one."""
    field_t: float | None = None
    """1.5 or 3.0; None to draw one."""
    field_of_view: FieldOfView = "lumbar"
    series: tuple[SequenceName, ...] = (
        "localizer",
        "t2_sagittal",
        "ht2w_3d",
        "ht2w_mip",
        "ht2w_slab",
    )
    """Series of the study in scanner order, without optional series."""
    optional_series: tuple[SequenceName, ...] = ("stir_sagittal", "t1_sagittal", "t2_axial")
    """Series added with a probability of 0.5 each."""
    myelogram_shape: tuple[int, int, int] = (320, 320, 112)
    """Rows, columns and slices of the three-dimensional myelogram (per station)."""
    voxel_mm: float | None = None
    """In-plane voxel of the myelogram; None for 320 mm over the rows (350 mm
    thoracolumbar)."""
    slice_mm: float = 1.0
    """Slice spacing of the myelogram."""
    plane: Literal["sagittal", "coronal", "axial"] | None = "sagittal"
    """Plane of the myelogram; None to draw sagittal or coronal. Axial slices cover the body
    craniocaudally, rows and columns its depth and width; they require a voxel size and do not
    support projections."""
    obliquity_deg: tuple[float, float] = (0.0, 4.0)
    """Range of the tilt of the grid relative to the patient."""
    localizer: Literal["three_planes", "whole_spine"] = "three_planes"
    """Three planes of each orientation, or sagittal planes from the skull to the coccyx."""
    companion_matrix: int = 320
    """Rows and columns of the sagittal companions."""
    axial_voxel_mm: float = 0.75
    """In-plane voxel of axial companions, with a field of view of 192 mm."""
    stations: int = 1
    """Number of stations of the myelogram; if more than one, it is also written composed."""
    station_gain: float = 0.2
    """Maximum relative gain difference between stations."""
    station_shift_mm: float = 2.0
    """Maximum shift of the patient between stations."""

    echo_time_ms: float | None = None
    """Nominal echo time of the myelogram; None for the usual value of the vendor."""
    snr: float = 40.0
    """CSF signal divided by noise at the center of the myelogram."""
    bias: float = 0.2
    """Relative strength of the smooth variation of the receive field (the standard deviation
    is about half of it)."""
    end_rolloff: float = 0.35
    """Signal loss at the cranial and caudal end of the field."""
    pulsation: float = 0.35
    """Depth of flow voids in CSF, 0 to 1."""
    fat_residual: float = 0.07
    """Fraction of fat signal after suppression."""
    fat_failure_patches: int = 0
    """Number of regions in which fat suppression fails."""
    epidural_fat_failure: str | None = None
    """Vertebra at which fat suppression fails posterior to the sac, in addition to these regions;
    None for none."""
    wrap: float = 0.0
    """Strength of fold-over from the ends of the field, 0 to 1."""
    ghosts: float = 0.01
    """Strength of pulsation ghosts along the phase direction, as a fraction of CSF signal."""
    anonymised: bool = False
    """Write series without descriptions and sequence names."""


_DORSAL: Final = CollectionSpec(
    ("L2-L3", "L3-L4", "L4-L5", "L5-S1"), "dorsal", thickness_mm=(4.0, 7.0)
)

_VENTRAL_CERVICOTHORACIC: Final = CollectionSpec(
    ("C6-C7", "C7-T1", "T1-T2", "T2-T3", "T3-T4"),
    "ventral",
    thickness_mm=(2.5, 4.5),
    cranial_levels=(1.5, 3.5),
    caudal_levels=(1.5, 3.5),
)


class _Cervicothoracic(TypedDict):
    atlas: bool
    field_of_view: FieldOfView
    myelogram_shape: tuple[int, int, int]


_CERVICOTHORACIC: Final[_Cervicothoracic] = {
    "atlas": True,
    "field_of_view": "cervicothoracic",
    "myelogram_shape": (288, 192, 72),
}

_ALL: Final = (
    Scenario("normal", "healthy spine, no epidural fluid"),
    Scenario(
        "postoperative_dorsal",
        "dorsal collection after laminectomy, largest at about L4-L5, with a pool in the "
        "surgical bed and a tract to the skin side",
        collections=(
            CollectionSpec(
                ("L3-L4", "L4-L5", "L4-L5", "L4-L5", "L5-S1"),
                "dorsal",
                thickness_mm=(5.0, 8.5),
                cranial_levels=(0.9, 1.8),
                caudal_levels=(0.8, 2.2),
                pseudomeningocele_mm=(9.0, 15.0),
                tract=True,
            ),
        ),
        laminectomy=True,
    ),
    Scenario(
        "ventral_longitudinal",
        "ventral longitudinal collection over many thoracolumbar levels",
        collections=(
            CollectionSpec(
                ("T10-T11", "T11-T12", "T12-L1", "L1-L2"),
                "ventral",
                thickness_mm=(2.5, 5.0),
                cranial_levels=(2.5, 4.5),
                caudal_levels=(2.0, 3.5),
            ),
        ),
        field_of_view="thoracolumbar",
    ),
    Scenario(
        "circumferential_thin",
        "thin fluid all round the sac over several levels",
        collections=(
            CollectionSpec(
                ("T12-L1", "L1-L2", "L2-L3", "L3-L4"),
                "circumferential",
                thickness_mm=(1.5, 2.4),
                cranial_levels=(1.5, 3.0),
                caudal_levels=(1.5, 3.0),
            ),
        ),
    ),
    Scenario(
        "periradicular_left",
        "fluid around one left nerve root beyond its sleeve",
        collections=(
            CollectionSpec(
                ("L1-L2", "L2-L3", "L3-L4", "L4-L5"),
                "left",
                kind="periradicular",
                thickness_mm=(4.5, 7.0),
            ),
        ),
    ),
    Scenario(
        "perineural_cyst",
        "perineural cyst of a sacral root: a mimic, no leak",
        mimics=(MimicSpec("perineural_cyst", ("S1-S2", "S1-S2", "S2-S3"), (4.5, 8.5)),),
    ),
    Scenario(
        "seroma_apart",
        "wound seroma without contact to the canal after surgery: no leak",
        mimics=(MimicSpec("seroma", ("L3-L4", "L4-L5", "L5-S1"), (9.0, 15.0)),),
    ),
    Scenario(
        "hematoma",
        "postoperative epidural haematoma, dark on heavy T2 weighting: no leak",
        mimics=(MimicSpec("hematoma", ("L3-L4", "L4-L5", "L5-S1"), (4.0, 7.0)),),
        laminectomy=True,
    ),
    Scenario(
        "facet_cysts",
        "facet effusions and synovial cysts on degenerate joints: no leak",
        mimics=(
            MimicSpec("facet_cyst", ("L3-L4", "L4-L5"), (3.0, 5.5)),
            MimicSpec("facet_cyst", ("L4-L5", "L5-S1"), (3.0, 5.5)),
        ),
    ),
    Scenario(
        "metal",
        "pedicle screws with a dorsal collection",
        collections=(_DORSAL,),
        laminectomy=True,
        screws=True,
        fat_failure_patches=1,
    ),
    Scenario(
        "fat_suppression_failure",
        "patches in which fat stays bright, with a dorsal collection",
        collections=(_DORSAL,),
        fat_failure_patches=3,
        fat_residual=0.15,
    ),
    Scenario(
        "transitional",
        "four or six lumbar vertebrae with a dorsal collection",
        collections=(CollectionSpec(("L2-L3", "L3-L4"), "dorsal", thickness_mm=(4.0, 7.0)),),
        lumbar_counts=(4, 6),
    ),
    Scenario(
        "transitional_shape",
        "sacralised L5 or lumbarised S1 with a dorsal collection",
        collections=(CollectionSpec(("L2-L3", "L3-L4"), "dorsal", thickness_mm=(4.0, 7.0)),),
        lumbosacral=("sacralised", "lumbarised"),
    ),
    Scenario(
        "lumbar_without_hiatus",
        "field of view ends above the sacral hiatus; dorsal collection",
        collections=(_DORSAL,),
        field_of_view="lumbar_without_hiatus",
    ),
    Scenario(
        "scoliosis",
        "lateral curve of 15 to 25 degrees with a collection",
        collections=(_DORSAL,),
        scoliosis_deg=(15.0, 25.0),
    ),
    Scenario(
        "stenosis",
        "narrow canal at the level of a dorsal collection",
        collections=(CollectionSpec(("L3-L4", "L4-L5"), "dorsal", thickness_mm=(3.0, 5.0)),),
        stenosis_area_mm2=60.0,
    ),
    Scenario(
        "three_stations",
        "whole spine in three stations with seams, and a collection",
        collections=(
            CollectionSpec(
                ("T6-T7", "T9-T10", "T12-L1", "L2-L3"),
                "dorsal",
                thickness_mm=(3.0, 5.0),
                cranial_levels=(1.5, 3.0),
                caudal_levels=(1.5, 3.0),
            ),
        ),
        field_of_view="whole_spine",
        stations=3,
        myelogram_shape=(288, 288, 72),
        voxel_mm=1.0,
    ),
    Scenario(
        "abdominal_fluid",
        "full bladder, fluid-filled bowel, ureters, gallbladder: no leak",
        abdominal_fluid=0.9,
        myelogram_shape=(320, 320, 128),
    ),
    Scenario(
        "wrap",
        "fold-over from beyond the field's end; dorsal collection",
        collections=(_DORSAL,),
        wrap=0.10,
    ),
    Scenario(
        "anonymised_headers",
        "series without names or sequence strings; dorsal collection",
        collections=(_DORSAL,),
        anonymised=True,
    ),
    Scenario(
        "slab_only",
        "thick projection slabs only: nothing that has depth, to be refused",
        series=("localizer", "ht2w_slab"),
        optional_series=(),
    ),
    Scenario(
        "cervicothoracic",
        "skull base to the middle thoracic spine, no epidural fluid",
        **_CERVICOTHORACIC,
    ),
    Scenario(
        "retrospinal_c1_c2",
        "retrospinal fluid at C1-C2 with a ventral collection at the cervicothoracic junction",
        collections=(_VENTRAL_CERVICOTHORACIC,),
        retrospinal=RetrospinalSpec(),
        **_CERVICOTHORACIC,
    ),
    Scenario(
        "retrospinal_c1_c2_only",
        "retrospinal fluid at C1-C2 without a collection in the field of view",
        retrospinal=RetrospinalSpec(),
        **_CERVICOTHORACIC,
    ),
)

SCENARIOS: Final[dict[str, Scenario]] = {scenario.name: scenario for scenario in _ALL}
"""Scenarios by name (S0 to S23)."""


def compact(scenario: Scenario) -> Scenario:
    """Return the scenario as a small study (under 12 MB): coarser voxels, two main series.

    For sample data and tests; the anatomy of a seed is unchanged.

    Parameters
    ----------
    scenario : Scenario
        A scenario with a single-station lumbar or thoracolumbar field.
    """
    return replace(
        scenario,
        series=("localizer", "t2_sagittal", "ht2w_3d", "ht2w_mip"),
        optional_series=(),
        myelogram_shape=(256, 160, 72),
        voxel_mm=1.25 if scenario.field_of_view != "thoracolumbar" else 1.45,
        slice_mm=1.25,
        companion_matrix=256,
    )


def find_scenario(wanted: str | _Scenario, known: Mapping[str, _Scenario]) -> _Scenario:
    """Return a scenario by name; a custom scenario is returned unchanged.

    Raises
    ------
    SettingsError
        If no scenario has that name.
    """
    if not isinstance(wanted, str):
        return wanted
    if wanted not in known:
        hint = suggestion(wanted, known) or f"; one of: {', '.join(known)}"
        raise SettingsError(f"no scenario is named {wanted!r}{hint}")
    return known[wanted]
