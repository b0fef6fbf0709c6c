"""What each part of the method is worth: one change at a time from the row "diffusam".

python Testing/benchmarks/ablations.py A --draws 1 2 3 --minutes 20
python Testing/benchmarks/ablations.py C-CT C-MR            # options of segmenting only, bundled prior
python Testing/benchmarks/ablations.py A --prior FILE --only no_3d steps_50
"""

from __future__ import annotations

import argparse
from dataclasses import replace

from prior_rows import PriorRow, measure_row
from protocols import add_job_options, jobs
from rows import FEW_SHOT

from DiffuSAMLib.interrupts import terminated_as_interrupt
from DiffuSAMLib.propagation import PropagationConfig
from DiffuSAMLib.recipe import load_recipe
from DiffuSAMLib.segmenter import SegmentOptions

# Ablations are changes of the row "no_smooth": what smoothing, regions, the scan's own brightness and further poses mend
# would hide what each part is worth.
BASE = SegmentOptions(regions=False, appearance=False, poses=False, smooth=False)


def _chained(**changes: object) -> SegmentOptions:
    return replace(BASE, propagation=replace(PropagationConfig(), **changes))  # type: ignore[arg-type]


# Of protocols whose modality the prior has not learnt from.
NO_POSES = PriorRow("no_poses", "DiffuSAM, slices seen in one pose", options=SegmentOptions(poses=False))
# Of priors of few cases that see axial slices alone.
NO_APPEARANCE = PriorRow(
    "no_appearance",
    "DiffuSAM, slices seen in one pose, brightness not asked for",
    options=replace(NO_POSES.options, appearance=False),
)
# Of protocols whose modality the prior has not learnt from.
NO_REGIONS = PriorRow("no_regions", "organs not kept to regions", options=replace(BASE, smooth=True))
NO_SMOOTH = PriorRow("no_smooth", "masks not smoothed, organs not kept to regions", options=BASE)
NO_SMOOTH_NO_3D = PriorRow("no_smooth_no_3d", "no 3D", options=_chained(three_d=False))
NO_3D = PriorRow(
    "no_3d", "no 3D", options=replace(NO_SMOOTH_NO_3D.options, appearance=True, poses=True, smooth=True)
)
SLICE_BY_SLICE = replace(NO_SMOOTH_NO_3D.options, clean=False)
# Options of segmenting: any prior can show what they do.
INFERENCE = (
    NO_SMOOTH,
    NO_SMOOTH_NO_3D,
    *(
        PriorRow(f"steps_{n}", f"{n} sampling step{'s' * (n > 1)}", options=replace(BASE, steps=n))
        for n in (1, 5, 50)
    ),
    *(PriorRow(f"samples_{n}", f"{n} samples averaged", options=replace(BASE, samples=n)) for n in (4, 8)),
    PriorRow("start_middle", "start at the middle slice", options=_chained(start="middle")),
    *(PriorRow(f"bank_{n}", f"memories of {n} neighbours", options=_chained(bank=n)) for n in (2, 3, 6)),
    *(
        PriorRow(f"presence_{name}", title, options=_chained(presence=least))
        for name, title, least in (
            ("off", "looked for in every slice", 0.0),
            ("0.1", "presence from 0.1", 0.1),
            ("0.25", "presence from 0.25", 0.25),
            ("0.75", "presence from 0.75", 0.75),
        )
    ),
    PriorRow("no_refine", "outlines not refined", options=replace(BASE, refine=False)),
    PriorRow("no_clean", "no clean-up", options=replace(BASE, clean=False)),
    PriorRow("no_3d_no_clean", "no 3D, no clean-up", options=SLICE_BY_SLICE),
)
# Of protocol D only, whose voxels are cubes.
AXIAL_ONLY = PriorRow(
    "axial_only", "of the three planes, the axial one alone", options=replace(BASE, axial_only=True)
)
AXIAL = PriorRow("axial", "axial slices alone, in training too", {"planes": "axial"}, options=BASE)
# The decoder of outlines sees no other slice.
ALONE = {"reach_mm": 0.0}
# Each of these is a training of its own.
TRAINING = tuple(
    replace(row, options=replace(row.options, regions=False, appearance=False, smooth=False))
    for row in (
        PriorRow("no_procedural", "begun with the same prior, no procedural abdomens besides", procedural=0),
        PriorRow("no_twins", "no MR-like twins of the CT cases", {"twins": 0}),
        PriorRow(
            "anew", "begun with random weights, real cases alone", {"twins": 0}, start="none", procedural=0
        ),
        PriorRow("true_latents", "true latents under the noise, not guesses", {"training.recycle": False}),
        PriorRow("regression", "regression (0 steps)", {"kind": "regression"}),
        PriorRow("no_reach", "slices 9 mm away not seen by the decoder of outlines", ALONE),
        PriorRow(
            "no_neighbours",
            "that, and neighbours not in the channels, as in the paper",
            ALONE,
            slice_context=0,
        ),
        PriorRow(
            "no_neighbours_no_3d", "that and no 3D", ALONE, options=NO_SMOOTH_NO_3D.options, slice_context=0
        ),
        PriorRow(
            "slices_alone", "that, no 3D and no clean-up", ALONE, options=SLICE_BY_SLICE, slice_context=0
        ),
        PriorRow("slice_uses_1", "every slice encoded anew each time", {"training.slice_uses": 1}),
        PriorRow("no_segmentation_loss", "lambda_seg 0", {"training.segmentation_weight": 0.0}),
        PriorRow(
            "no_augmentation",
            "no augmentation",
            {
                **{f"training.spatial.{name}": 0.0 for name in ("rotation", "scale", "shift", "elastic")},
                "training.intensity.cross_modality": 0.0,
                "training.intensity.strength": 0.0,
            },
        ),
        PriorRow(
            "no_cross_modality", "no cross-modality augmentation", {"training.intensity.cross_modality": 0.0}
        ),
    )
)
# No change of "no_smooth" but the counterpart of the whole method: smoothed as well, and asked for its brightness,
# each slice within itself, and seen in as many poses.
SLICES_ALONE_SMOOTH = PriorRow(
    "slices_alone_smooth",
    "DiffuSAM, every slice alone",
    ALONE,
    options=replace(SLICE_BY_SLICE, appearance=True, poses=True, smooth=True),
    slice_context=0,
)
SLICES_ALONE_NO_APPEARANCE = replace(
    SLICES_ALONE_SMOOTH,
    method="slices_alone_no_appearance",
    title="brightness not asked for, every slice alone",
    options=replace(SLICES_ALONE_SMOOTH.options, appearance=False, poses=False),
)
# Further rows of the whole method.
MORE = PriorRow("more_10", "DiffuSAM, 10 minutes more", more_minutes=10.0)
UNLABELLED = PriorRow(
    "unlabelled",
    "DiffuSAM, 10 minutes more, with what it found in the target cases that are not scored",
    more_minutes=10.0,
    unlabelled=True,
)
NO_REACH_SMOOTH = PriorRow(
    "no_reach_smooth",
    "brightness not asked for, slices 9 mm away not seen by the decoder of outlines",
    ALONE,
    options=NO_APPEARANCE.options,
)
OUTLINES_SMOOTH = PriorRow(
    "outlines_smooth",
    "brightness not asked for, outlines as masks: no memories, no SAM2",
    options=NO_APPEARANCE.options,
    outlines=True,
)
# Of protocol A only.
VOLUMES = tuple(
    PriorRow(
        f"volumes_{n}",
        f"{n} training volume{'s' * (n > 1)}",
        options=BASE,
        split=f"ct_{n}_volumes_draw{{}}",
    )
    for n in (1, 5, 10)
)
VOLUME_DRAWS = (1, 2, 3)


