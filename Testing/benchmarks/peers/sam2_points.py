"""SAM2 prompted with the truth: one point in each slice that shows the organ, on the same backbone; no training.

    python Testing/benchmarks/peers/sam2_points.py A B

The point is the organ's innermost pixel, so the truth tells this peer where the organ is and in which slices. The
compact backbone was pretrained without point prompts: it gets the point as its memory of a small disc instead, once on
each slice by itself and once with the neighbour's memory as in equation 3.
"""

from __future__ import annotations

from functools import partial

import benchmark_path  # noqa: F401
import numpy as np
import torch
from peer import Peer, Prepared, run_peers
from protocols import Job
from scipy import ndimage
from slice_training import segment_slices
from torch import Tensor

from DiffuSAMLib.backbones import ABSENT_LOGIT, MASK_LOGIT, Backbone, Decoded, Memory, mask_to_logits
from DiffuSAMLib.labelled_files import LabelledFiles, read_case
from DiffuSAMLib.labelled_stacks import to_stack
from DiffuSAMLib.slices import as_channels
from DiffuSAMLib.volumes import Volume

# Radius of the disc around a point, in pixels of the slice.
RADIUS = 5


def innermost_disc(mask: np.ndarray, *, radius: int = RADIUS) -> np.ndarray:
    """The pixels of a mask `(s, s)` within `radius` of its innermost one."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    return ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2) & mask


@torch.no_grad()
def prompted_logits(
    backbone: Backbone, labels: np.ndarray, slices: Tensor, *, organs: int, three_d: bool
) -> Tensor:
    """Logits `(n, 1 + organs, s/4, s/4)`, from points in the true labels `(n, s, s)`."""
    side = slices.shape[-1] // 4
    logits = torch.full((len(slices), 1 + organs, side, side), ABSENT_LOGIT)
    logits[:, 0] = 0
    previous: dict[int, tuple[int, Tensor]] = {}
    for number in range(len(slices)):
        shown = [organ for organ in range(organs) if (labels[number] == organ + 1).any()]
        if not shown:
            continue
        features = backbone.encode_image(
            as_channels(slices, torch.tensor([number]), context=backbone.slice_context)
        )
        for organ in shown:
            disc = torch.from_numpy(innermost_disc(labels[number] == organ + 1))[None, None]
            memories = [Memory(backbone.encode_memory(features, mask_to_logits(disc)))]
            at, neighbour = previous.get(organ, (-2, None))
            if three_d and neighbour is not None and at == number - 1:
                memories.append(Memory(neighbour, distance=1))
            decoded: Decoded = backbone.decode(features, memories)
            logits[number, organ + 1] = decoded.raw_logits[0, 0]
            # The truth says that it is there, whatever the score.
            score = torch.full((1, 1), MASK_LOGIT)
            previous[organ] = (
                number,
                backbone.encode_memory(features, decoded.raw_logits, object_score=score),
            )
    return logits


def prepare(job: Job, *, three_d: bool) -> Prepared:
    loaded = job.backbone()
    backbone, names = loaded.backbone, job.protocol.organs

    def segment(volume: Volume, case: LabelledFiles) -> np.ndarray:
        truth = read_case(case)[1].array
        stack = to_stack(
            volume, truth, case.label_names, name=case.name, organs=names, size=backbone.image_size
        )
        ask = partial(prompted_logits, backbone, stack.labels, organs=len(names), three_d=three_d)
        return segment_slices(ask, volume, organs=len(names), size=backbone.image_size)

    return Prepared(segment, loaded.training_cases)


PEERS = {
    name: Peer(
        title,
        partial(prepare, three_d=three_d),
        {"radius": RADIUS, "three_d": three_d},
        trains=False,
        uses_backbone=True,
    )
    for name, title, three_d in (
        ("sam2_points", "SAM2, points from the truth", False),
        ("sam2_points_3d", "SAM2, points from the truth, with the neighbour's memory", True),
    )
}

if __name__ == "__main__":
    run_peers(PEERS, __doc__)
