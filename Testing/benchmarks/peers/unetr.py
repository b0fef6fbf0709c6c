"""UNETR (MONAI) on slices, trained on the same volumes with the same slices, augmentation and time as DiffuSAM.

python Testing/benchmarks/peers/unetr.py A --minutes 20
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import benchmark_path  # noqa: F401
from monai.networks.nets import UNETR
from peer import Peer, Prepared, run_peers
from protocols import Job
from slice_training import SliceRecipe, seeded, segment_slices, stack_logits, trained

# 5.9 million parameters (its usual 87 million would see few slices in the time); patches of 16 pixels as in the paper.
SHAPE: dict[str, Any] = {"feature_size": 8, "hidden_size": 192, "mlp_dim": 768, "num_heads": 6}
RECIPE = SliceRecipe(learning_rate=5e-4)


def build(organs: int, size: int) -> UNETR:
    return UNETR(in_channels=3, out_channels=organs + 1, img_size=(size, size), spatial_dims=2, **SHAPE)


def prepare(job: Job) -> Prepared:
    organs = len(job.protocol.organs)
    seeded(job)
    network = build(organs, RECIPE.size)
    record = trained(job, "unetr", network, RECIPE, settings=SHAPE)
    return Prepared(
        lambda volume, _: segment_slices(
            partial(stack_logits, network), volume, organs=organs, size=RECIPE.size
        ),
        job.split.train,
        record,
    )


PEERS = {"unetr": Peer("UNETR (2D)", prepare, {**SHAPE, **asdict(RECIPE)})}

if __name__ == "__main__":
    run_peers(PEERS, __doc__)
