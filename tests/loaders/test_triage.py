"""Header sets as scanners of several vendors, countries and anonymisers write them."""

# ruff: noqa: E501 - a table of header sets reads best one set a line
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from leakloc.core.errors import InputError
from leakloc.core.notes import Note
from leakloc.core.settings import LoaderSettings
from leakloc.core.volume import Geometry, Volume
from leakloc.loaders import series_table, triage
from leakloc.loaders.facts import gather
from leakloc.loaders.roles import roles
from leakloc.loaders.study import SeriesStack, Study, StudyInfo

SETTINGS = LoaderSettings()
DIRECTIONS = {
    "sagittal": np.array([[0, 0, -1.0], [1, 0, 0], [0, -1, 0]]),
    "coronal": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "axial": np.eye(3),
}
GRIDS = {
    "iso": ((70, 64, 64), (0.9, 0.9, 0.9)),
    "2d": ((15, 96, 96), (0.7, 0.7, 4.4)),
    "few": ((5, 64, 64), (1.5, 1.5, 10.0)),
    "slab": ((12, 64, 64), (0.8, 0.8, 40.0)),
}
HEAVY, MODERATE, ORDINARY = 0.04, 0.19, 0.55
_count = iter(range(1, 100_000))


def stack(
    description: str = "",
    plane: str = "sagittal",
    grid: str = "iso",
    tissue: float = ORDINARY,
    *,
    uid: str | None = "new",
    frame: str | None = "1.2.3",
    modality: str = "MR",
    notes: tuple[Note, ...] = (),
    shift_z_mm: float = 0.0,
    array: np.ndarray | None = None,
    regular: bool = True,
    **parameters: Any,
) -> SeriesStack:
    """A stack whose middle holds a bright tube in tissue of a specified fraction of its signal."""
    number = next(_count)
    shape, spacing = GRIDS[grid]
    geometry = Geometry.from_axes(
        shape,
        origin_lps=(0.0, 0.0, shift_z_mm),
        spacing_ijk_mm=spacing,
        directions_lps=DIRECTIONS[plane],
        frame_of_reference_uid=frame,
    )
    if array is None:
        rng = np.random.default_rng(0)
        array = 1000 * tissue * rng.uniform(0.8, 1.0, shape)
        tube = [slice(n * 9 // 20, n * 11 // 20 + 1) for n in shape]
        tube[1 if plane != "axial" else 0] = slice(None)
        array[tuple(tube)] = 1000
    volume = Volume(array.astype(np.float32), geometry)

    def read() -> Volume:
        if not regular:
            raise InputError("cannot decode")
        return volume

    return SeriesStack(
        series_instance_uid=f"1.2.{number}" if uid == "new" else uid,
        description=description,
        modality=modality,
        n_instances=shape[0],
        parameters=parameters,
        geometry=geometry if regular else None,
        files=(Path("x"),),
        sop_instance_uids=("1",),
        read=read,
        series_number=number,
        notes=notes,
    )


def study(*stacks: SeriesStack) -> Study:
    return Study(StudyInfo(), stacks)


SE, GR, IR = ({"ScanningSequence": kind} for kind in ("SE", "GR", ["IR", "SE"]))
HASTE = {**SE, "RepetitionTime": 8000.0, "EchoTime": 1200.0, "SliceThickness": 40.0}
SPACE = {**SE, "RepetitionTime": 3000.0, "EchoTime": 560.0, "SliceThickness": 0.9}
TSE = {**SE, "RepetitionTime": 3500.0, "EchoTime": 105.0, "MRAcquisitionType": "2D"}
SE_T1 = {**SE, "RepetitionTime": 600.0, "EchoTime": 12.0, "MRAcquisitionType": "2D"}
TIRM = {**IR, "RepetitionTime": 4500.0, "EchoTime": 60.0, "InversionTime": 160.0}

# description, expected role, plane, grid, tissue fraction, parameters
DIALECTS: list[tuple[str, str, str, str, float, dict[str, Any]]] = [
    # --- myelography: 3D heavy T2, any language
    ("t2_spc_sag_myelo_p2", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    ("3D CUBE MYELO", "myelogram", "coronal", "iso", HEAVY, {**SPACE, "EchoTime": 480.0}),
    ("WIP 3D_VISTA_HT2W SENSE", "myelogram", "sagittal", "iso", HEAVY, {**SPACE, "EchoTime": 650.0}),
    ("Myelographie LWS 3D", "myelogram", "sagittal", "iso", HEAVY, {**SPACE, "EchoTime": 270.0}),
    ("myélo-IRM 3D", "myelogram", "coronal", "iso", HEAVY, SPACE),
    ("MIELO RM LOMBAR", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    ("Hidro-RM coluna", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    ("миелография 3D", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    ("ミエログラフィー", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    ("椎管水成像", "myelogram", "coronal", "iso", HEAVY, SPACE),
    ("척수강조영술 3D", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    ("MRM ax", "myelogram", "axial", "2d", HEAVY, {**TSE, "EchoTime": 650.0}),
    ("SSFSE AX HEAVILY T2", "myelogram", "axial", "2d", HEAVY, {**SE, "EchoTime": 300.0}),
    ("haste multislice sag", "myelogram", "sagittal", "2d", HEAVY, {**SE, "EchoTime": 450.0}),
    # unnamed, by echo time and pixels
    ("Sag 3D T2 FS", "myelogram", "sagittal", "iso", HEAVY, {**SPACE, "EchoTime": 250.0}),
    ("", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    ("series 7", "myelogram", "coronal", "iso", MODERATE, SPACE),
    # Effective echo time only (enhanced MR)
    ("SAG ISO", "myelogram", "sagittal", "iso", HEAVY, {"EffectiveEchoTime": 500.0}),
    # header stripped by an anonymiser: pixels alone
    ("", "myelogram", "sagittal", "iso", HEAVY, {}),
    ("CISS myelo", "myelogram", "sagittal", "iso", MODERATE, {**GR, "EchoTime": 2.5}),
    # balanced steady state
    ("t2_ci3d_sag_iso", "myelogram", "sagittal", "iso", MODERATE, {**GR, "EchoTime": 2.4, "RepetitionTime": 5.6, "FlipAngle": 50.0, "MRAcquisitionType": "3D"}),
    ("3D FIESTA-C SAG", "myelogram", "sagittal", "iso", MODERATE, {**GR, "EchoTime": 2.1, "RepetitionTime": 6.5, "MRAcquisitionType": "3D"}),
    ("3D True SSFP SAG", "myelogram", "sagittal", "iso", ORDINARY, {**GR, "EchoTime": 2.4, "RepetitionTime": 5.0, "MRAcquisitionType": "3D"}),
    ("", "myelogram", "sagittal", "iso", MODERATE, {**GR, "SequenceVariant": "SS", "EchoTime": 2.4, "RepetitionTime": 5.0, "FlipAngle": 50.0, "MRAcquisitionType": "3D"}),
    ("t1_vibe_sag", "sagittal_t1", "sagittal", "iso", ORDINARY, {**GR, "SequenceVariant": ["SS", "SP"], "EchoTime": 1.8, "RepetitionTime": 4.0, "FlipAngle": 10.0, "MRAcquisitionType": "3D"}),
    # --- the echo-time trap: variable flip angle, ordinary T2
    ("T2 Spine View", "sagittal_t2", "sagittal", "iso", ORDINARY, {**SPACE, "EchoTime": 309.0}),
    ("t2_spc_sag_iso", "sagittal_t2", "sagittal", "iso", ORDINARY, SPACE),
    ("t2_space_sag_p2_iso", "sagittal_t2", "sagittal", "iso", 0.3, {**SPACE, "EchoTime": 124.0, "RepetitionTime": 1000.0}),
    # --- sagittal T2
    ("t2_tse_sag_384", "sagittal_t2", "sagittal", "2d", ORDINARY, TSE),
    ("SAG T2 FRFSE", "sagittal_t2", "sagittal", "2d", ORDINARY, {**TSE, "ScanOptions": "FC_SLICE_AX_GEMS"}),
    ("T2W_TSE_SAG", "sagittal_t2", "sagittal", "2d", ORDINARY, {**TSE, "EchoTime": 120.0}),
    ("t2_tse_sag_384_C1-C8_COMP_SP_1", "sagittal_t2", "sagittal", "2d", ORDINARY, {**TSE, "ImageType": ["DERIVED", "PRIMARY", "M", "COMP_SP"]}),
    ("", "sagittal_t2", "sagittal", "2d", ORDINARY, TSE),
    ("T2 sagital columna", "sagittal_t2", "sagittal", "2d", ORDINARY, {}),
    ("saggital t2 metastatic myeloma", "sagittal_t2", "sagittal", "2d", ORDINARY, TSE),
    ("cervical myelopathy T2 sag", "sagittal_t2", "sagittal", "2d", ORDINARY, TSE),
    ("myelomeningocele t2 sag", "sagittal_t2", "sagittal", "2d", ORDINARY, TSE),
    # --- STIR and Dixon water
    ("t2_tirm_sag", "sagittal_stir", "sagittal", "2d", ORDINARY, TIRM),
    ("Sag STIR", "sagittal_stir", "sagittal", "2d", ORDINARY, {**TSE, "EchoTime": 50.0}),
    ("STIR longTE SENSE", "sagittal_stir", "sagittal", "2d", ORDINARY, {**TIRM, "InversionTime": 210.0, "MagneticFieldStrength": 3.0}),
    ("t2_tse_dixon_sag_W", "sagittal_stir", "sagittal", "2d", ORDINARY, {**TSE, "ImageType": ["DERIVED", "PRIMARY", "DIXON", "WATER"]}),
    ("t2_tse_dixon_sag_F", "other", "sagittal", "2d", ORDINARY, {**TSE, "ImageType": ["DERIVED", "PRIMARY", "DIXON", "FAT"]}),
    ("t2_tse_dixon_sag_opp", "other", "sagittal", "2d", ORDINARY, TSE),
    # --- axial T2, T1, T1 with contrast
    ("t2_tse_tra", "axial_t2", "axial", "2d", ORDINARY, TSE),
    ("AX T2 L3-S1", "axial_t2", "axial", "2d", ORDINARY, TSE),
    ("t1_tse_sag", "sagittal_t1", "sagittal", "2d", ORDINARY, SE_T1),
    ("SAG T1 FLAIR", "sagittal_t1", "sagittal", "2d", ORDINARY, {**IR, "EchoTime": 20.0, "RepetitionTime": 2500.0, "InversionTime": 860.0}),
    ("t1_tse_tra_KM", "axial_t1_post", "axial", "2d", ORDINARY, SE_T1),
    ("Ax T1 +C", "axial_t1_post", "axial", "2d", ORDINARY, SE_T1),
    ("t1 tra", "axial_t1_post", "axial", "2d", ORDINARY, {**SE_T1, "ContrastBolusAgent": "Gadovist"}),
    ("t1 tra nativ", "other", "axial", "2d", ORDINARY, {**SE_T1, "ContrastBolusAgent": "Gadovist"}),
    ("t1 tra", "other", "axial", "2d", ORDINARY, SE_T1),
    ("pd_tse_sag", "other", "sagittal", "2d", ORDINARY, {**TSE, "EchoTime": 30.0}),
    ("t2_medic_tra", "other", "axial", "2d", ORDINARY, {**GR, "EchoTime": 17.0, "RepetitionTime": 900.0}),
    # --- projections: no depth
    ("t2_haste_COR_myelo", "projection", "coronal", "slab", HEAVY, HASTE),
    ("MYELO SSH radial", "projection", "coronal", "slab", HEAVY, {**HASTE, "SliceThickness": 50.0}),
    ("MIP myelo", "projection", "coronal", "iso", HEAVY, SPACE),
    ("t2_spc_myelo MPR cor", "projection", "coronal", "iso", HEAVY, SPACE),
    ("spc myelo", "projection", "coronal", "iso", HEAVY, {**SPACE, "ImageType": ["DERIVED", "SECONDARY", "MIP"]}),
    ("spc myelo 2", "projection", "coronal", "iso", HEAVY, {**SPACE, "VolumeBasedCalculationTechnique": "MAX_IP"}),
    # --- not the spine, not anatomy
    ("localizer", "localizer", "sagittal", "few", ORDINARY, {**GR, "EchoTime": 5.0}),
    ("3-plane loc", "localizer", "axial", "few", ORDINARY, {**GR, "EchoTime": 5.0}),
    ("Survey_LSPINE", "localizer", "coronal", "few", ORDINARY, {**GR, "EchoTime": 5.0}),
    ("SmartBrain", "localizer", "sagittal", "few", ORDINARY, {**GR, "EchoTime": 5.0}),
    ("", "localizer", "sagittal", "few", ORDINARY, {**GR, "EchoTime": 5.0, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}),
    ("ep2d_diff_ADC", "other", "axial", "2d", ORDINARY, {"ScanningSequence": "EP", "EchoTime": 90.0}),
    ("ASSET calibration", "other", "axial", "2d", ORDINARY, {**GR, "EchoTime": 2.0}),
    ("3D MRCP RT", "other", "coronal", "iso", HEAVY, {**SPACE, "EchoTime": 700.0}),
    ("t2_spc_innerear", "other", "axial", "iso", HEAVY, {**SPACE, "EchoTime": 265.0}),
    ("t2_space_brain sag", "other", "sagittal", "iso", ORDINARY, SPACE),
    ("t2 flair sag", "other", "sagittal", "2d", ORDINARY, {**IR, "EchoTime": 100.0, "RepetitionTime": 9000.0, "InversionTime": 2500.0}),
    ("t2_tse_sag phase", "other", "sagittal", "2d", ORDINARY, {**TSE, "ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}),
    # --- spine-generic: real fingerprints of 3D T2 TSE, five vendors' systems
    ("T2w", "sagittal_t2", "sagittal", "iso", ORDINARY, {**SE, "SequenceVariant": ["SK", "SP", "OSP"], "SequenceName": "*spcR3d1_87", "ScanOptions": ["PFP", "SAT1"], "ImageType": ["ORIGINAL", "PRIMARY", "M", "NORM", "DIS3D", "DIS2D"], "EchoTrainLength": 87, "EchoTime": 120.0, "RepetitionTime": 1500.0, "FlipAngle": 120.0, "MRAcquisitionType": "3D"}),
    ("T2w", "sagittal_t2", "sagittal", "iso", ORDINARY, {**SE, "SequenceVariant": ["SK", "SP"], "SequenceName": "*spcR_100", "ScanOptions": "PFP", "EchoTrainLength": 76, "EchoTime": 123.0, "RepetitionTime": 1500.0, "FlipAngle": 180.0, "MRAcquisitionType": "3D"}),
    ("T2w", "sagittal_t2", "sagittal", "iso", ORDINARY, {"SequenceVariant": ["SK", "SP", "OSP"], "ScanOptions": ["PFP", "PFF", "CG", "RG", "PER"], "ImageType": ["ORIGINAL", "PRIMARY", "M", "MFSPLIT"], "EchoTrainLength": 76, "EchoTime": 120.0, "RepetitionTime": 1500.0, "MRAcquisitionType": "3D"}),
    ("T2w", "sagittal_t2", "sagittal", "iso", ORDINARY, {**SE, "SequenceVariant": ["SK", "OSP"], "ScanOptions": ["FC_FREQ_AX_GEMS", "FC", "ACC_GEMS"], "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"], "EchoTrainLength": 78, "EchoTime": 120.0, "RepetitionTime": 2000.0, "MRAcquisitionType": "3D", "Manufacturer": "GE MEDICAL SYSTEMS"}),
    ("WIP_T2w_VISTA", "sagittal_t2", "sagittal", "iso", ORDINARY, {**SE, "SequenceVariant": "SK", "ScanOptions": "PFP", "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE", "M", "SE"], "EchoTrainLength": 92, "EchoTime": 120.0, "RepetitionTime": 2000.0, "MRAcquisitionType": "3D", "Manufacturer": "Philips"}),
    # --- vendors' own names of heavy T2 and single-shot
    ("Myelo 3D CUBE Cor FS", "myelogram", "coronal", "iso", HEAVY, {**SE, "ScanOptions": ["FAT_SAT_GEMS", "EDR_GEMS", "FS"], "PulseSequenceName": "Cube", "EchoTime": 520.0, "RepetitionTime": 3200.0, "MRAcquisitionType": "3D", "Manufacturer": "GE MEDICAL SYSTEMS"}),
    ("sMYELO_3D SENSE", "myelogram", "sagittal", "iso", HEAVY, {**SE, "ScanOptions": "SFS", "ImageType": ["ORIGINAL", "PRIMARY", "M_SE", "M", "SE"], "EchoTime": 650.0, "RepetitionTime": 5883.0, "MRAcquisitionType": "3D", "Manufacturer": "Philips"}),
    ("MR Myelo 3D FASE", "myelogram", "coronal", "iso", HEAVY, {**SE, "EchoTime": 500.0, "RepetitionTime": 4000.0, "MRAcquisitionType": "3D", "Manufacturer": "TOSHIBA"}),
    ("mx3d_myelo_sag_fs", "myelogram", "sagittal", "iso", HEAVY, {**SE, "EchoTime": 430.0, "RepetitionTime": 3000.0, "MRAcquisitionType": "3D", "Manufacturer": "UIH"}),
    ("isoFSE MYELO COR", "myelogram", "coronal", "iso", HEAVY, {**SE, "EchoTime": 480.0, "RepetitionTime": 3500.0, "MRAcquisitionType": "3D", "Manufacturer": "Hitachi Medical Corporation"}),
    ("t2_haste_tra_myelo", "myelogram", "axial", "2d", HEAVY, {**SE, "SequenceName": "*h2d1_256", "EchoTime": 350.0, "RepetitionTime": 1500.0, "SliceThickness": 4.0}),
    ("kaudografi", "myelogram", "coronal", "iso", HEAVY, SPACE),
    ("Saccoradiculographie IRM", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    ("miyelografi 3D", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    ("MR-Mielografia 3D", "myelogram", "coronal", "iso", HEAVY, SPACE),
    ("脊髄腔撮像 3D", "myelogram", "sagittal", "iso", HEAVY, SPACE),
    # enhanced attributes: single shot and fat suppression stated by code
    ("cor", "myelogram", "coronal", "2d", HEAVY, {"EchoPulseSequence": "SPIN", "SegmentedKSpaceTraversal": "SINGLE", "EffectiveEchoTime": 320.0, "RepetitionTime": 6000.0}),
    ("sag", "myelogram", "sagittal", "iso", HEAVY, {"EchoPulseSequence": "SPIN", "SpectrallySelectedSuppression": "FAT", "EffectiveEchoTime": 620.0, "RepetitionTime": 3000.0, "MRAcquisitionType": "3D"}),
    ("sag", "myelogram", "sagittal", "iso", MODERATE, {"EchoPulseSequence": "GRADIENT", "SteadyStatePulseSequence": "FREE_PRECESSION", "EffectiveEchoTime": 2.2, "RepetitionTime": 5.0, "MRAcquisitionType": "3D"}),
    ("sag", "sagittal_t1", "sagittal", "2d", ORDINARY, {"EchoPulseSequence": "SPIN", "AcquisitionContrast": "T1", "EffectiveEchoTime": 11.0, "RepetitionTime": 550.0}),
    ("sag", "sagittal_stir", "sagittal", "2d", ORDINARY, {"EchoPulseSequence": "SPIN", "AcquisitionContrast": "STIR", "InversionRecovery": "YES", "InversionTimes": [220.0], "EffectiveEchoTime": 60.0, "RepetitionTime": 4000.0}),
    # thick slabs and derived views in other vendors' words
    ("SSFSE COR MYELO RADIAL", "projection", "coronal", "slab", HEAVY, {**HASTE, "SliceThickness": 30.0, "Manufacturer": "GE MEDICAL SYSTEMS"}),
    ("MYELO_SSH_TSE", "projection", "sagittal", "slab", HEAVY, {**HASTE, "EchoTime": 920.0, "Manufacturer": "Philips"}),
    ("FASE 2D MYELO", "projection", "coronal", "slab", HEAVY, {**HASTE, "EchoTime": 250.0, "Manufacturer": "TOSHIBA"}),
    ("t2_spc_myelo_sag_MIP_RAD", "projection", "coronal", "iso", HEAVY, SPACE),
    ("COL:MYELO", "projection", "coronal", "iso", HEAVY, {**SPACE, "ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "COLLAPSE"], "Manufacturer": "GE MEDICAL SYSTEMS"}),
    ("3D PJN:MYELO", "projection", "sagittal", "iso", HEAVY, {**SPACE, "Manufacturer": "GE MEDICAL SYSTEMS"}),
    # companions in other words
    ("OSag T2 FRFSE-XL", "sagittal_t2", "sagittal", "2d", ORDINARY, {**TSE, "Manufacturer": "GE MEDICAL SYSTEMS"}),
    ("TSE_T2_SAG_DRIVE", "sagittal_t2", "sagittal", "2d", ORDINARY, TSE),
    ("Т2 сагиттальная", "sagittal_t2", "sagittal", "2d", ORDINARY, {}),
    ("T2 矢状位", "sagittal_t2", "sagittal", "2d", ORDINARY, {}),
    ("SAG IDEAL T2 WATER", "sagittal_stir", "sagittal", "2d", ORDINARY, {**TSE, "ImageType": ["DERIVED", "PRIMARY", "WATER", "IDEAL"]}),
    ("WATER: Sag T2 FLEX", "sagittal_t2", "sagittal", "2d", ORDINARY, {**TSE, "ScanOptions": ["FLEX_GEMS"]}),
    ("FAT: Sag T2 FLEX", "other", "sagittal", "2d", ORDINARY, {**TSE, "ScanOptions": ["FLEX_GEMS"]}),
    ("t2_qtir_sag", "sagittal_stir", "sagittal", "2d", ORDINARY, {**IR, "SequenceName": "*qtir2d1_15", "EchoTime": 55.0, "RepetitionTime": 4000.0, "InversionTime": 150.0}),
    ("STIR SAG", "sagittal_stir", "sagittal", "2d", ORDINARY, {**IR, "EchoTime": 42.0, "RepetitionTime": 3800.0, "InversionTime": 165.0, "Manufacturer": "UIH"}),
    ("T1W_TSE sag nach KM", "sagittal_t1", "sagittal", "2d", ORDINARY, SE_T1),
    ("t1_fl3d_tra_vibe_fs +C", "axial_t1_post", "axial", "2d", ORDINARY, {**GR, "EchoTime": 1.8, "RepetitionTime": 4.2, "FlipAngle": 9.0, "SequenceVariant": ["SP", "OSP"]}),
    ("T1 axial 增强", "axial_t1_post", "axial", "2d", ORDINARY, SE_T1),
    # other fluid imaging, calibration, documents
    ("haste MR-Urographie cor", "other", "coronal", "2d", HEAVY, {**SE, "EchoTime": 700.0, "RepetitionTime": 4000.0}),
    ("t2_ci3d_iac", "other", "axial", "iso", MODERATE, {**GR, "EchoTime": 2.6, "RepetitionTime": 6.0, "MRAcquisitionType": "3D"}),
    ("SENSE RefScan", "other", "axial", "2d", ORDINARY, {**GR, "EchoTime": 0.8}),
    ("dti_sag_spine_TRACEW", "other", "sagittal", "2d", ORDINARY, {"ScanningSequence": "EP", "EchoTime": 80.0}),
    ("T2 map sag", "other", "sagittal", "2d", ORDINARY, {**SE, "EchoTime": 60.0, "ImageType": ["DERIVED", "PRIMARY", "T2MAP"]}),
    ("Loc 3 planos", "localizer", "sagittal", "few", ORDINARY, {**GR, "EchoTime": 4.0}),
    ("t2_trufi_loc_multi", "localizer", "coronal", "few", ORDINARY, {**GR, "EchoTime": 1.7}),
    ("repérage", "localizer", "sagittal", "few", ORDINARY, {**GR, "EchoTime": 4.0}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("description", "role", "plane", "grid", "tissue", "parameters"),
    DIALECTS,
    ids=[f"{n}-{row[0]}" for n, row in enumerate(DIALECTS)],
)
def test_role_by_dialect(description, role, plane, grid, tissue, parameters):
    item = stack(description, plane, grid, tissue, **parameters)
    [judged] = roles(study(item), SETTINGS)
    assert judged.role == role, judged.reason
    assert judged.reason
    assert "\n" not in judged.reason


def chosen(result, use: str) -> list[str]:
    return [item.stack.description for item in result.stacks if use in item.used_for]


def test_a_whole_study():
    items = [
        stack("localizer", "sagittal", "few", **GR),
        stack("t2_tse_sag", "sagittal", "2d", **TSE),
        stack("t1_tse_sag", "sagittal", "2d", **SE_T1),
        stack("t2_tse_tra", "axial", "2d", **TSE),
        stack("haste myelo cor", "coronal", "slab", HEAVY, **HASTE),
        stack("spc myelo sag", "sagittal", "iso", HEAVY, **SPACE),
        stack("MIP myelo", "coronal", "iso", HEAVY, **SPACE),
    ]
    result = triage(study(*items), SETTINGS)
    assert chosen(result, "fluid") == ["spc myelo sag"]
    assert chosen(result, "levels") == ["t2_tse_sag", "t1_tse_sag"]
    assert set(result.companions) == {"sagittal_t2", "axial_t2", "sagittal_t1"}
    assert [item.stack for item in result.stacks] == items
    assert result.myelogram.array is items[5].load().array
    assert result.notes == ()


@pytest.mark.parametrize(("name", "enhanced"), [("t1_tse_sag", False), ("t1 sag nach KM", True)])
def test_a_contrast_agent_is_recorded(name, enhanced):
    items = [stack("myelo", tissue=HEAVY, **SPACE), stack(name, "sagittal", "2d", **SE_T1)]
    t1 = triage(study(*items), SETTINGS).companions["sagittal_t1"]
    assert t1.provenance.contrast_agent is enhanced


def test_myelogram_alone_serves_levels_too():
    result = triage(study(stack("myelo", tissue=HEAVY, **SPACE)), SETTINGS)
    assert result.stacks[0].used_for == ("fluid", "levels")
    assert result.companions == {}


def test_without_myelogram_an_ordinary_t2_is_analyzed():
    items = [stack("t2 sag", "sagittal", "2d", **TSE), stack("t2_space_sag", tissue=0.4, **TSE)]
    items[1].parameters["MRAcquisitionType"] = "3D"
    result = triage(study(*items), SETTINGS)
    assert chosen(result, "fluid") == ["t2_space_sag"]
    assert result.companions["sagittal_t2"] is result.myelogram
    [note] = [note for note in result.notes if note.code == "no_myelogram"]
    assert "fat may resemble fluid" in note.message


def test_fat_suppressed_volume_is_preferred_as_substitute():
    items = [stack("t2 sag", "sagittal", "2d", **TSE), stack("sag stir", "sagittal", "2d", **TIRM)]
    result = triage(study(*items), SETTINGS)
    assert chosen(result, "fluid") == ["sag stir"]
    assert "fat is suppressed" in result.notes[0].message


@pytest.mark.parametrize("with_stir", [False, True])
def test_fat_suppressed_t2_takes_the_place_of_a_missing_stir(with_stir):
    items = [
        stack("myelo", tissue=HEAVY, **SPACE),
        stack("t2_tse_sag", "sagittal", "2d", **TSE),
        stack("t2_tse_sag_fs", "sagittal", "2d", **TSE),
    ]
    items += [stack("sag stir", "sagittal", "2d", **TIRM)] if with_stir else []
    result = triage(study(*items), SETTINGS)
    assert result.companions["sagittal_t2"].array is items[1].load().array
    assert result.companions["sagittal_stir"].array is items[-1].load().array
    without_fat = triage(study(items[0], items[2]), SETTINGS)
    assert set(without_fat.companions) == {"sagittal_t2"}


@pytest.mark.parametrize(
    ("description", "image_type", "suppressed"),
    [
        ("t2_space_sag_fs", (), True),
        ("T2 SPACE sag", (), False),
        ("t2_space_sag no fs", (), False),
        ("T2 SPACE w/o FatSat", (), False),
        ("t2 spc ohne FS", (), False),
        ("T2 sans suppression graisse", (), False),
        ("t2_space_non-fs", (), False),
        ("t2 space fs off", (), False),
        ("T2 SPACE SPAIR no angle", (), True),
        ("t2_dixon_sag_w", (), True),
        ("t2_dixon_sag_in", (), False),
        ("t2_dixon_sag", ("ORIGINAL", "PRIMARY", "W"), True),
        ("t2_dixon_sag", ("ORIGINAL", "PRIMARY", "IN_PHASE"), False),
        ("t2_dixon_sag", ("ORIGINAL", "PRIMARY", "F"), False),
    ],
)
def test_what_a_header_says_of_fat(description: str, image_type: tuple[str, ...], suppressed: bool):
    item = stack(description, "sagittal", "2d", **TSE)
    if image_type:
        item.parameters["ImageType"] = list(image_type)
    assert gather(item, 400.0).fat_suppressed is suppressed


def test_file_without_header_is_judged_by_pixels():
    result = triage(study(stack("p07", uid=None, modality="", frame=None)), SETTINGS)
    assert result.stacks[0].used_for == ("fluid", "levels")
    assert "no acquisition header" in result.notes[0].message
    heavy = triage(study(stack("p07", tissue=HEAVY, uid=None, modality="", frame=None)), SETTINGS)
    assert heavy.stacks[0].role == "myelogram"
    assert heavy.notes == ()


def test_label_maps_are_no_pictures():
    labels = np.zeros(GRIDS["iso"][0])
    labels[20:40, 20:30, 20:40] = 21
    items = [
        stack("p07", uid=None, modality="", frame=None),
        stack("p07_mask_t2", uid=None, modality="", frame=None, array=labels),
    ]
    result = triage(study(*items), SETTINGS)
    assert chosen(result, "fluid") == ["p07"]
    assert "label map" in result.stacks[1].reason


def test_several_volume_files_are_not_guessed_between():
    items = [stack(f"p0{n}", uid=None, modality="", frame=None) for n in range(3)]
    with pytest.raises(InputError, match="3 volume files"):
        triage(study(*items), SETTINGS)


def test_volume_files_of_one_place_are_combined_with_a_note():
    plain = {"uid": None, "modality": "", "frame": None}
    items = [
        stack("myelo", tissue=HEAVY, **plain),
        stack("t2 tse sag", "sagittal", "2d", **plain, **TSE),
        stack("t1 sag", "sagittal", "2d", shift_z_mm=500.0, **plain, **SE_T1),
    ]
    result = triage(study(*items), SETTINGS)
    assert set(result.companions) == {"sagittal_t2"}
    assert [n.code for n in result.notes] == ["companion_frame_assumed", "companion_other_frame"]


def test_weak_weighting_under_a_myelography_name_is_said():
    result = triage(study(stack("myelo sag", tissue=ORDINARY, **SPACE)), SETTINGS)
    assert [note.code for note in result.notes] == ["weak_t2_weighting"]


def test_notes_of_used_stacks_travel_others_do_not():
    gap, fine = Note("missing_slices", "one"), Note("uneven_spacing", "two")
    items = [
        stack("myelo", tissue=HEAVY, notes=(gap,), **SPACE),
        stack("localizer", "axial", "few", notes=(fine,)),
    ]
    assert triage(study(*items), SETTINGS).notes == (gap,)


def test_companions_in_another_frame_are_not_fused():
    items = [
        stack("myelo", tissue=HEAVY, **SPACE),
        stack("t2 sag", "sagittal", "2d", frame="9.9", **TSE),
    ]
    result = triage(study(*items), SETTINGS)
    assert result.companions == {}
    assert [note.code for note in result.notes] == ["companion_other_frame"]
    same = stack("t2 sag small", "sagittal", "2d", **TSE)
    result = triage(study(*items, same), SETTINGS)
    assert chosen(result, "levels") == ["t2 sag small"]
    assert result.notes == ()


def test_localizer_planes_under_one_series_are_recognised_without_a_name():
    items = [stack("", plane, "few", uid="1.2.9", **GR) for plane in DIRECTIONS]
    items.append(stack("myelo", tissue=HEAVY, **SPACE))
    result = triage(study(*items), SETTINGS)
    assert [item.role for item in result.stacks] == ["localizer"] * 3 + ["myelogram"]


def test_the_user_may_choose():
    items = [
        stack("myelo sag", tissue=HEAVY, **SPACE),
        stack("t2 sag", "sagittal", "2d", **TSE),
        stack("t2 sag again", "sagittal", "2d", **TSE),
        stack("haste", "coronal", "slab", HEAVY, **HASTE),
        stack("odd", "sagittal", "2d", **{**TSE, "EchoTime": 30.0}),
    ]
    uid = items[1].series_instance_uid
    # The comparison would align the other myelogram in several seconds.
    settings = SETTINGS.model_copy(update={"compare_myelograms": False})
    result = triage(study(*items), settings, myelogram_uid=uid)
    assert chosen(result, "fluid") == ["t2 sag"]
    by_number = triage(study(*items), settings, myelogram_uid=str(items[1].series_number))
    assert chosen(by_number, "fluid") == ["t2 sag"]
    result = triage(study(*items), SETTINGS, companion_uids=(items[2].series_instance_uid,))
    assert chosen(result, "levels") == ["t2 sag again"]
    result = triage(study(*items), SETTINGS, companion_uids=(items[4].series_instance_uid,))
    assert chosen(result, "levels") == ["odd"]
    with pytest.raises(InputError, match="no series 7\\.7"):
        triage(study(*items), SETTINGS, myelogram_uid="7.7")
    with pytest.raises(InputError, match="thick slab"):
        triage(study(*items), SETTINGS, myelogram_uid=items[3].series_instance_uid)


def ellipsoid(shape, spacing_kji_mm, axes_kji_mm, center_kji_mm) -> np.ndarray:
    """Tissue with a bright middle in air."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    radius = np.linalg.norm(
        (grid * np.array(spacing_kji_mm) - center_kji_mm) / np.array(axes_kji_mm), axis=-1
    )
    noise = np.random.default_rng(0).uniform(0, 20, shape)
    return np.where(radius < 0.2, 1000, np.where(radius < 1, 450, 0)) + noise


@pytest.mark.parametrize(
    ("half_axes", "center", "head"),
    [
        ((110.0, 95.0, 75.0), (100.0, 120.0, 96.0), True),  # a head, its neck cut below
        ((400.0, 95.0, 170.0), (100.0, 120.0, 96.0), False),  # a trunk fills the width
        ((400.0, 70.0, 60.0), (100.0, 120.0, 96.0), False),  # a neck continues cranially
        ((400.0, 95.0, 400.0), (100.0, 120.0, 96.0), False),  # a slab fills its own width
    ],
)
def test_heads_without_headers_are_refused_and_spines_are_not(half_axes, center, head):
    from leakloc.loaders.gate import looks_like_head

    shape = (60, 64, 48)
    array = ellipsoid(shape, (4.0, 4.0, 4.0), half_axes, center)
    geometry = Geometry(shape, np.diag([4.0, 4.0, 4.0, 1.0]))
    assert looks_like_head(Volume(array, geometry)) is head
    reoriented = Volume(array, geometry).oriented("PIR")
    assert looks_like_head(reoriented) is head


REFUSALS = [
    ("modality CT", [stack("spine", modality="CT")]),
    ("CT myelography .* would require", [stack("CT L-SPINE MYELO", modality="CT")]),
    (
        "by its name, .* intrathecal gadolinium",
        [stack("t1 fs sag myelo gd", "sagittal", "2d", **SE_T1)],
    ),
    ("brain", [stack("t2_space_sag_p2_iso", BodyPartExamined="BRAIN", **SPACE)]),
    ("brain", [stack("t2 sag", "sagittal", "2d", StudyDescription="MRT Schädel", **TSE)]),
    ("another body part", [stack("t2 sag", StudyDescription="MR knee", **TSE)]),
    ("only a localizer", [stack("localizer", "sagittal", "few", **GR)]),
    ("thick-slab", [stack("haste myelo", "coronal", "slab", HEAVY, **HASTE)]),
    (
        "thick-slab",
        [
            stack("localizer", "sagittal", "few", **GR),
            stack("haste myelo", "coronal", "slab", HEAVY, regular=False, **HASTE),
        ],
    ),
    (
        "regular geometry",
        [stack("t2", regular=False, notes=(Note("no_position", "no Image Position"),), **TSE)],
    ),
    ("no fluid-sensitive", [stack("t1 sag", "sagittal", "2d", **SE_T1)]),
]


BRIGHT = {**SE_T1, "ContrastBolusAgent": "Gadovist", "ScanOptions": "FS"}


def myelogram(plane="sagittal", **grid):
    return stack("3D MYELO SPACE", plane, "iso", HEAVY, **grid, **SPACE)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("t1 sag fs intrathecal gd", SE_T1),
        ("gd myelo sag", SE_T1),
        ("t1_vibe_fs", {**SE_T1, "ContrastBolusRoute": "INTRATHECAL"}),
    ],
)
def test_intrathecal_contrast_by_name_or_route_is_no_companion(name, parameters):
    item = stack(name, "sagittal", "2d", HEAVY, **parameters)
    result = triage(study(myelogram(), item), SETTINGS)
    assert result.stacks[1].role == "other"
    assert "intrathecal gadolinium myelography by name" in result.stacks[1].reason
    assert "sagittal_t1" not in result.companions
    assert [n.code for n in result.notes] == ["intrathecal_contrast"]


@pytest.mark.parametrize(("canal_over_bone", "intrathecal"), [(2.6, True), (0.6, False)])
def test_intrathecal_contrast_by_signal(monkeypatch, canal_over_bone, intrathecal):
    monkeypatch.setattr("leakloc.loaders.roles.fluid_over_bone", lambda *_: canal_over_bone)
    item = stack("t1 tse sag fs", "sagittal", "2d", HEAVY, **BRIGHT)
    (found,) = roles(study(item), SETTINGS)
    assert (found.role == "other") is intrathecal
    assert ("2.6 times as bright as bone" in found.reason) is intrathecal
    # Bright tissue elsewhere: the signal of the canal is not evaluated.
    item = stack("t1 tse sag fs", "sagittal", "2d", ORDINARY, **BRIGHT)
    assert roles(study(item), SETTINGS)[0].role == "sagittal_t1"


def test_a_second_myelogram_is_compared():
    items = (myelogram(), myelogram("coronal"), stack("t2 sag", "sagittal", "2d", **TSE))
    result = triage(study(*items), SETTINGS, verify=False)
    assert chosen(result, "comparison") == ["3D MYELO SPACE"]
    (second,) = (s.stack for s in result.stacks if "comparison" in s.used_for)
    assert result.second_myelogram.geometry is second.geometry
    assert "fluid" not in [u for s in result.stacks if s.stack is second for u in s.used_for]
    off = SETTINGS.model_copy(update={"compare_myelograms": False})
    assert triage(study(*items), off, verify=False).second_myelogram is None


def test_another_version_of_the_myelogram_is_not_a_second_one():
    result = triage(study(myelogram(), myelogram(shift_z_mm=3.0)), SETTINGS, verify=False)
    assert result.second_myelogram is None


def test_t1_before_and_after_contrast_with_the_same_plane_and_fat_suppression():
    enhanced = {**SE_T1, "ContrastBolusAgent": "Gadovist"}
    sagittal = (
        stack("t1 sag", "sagittal", "2d", **SE_T1),
        stack("t1 sag km", "sagittal", "2d", **enhanced),
    )
    axial = (
        stack("t1 tra", "axial", "2d", **SE_T1),
        stack("t1 tra fs km", "axial", "2d", **BRIGHT),
    )
    result = triage(study(myelogram(), *sagittal, *axial), SETTINGS, verify=False)
    assert chosen(result, "enhancement") == ["t1 sag", "t1 sag km"]
    ((before, after),) = result.t1_pairs
    assert before.geometry is sagittal[0].geometry and after.geometry is sagittal[1].geometry
    slower = stack("t1 sag km", "sagittal", "2d", **{**enhanced, "RepetitionTime": 1000.0})
    result = triage(study(myelogram(), sagittal[0], slower), SETTINGS, verify=False)
    assert result.t1_pairs == ()


@pytest.mark.parametrize(("words", "items"), REFUSALS, ids=[row[0] for row in REFUSALS])
def test_rejections_state_the_reason(words, items):
    with pytest.raises(InputError, match=words) as caught:
        triage(study(*items), SETTINGS)
    assert "\n" not in str(caught.value)
    rows, _ = series_table(study(*items), SETTINGS)
    assert len(rows) == len(items)
    assert all(row["used_for"] == [] for row in rows)


@pytest.mark.parametrize(
    "parameters",
    [
        {"BodyPartExamined": "HEAD", "StudyDescription": "MRT LWS"},
        {"BodyPartExamined": "BRAIN", "ProtocolName": "t2_sag_spine"},
        {"BodyPartExamined": "ABDOMEN"},
        {"BodyPartExamined": "LSPINE", "StudyDescription": "MR Head and Lumbar Spine"},
        {"StudyDescription": "L-SPINE WO"},
        {"StudyDescription": "腰椎平扫"},
        {},
    ],
)
def test_spine_is_not_refused_for_a_wrong_body_part(parameters):
    item = stack("t2 sag", "sagittal", "2d", **TSE, **parameters)
    assert triage(study(item), SETTINGS).stacks[0].role == "sagittal_t2"


def test_pixels_that_cannot_be_read_cost_one_series_only():
    def fail() -> Volume:
        raise InputError("cannot decode the pixels of x (transfer syntax y)")

    from dataclasses import replace

    items = [
        replace(stack("myelo", tissue=HEAVY, **SPACE), read=fail),
        stack("myelo 2", tissue=HEAVY, **SPACE),
        replace(stack("t2 sag", "sagittal", "2d", **TSE), read=fail),
    ]
    result = triage(study(*items), SETTINGS)
    assert chosen(result, "fluid") == ["myelo 2"]
    assert result.stacks[0].role == "unreadable"
    assert result.companions == {}


def test_table_is_plain_data():
    import json

    rows, skipped = series_table(study(stack("myelo", tissue=HEAVY, **SPACE)), SETTINGS)
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0]["role"] == "myelogram"
    assert rows[0]["used_for"] == ["fluid", "levels"]
    assert rows[0]["shape"] == [70, 64, 64]
    assert rows[0]["spacing_mm"] == pytest.approx([0.9, 0.9, 0.9])
    assert skipped == []