def rows_for(protocol: str, draw: int, *, trains: bool) -> tuple[PriorRow, ...]:
    """The ablations that a draw of a protocol can show."""
    cubes = protocol == "D"
    rows = (*INFERENCE, AXIAL_ONLY) if cubes else INFERENCE
    if trains:
        rows = (*rows, AXIAL, *TRAINING) if cubes else (*rows, *TRAINING)
        if protocol == "A" and draw in VOLUME_DRAWS:
            rows = (*rows, *VOLUMES)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_job_options(parser)
    parser.add_argument("--prior", help="take this prior as it is (default for C: the bundled one)")
    parser.add_argument("--recipe", help="name or file of the recipe (default: the protocol's)")
    parser.add_argument(
        "--only", nargs="+", metavar="ROW", help=", ".join(r.method for r in rows_for("A", 1, trains=True))
    )
    parser.add_argument("--inference-only", action="store_true", help="no trainings but the row diffusam's")
    arguments = parser.parse_args()
    with terminated_as_interrupt():
        for job in jobs(arguments):
            recipe = load_recipe(arguments.recipe or job.protocol.recipe)
            prior = arguments.prior or ("abdomen" if job.protocol.name.startswith("C") else None)
            trains = prior is None and not arguments.inference_only
            whole = [PriorRow("diffusam", "DiffuSAM"), OUTLINES_SMOOTH]
            if job.protocol.name in FEW_SHOT:
                whole.append(NO_APPEARANCE)
            if job.protocol.strange:
                whole += [NO_POSES, NO_REGIONS]
            if trains and job.protocol.name != "D":
                whole += [MORE, UNLABELLED, NO_REACH_SMOOTH, SLICES_ALONE_SMOOTH, SLICES_ALONE_NO_APPEARANCE]
            for row in (*whole, *rows_for(job.protocol.name, job.draw, trains=trains)):
                if arguments.only is None or row.method in arguments.only:
                    measure_row(row, job, recipe=recipe, prior=prior)


if __name__ == "__main__":
    main()
