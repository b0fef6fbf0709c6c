"""Time and peak memory: the compact backbone with the bundled prior, or SAM2.1 tiny with seeded random weights.

The ratio is the time of a whole volume, file to file, over the time of `encode_image` alone on the same slices.
Each volume is measured in a process of its own, so that peak memories do not mix.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import DATA, ORGANS, ROOT, write_result

from DiffuSAMLib.backbones import Backbone
from DiffuSAMLib.case_pairs import case_name
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.labelled_files import read_dataset
from DiffuSAMLib.labelled_stacks import load_stack
from DiffuSAMLib.peak_memory import peak_memory_mb
from DiffuSAMLib.prior import Prior, PriorConfig
from DiffuSAMLib.segmentation_files import write_scalar, write_segmentation
from DiffuSAMLib.segmenter import Segmenter
from DiffuSAMLib.terminology import segment_for
from DiffuSAMLib.volumes import read_volume
from DiffuSAMLib.weights import load_prior

IMAGES = {
    "btcv_0001": DATA / "btcv-ct" / "images" / "btcv_0001.nii.gz",
    "btcv_0004": DATA / "btcv-ct" / "images" / "btcv_0004.nii.gz",
    "chaos_05": DATA / "chaos-mr-t2spir" / "images" / "chaos_05.nii.gz",
}
# Medians of so many measurements of the volume and of `encode_image`, in turn; SAM2.1 is measured once.
REPEATS = 3


class KnowingPrior(Prior):
    """Says that an organ is in a slice where the case's labels say so: random weights cannot know."""

    known: torch.Tensor
    asked = 0

    def presence(self, outlines: torch.Tensor) -> torch.Tensor:
        begin, self.asked = self.asked, self.asked + len(outlines)
        return self.known[begin : self.asked].float()


def random_sam21_tiny(image: Path) -> tuple[Backbone, Prior]:
    """The official tiny architecture at the paper's 512 pixels, with seeded random weights."""
    torch.manual_seed(0)
    backbone = Backbone("sam2.1_tiny", image_size=512)
    prior = KnowingPrior(PriorConfig.for_backbone(backbone, ORGANS))
    (case,) = read_dataset(image.parent.parent, only=[case_name(image)])
    labels = load_stack(case, organs=ORGANS, size=64).labels
    prior.known = torch.from_numpy(np.stack([(labels == v).any((1, 2)) for v in (1, 2, 3, 4)], axis=1))
    # A score that is always positive, so that every organ that is there costs what it would with real weights.
    torch.nn.init.constant_(backbone.network.sam_mask_decoder.pred_obj_score_head.layers[-1].bias, 10.0)
    return backbone, prior


def measure(kind: str, image: Path) -> dict[str, object]:
    """Segments one file and times `encode_image` alone, in this process."""
    torch.set_num_threads(2)
    if kind == "compact":
        loaded = load_prior("abdomen")
        backbone, prior = loaded.backbone.backbone, loaded.prior
    else:
        backbone, prior = random_sam21_tiny(image)
    segmenter = Segmenter(backbone, prior)
    ready = peak_memory_mb()
    runs = []
    peak = 0.0
    for _ in range(1 if kind == "sam2.1_tiny" else REPEATS):
        started = time.perf_counter()
        volume = read_volume(image)
        segmentation = segmenter.segment(volume)
        with tempfile.TemporaryDirectory() as folder:
            segments = [segment_for(organ, value) for value, organ in enumerate(segmentation.organs, start=1)]
            write_segmentation(Path(folder) / "out.nii.gz", segmentation.labels, volume.geometry, segments)
        whole = time.perf_counter() - started
        peak = peak or peak_memory_mb()
        slices = volume.geometry.shape[0]
        runs.append((whole, encode_alone(backbone, slices), segmentation.seconds))
    whole, encode = (statistics.median(run[part] for run in runs) for part in (0, 1))
    stages = min(runs, key=lambda run: abs(run[0] - whole))[2]
    return {
        "repeats": len(runs),
        "slices": slices,
        "volume_seconds": whole,
        "encode_seconds": encode,
        "ratio": whole / encode,
        "stages": stages,
        "ready_memory_mb": ready,
        "peak_memory_mb": peak,
    }


def encode_alone(backbone: Backbone, slices: int) -> float:
    """Seconds that `encode_image` takes for so many slices."""
    images = torch.rand(8, 3, backbone.image_size, backbone.image_size)
    with torch.no_grad():
        backbone.encode_image(images)
        started = time.perf_counter()
        for begin in range(0, slices, 8):
            backbone.encode_image(images[: min(8, slices - begin)])
        return time.perf_counter() - started


def write_long_volume(folder: Path, slices: int) -> Path:
    """Slices of a real volume, repeated up and down to a given number."""
    volume = read_volume(IMAGES["btcv_0001"])
    count = len(volume.array)
    there_and_back = np.r_[0:count, count - 2 : 0 : -1]
    numbers = np.resize(there_and_back, slices)
    geometry = Geometry((slices, *volume.geometry.shape[1:]), volume.geometry.matrix)
    path = folder / f"slices_{slices}.nii.gz"
    write_scalar(path, volume.array[numbers], geometry)
    return path


def in_child(kind: str, image: Path) -> dict[str, object]:
    return json.loads(run_child("--child", kind, str(image)).splitlines()[-1])


def run_child(*arguments: str) -> str:
    """Runs this script once more; its parent must stay small, for a child inherits its parent's peak memory."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sam21", action="store_true", help="also SAM2.1 tiny at 512 pixels (minutes)")
    parser.add_argument("--write-long", nargs=2, metavar=("FOLDER", "SLICES"), help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=2, metavar=("KIND", "IMAGE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child[0], Path(arguments.child[1]))))
        return
    if arguments.write_long:
        print(write_long_volume(Path(arguments.write_long[0]), int(arguments.write_long[1])))
        return
    result: dict[str, object] = {}
    for name, image in IMAGES.items():
        result[case_name(Path(name))] = in_child("compact", image)
        print(name, result[name], flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for slices in (100, 400):
            path = run_child("--write-long", folder, str(slices)).splitlines()[-1]
            result[f"slices_{slices}"] = in_child("compact", Path(path))
            print(slices, result[f"slices_{slices}"], flush=True)
    write_result("speed_compact", {"runs": result})
    if arguments.sam21:
        run = in_child("sam2.1_tiny", IMAGES["btcv_0001"])
        print(run)
        write_result("speed_sam21_tiny", {"runs": {"btcv_0001": run}})


if __name__ == "__main__":
    main()
