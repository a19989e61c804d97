"""Render phantoms as training cases for ``train_anatomy.py``.

Each file holds sagittal planes ``[i, k, j]`` of one phantom in one contrast, 1 mm in plane,
with the labels of `train_anatomy`. Only seeds below 50; higher seeds are reserved for evaluation.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from train_anatomy import BODY, CANAL, DISC, EPIDURAL, SACRUM

from leakloc.anatomy.vocabulary import LABEL_VALUES
from leakloc.core.volume import Geometry
from leakloc.validation.phantom import SCENARIOS, Masks, Phantom, make_phantom

PLANE_STEP_MM = 3.0
HEIGHT_MM = 300
"""Height of the field of view: half a spine."""
SACRAL = tuple(LABEL_VALUES[f"S{n}"] for n in range(1, 6))


def field_of(phantom: Phantom, part: float) -> Geometry:
    """Return a grid over part of the spine; `part` is 0 at the cranial end, 1 at the sacrum."""
    line = phantom.truth.centerline_lps
    top, bottom = float(line[:, 2].max()) + 20, float(line[:, 2].min()) - 30
    first = top - HEIGHT_MM - part * max(top - bottom - HEIGHT_MM, 0)
    inside = line[(line[:, 2] > first) & (line[:, 2] < first + HEIGHT_MM)]
    front, back = float(inside[:, 1].min()) - 85, float(inside[:, 1].max()) + 50
    middle = float(np.median(inside[:, 0]))
    shape = (HEIGHT_MM, round(back - front), 19)
    return Geometry.from_axes(
        shape,
        origin_lps=(middle - 9 * PLANE_STEP_MM, front, first),
        spacing_ijk_mm=(PLANE_STEP_MM, 1, 1),
    )


def labels_of(masks: Masks) -> npt.NDArray[np.uint8]:
    """Return the classes of `train_anatomy`; sacral discs count as sacrum."""
    levels, discs = masks.levels.array, masks.discs.array
    sac = masks.thecal_sac.array > 0.5
    labels = np.zeros(levels.shape, np.uint8)
    # The ground truth is the sac; the canal of SPIDER extends a few millimeters further.
    reach = np.stack([ndimage.distance_transform_edt(~plane) for plane in np.moveaxis(sac, 2, 0)])
    labels[np.moveaxis(reach, 0, 2) <= 4] = EPIDURAL
    labels[levels > 0] = BODY
    labels[discs > 0] = DISC
    labels[np.isin(levels, SACRAL) | np.isin(discs, SACRAL)] = SACRUM
    labels[sac] = CANAL
    return labels


def render(
    seed: int, scenario: str, folder: Path, *, companions: bool = True, neck: bool = False
) -> None:
    """Write one phantom in heavy T2 and, if `companions`, in one companion contrast."""
    rng = np.random.default_rng([seed, len(scenario)])
    # Planes are 3 mm thick: a typical SNR of 10 to 60 per 1 mm voxel, times the square root of 3.
    changes: dict[str, Any] = {"snr": float(np.exp(rng.uniform(np.log(18), np.log(100))))}
    changes["bias"] = float(rng.uniform(0.1, 0.4))
    phantom = make_phantom(replace(SCENARIOS[scenario], **changes), seed)
    part = 1.0 if rng.random() < 0.4 else float(rng.uniform(0, 1))
    if neck:
        part *= 0.1
    geometry = field_of(phantom, part)
    labels = np.moveaxis(labels_of(phantom.masks(geometry)), 2, 0)
    companion = rng.choice(["t2_sagittal", "stir_sagittal", "t1_sagittal"], p=[0.5, 0.25, 0.25])
    for name in ("ht2w_3d", *((str(companion),) if companions else ())):
        sequence = replace(phantom.sequences[name], thickness_mm=None)  # planes are thinner
        image = np.moveaxis(phantom.image(sequence, geometry).array, 2, 0)
        path = folder / f"{scenario}-{seed:02d}-{name}.npz"
        unfinished = path.with_suffix(".part")
        with unfinished.open("wb") as file:
            np.savez_compressed(
                file,
                image=image.astype(np.float16),
                labels=labels,
                plane_step_mm=PLANE_STEP_MM,
                remappable=name == "t2_sagittal",
            )
        unfinished.rename(path)
        print(path.name, flush=True)


def main() -> None:
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="first case number")
    parser.add_argument("--heavy-only", action="store_true", help="no companion contrasts")
    parser.add_argument("--neck", action="store_true", help="cervical fields only")
    args = parser.parse_args()
    os.nice(10)
    args.folder.mkdir(parents=True, exist_ok=True)
    names = [name for name in SCENARIOS if name != "slab_only"]
    for n in range(args.first, args.first + args.count):
        scenario = names[(7 * n) % len(names)]
        render(n % 50, scenario, args.folder, companions=not args.heavy_only, neck=args.neck)


if __name__ == "__main__":
    main()
