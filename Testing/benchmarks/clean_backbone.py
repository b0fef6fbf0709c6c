"""Pretrains the clean backbone: procedural abdomens, hippocampus, TotalSegmentator's test files; no BTCV, no CHAOS.

It stands in for SAM2's natural images in the protocols A, B and B-reverse. An interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from clean_weights import CLEAN_BACKBONE, taken_from_history
from common import DATA, FOLDERS, RUNS, SPLITS

from DiffuSAMLib.config_json import settings_of
from DiffuSAMLib.interrupts import terminated_as_interrupt
from DiffuSAMLib.pretrain import pretrain_backbone
from DiffuSAMLib.segmentation_files import write_scalar
from DiffuSAMLib.volumes import read_volume

# Values of TotalSegmentator v2, those of organs that BTCV labels too.
TOTALSEGMENTATOR_LABELS = {
    "spleen": 1,
    "right_kidney": 2,
    "left_kidney": 3,
    "gallbladder": 4,
    "liver": 5,
    "stomach": 6,
    "pancreas": 7,
    "right_adrenal_gland": 8,
    "left_adrenal_gland": 9,
    "esophagus": 15,
    "aorta": 52,
    "inferior_vena_cava": 63,
    "portal_and_splenic_vein": 64,
}


def arrange_totalsegmentator(source: Path, folder: Path) -> Path:
    """Brings TotalSegmentator's test files into the layout of the other data sets.

    Args:
        source: `totalsegmentator-examples` of the shared data.
        folder: Where to write `images/`, `labels/` and `dataset.json`.
    """
    images = {
        "totalsegmentator_a": source / "ct_a" / "image.nii.gz",
        "totalsegmentator_b": source / "ct_b_dicom",
    }
    labels = {"totalsegmentator_a": source / "ct_a" / "label.nii.gz"}
    labels["totalsegmentator_b"] = source / "ct_b_label.nii.gz"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for name, image in images.items():
        volume = read_volume(image, modality="CT")
        target = folder / "images" / f"{name}.nii.gz"
        write_scalar(target, volume.array, volume.geometry)
        # Automatic labels may run the other way in memory: the same places in the world count.
        resampled = sitk.Resample(
            sitk.ReadImage(str(labels[name])),
            sitk.ReadImage(str(target)),
            sitk.Transform(),
            sitk.sitkNearestNeighbor,
        )
        known = np.isin(values := sitk.GetArrayFromImage(resampled), list(TOTALSEGMENTATOR_LABELS.values()))
        kept = sitk.GetImageFromArray(np.where(known, values, 0).astype(np.uint8))
        kept.CopyInformation(resampled)
        sitk.WriteImage(kept, str(folder / "labels" / f"{name}.nii.gz"))
    content = {"name": "totalsegmentator-examples", "labels": {"background": 0, **TOTALSEGMENTATOR_LABELS}}
    (folder / "dataset.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=240.0)
    parser.add_argument("--procedural", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", help="weights to continue from; what they have seen is recorded as seen")
    parser.add_argument("--set", action="append", default=[], help="as of diffusam pretrain-backbone")
    parser.add_argument("-o", "--output", type=Path, default=CLEAN_BACKBONE)
    arguments = parser.parse_args()
    if taken_from_history(arguments.output).exists():
        print(f"{arguments.output} is there already.")
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    examples = arrange_totalsegmentator(DATA / "totalsegmentator-examples", RUNS / "totalsegmentator")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with terminated_as_interrupt():
        pretrain_backbone(
            [DATA / FOLDERS["hippocampus"], examples],
            SPLITS / "clean_backbone.json",
            arguments.output,
            procedural=arguments.procedural,
            settings={
                **settings_of(arguments.set),
                "minutes": arguments.minutes,
                "seed": arguments.seed,
            },
            start=arguments.start,
        )
    print(arguments.output)


if __name__ == "__main__":
    main()
