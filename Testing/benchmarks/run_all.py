"""Every benchmark, one after the other; what was measured before with the same settings is kept.

    python Testing/benchmarks/run_all.py --minutes 20 --part development

The most telling rows of each draw come first, so that the run can be stopped at any time. It may take days on two
cores; a training that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator

from common import BENCHMARKS
from protocols import PROTOCOLS
from rows import FEW_SHOT, STRANGE

TRAINING_FREE = ("fate_sam", "sam2_points")
TRAINED = ("unet", "frozen_decoder", "unetr")
# To be compared with the UNet without cross-modality augmentation, which learns the cases' own modality alone, too.
ONE_MODALITY = ("--recipe", "one-modality", "--procedural", "0", "--set", "twins", "0")
# Rows without something of the method that the main table has; a protocol skips those that it has not.
WITHOUT = (
    "no_poses",
    "no_appearance",
    "no_smooth",
    "no_smooth_no_3d",
    "no_regions",
    "no_reach",
    "no_reach_smooth",
    "slices_alone_smooth",
    "slices_alone_no_appearance",
    "outlines_smooth",
)


def commands(minutes: float, part: str) -> Iterator[list[str]]:
    """Scripts with their options, in the order of what they tell."""
    common = ["--minutes", f"{minutes:g}", "--part", part]
    if part == "development":
        # C has no test cases.
        yield ["diffusam.py", "C-CT", "C-MR", "--no-3d", *common]
    for draw in (1, 2, 3, 4, 5):
        which = ["--draws", str(draw), *common]
        yield ["diffusam.py", *FEW_SHOT, "--no-3d", *which]
        yield ["ablations.py", *FEW_SHOT, "--only", *WITHOUT, *which]
        for peer in TRAINING_FREE:
            yield [f"peers/{peer}.py", *FEW_SHOT, *which]
        yield ["peers/unet.py", *FEW_SHOT, *which]
        yield ["peers/frozen_decoder.py", *FEW_SHOT, *which]
        for peer in ("dpl", "dfg"):
            yield [f"peers/{peer}.py", *STRANGE, *which]
        yield ["diffusam.py", *FEW_SHOT, "--regression", "--adapt-minutes", f"{minutes:g}", *which]
        yield ["ablations.py", *FEW_SHOT, "--only", "more_10", "unlabelled", *which]
        yield ["ablations.py", *FEW_SHOT, "--only", "anew", *which]
        yield ["diffusam.py", "A", "--method", "one_modality", *ONE_MODALITY, *which]
        yield ["peers/unetr.py", *FEW_SHOT, *which]
        if draw in PROTOCOLS["D"].draws:
            yield ["diffusam.py", "D", "--regression", *which]
            yield [
                "ablations.py",
                "D",
                "--only",
                "no_smooth",
                "no_reach",
                "axial_only",
                "outlines_smooth",
                *which,
            ]
            for peer in (*TRAINING_FREE, *TRAINED):
                only = ["--only", "unet_plain"] if peer == "unet" else []
                yield [f"peers/{peer}.py", "D", *only, *which]
    if part == "development":
        yield ["ablations.py", "A", "B", "--inference-only", "--draws", "1", "2", "3", *common]
        # With the priors of the row "slices_alone_smooth".
        yield ["ablations.py", "A", "B", "--only", "slices_alone", *common]
        yield ["ablations.py", "C-CT", "C-MR", *common]
        yield ["ablations.py", "A", "B", "--draws", "1", "2", "3", *common]
        yield ["ablations.py", "D", "--only", "axial", "true_latents", *common]
        yield ["peers/unet.py", "C-CT", "C-MR", "--only", "unet_plain", *common]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20.0, help="of each training (default: 20)")
    parser.add_argument(
        "--clean-minutes",
        type=float,
        default=240.0,
        help="of the clean backbone, and of the clean prior (default: 240)",
    )
    parser.add_argument("--part", choices=("development", "test"), default="development")
    parser.add_argument("--list", action="store_true", help="only print the commands")
    arguments = parser.parse_args()
    clean = [
        [script, "--minutes", f"{arguments.clean_minutes:g}"]
        for script in ("clean_backbone.py", "clean_prior.py")
    ]
    for command in (*clean, *commands(arguments.minutes, arguments.part), ["tables.py"]):
        print(" ".join(["python", f"Testing/benchmarks/{command[0]}", *command[1:]]), flush=True)
        if not arguments.list:
            subprocess.run([sys.executable, str(BENCHMARKS / command[0]), *command[1:]], check=True)


if __name__ == "__main__":
    main()
