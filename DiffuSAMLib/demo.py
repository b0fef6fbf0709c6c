"""The bundled case, end to end, without network: a procedural abdomen is written, segmented and compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .files import make_folder
from .labelmaps import read_labelmap
from .metrics import score_case
from .procedural import DEMO_SEED, make_abdomen
from .progress import Progress
from .segment_file import SegmentRequest, segment_file
from .segmentation_files import write_scalar
from .volume_text import volume_text


def run_demo(folder: Path, *, progress: Progress | None = None) -> str:
    """Writes image, segmentation, preview and report into a folder, which is made if need be.

    Returns:
        A few lines for the user: what was found, how well, and where the files are.

    Raises:
        OutputError: The folder cannot be made or written to.
    """
    make_folder(folder)
    abdomen = make_abdomen(DEMO_SEED)
    image = folder / "abdomen.nii.gz"
    write_scalar(image, abdomen.volume.array, abdomen.volume.geometry)
    output = folder / "abdomen.seg.nrrd"
    request = SegmentRequest(
        image=image,
        output=output,
        device="cpu",
        report=folder / "report.json",
        preview=folder / "preview.png",
    )
    report = segment_file(request, progress=progress)
    found = read_labelmap(output)
    values = {name: value for value, name in found.names.items()}
    truth = np.zeros_like(found.array)
    for value, name in abdomen.labels.names.items():
        truth[abdomen.labels.array == value] = values[name]
    scores = score_case(found.array, truth, values, abdomen.volume.geometry.spacing[::-1])
    lines = [
        f"{organ.name}: {volume_text(organ.volume_ml)} ml, Dice {scores[organ.name].dice:.3f}"
        for organ in report.organs
    ]
    mean = float(np.mean([score.dice for score in scores.values()]))
    lines.append(f"Mean Dice {mean:.3f} in {sum(report.timings.values()):.1f} s; files in {folder}")
    return "\n".join(lines)
