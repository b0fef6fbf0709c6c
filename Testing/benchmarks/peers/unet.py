"""2D UNet (MONAI), trained on the same volumes with the same augmentation and time as DiffuSAM.

    python Testing/benchmarks/peers/unet.py A B --minutes 20

Its rows differ in the augmentation: DiffuSAM's own without its cross-modality part, or as strong as SLAug's; and in
whether masks are smoothed as DiffuSAM's are.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial

import benchmark_path  # noqa: F401
from monai.networks.nets import BasicUNet
from peer import Peer, Prepared, run_peers
from protocols import Job
from slice_training import SliceRecipe, seeded, segment_slices, stack_logits, trained
from torch import Tensor, nn

# Half as fine as the others' slices: at 256 pixels it made 192 steps in 15 minutes and found the liver alone.
SIZE = 128
# 1.2 million parameters; with more it would see too few slices in the time.
WIDTHS = (16, 32, 64, 128, 128, 16)
DROPOUT = 0.1


class FeatureUNet(nn.Module):
    """A UNet whose last features can be asked for."""

    def __init__(self, classes: int, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.body = BasicUNet(
            spatial_dims=2, in_channels=3, out_channels=classes, features=widths, dropout=DROPOUT
        )
        self.head = self.body.final_conv
        self.body.final_conv = nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """`(b, widths[-1], s, s)`."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


def trained_unet(job: Job, recipe: SliceRecipe) -> tuple[FeatureUNet, dict[str, object]]:
    """The UNet of a draw, and the record of its training."""
    seeded(job)
    network = FeatureUNet(len(job.protocol.organs) + 1)
    return network, trained(job, "unet", network, recipe, settings={"widths": WIDTHS})


def prepare(job: Job, *, recipe: SliceRecipe, smooth: bool) -> Prepared:
    network, record = trained_unet(job, recipe)
    organs = len(job.protocol.organs)
    return Prepared(
        lambda volume, _: segment_slices(
            partial(stack_logits, network), volume, organs=organs, size=recipe.size, smooth=smooth
        ),
        job.split.train,
        record,
    )


def unet_recipe(augmentation: str) -> SliceRecipe:
    return SliceRecipe(learning_rate=2e-3, batch=4, augmentation=augmentation, size=SIZE)


def unet(title: str, augmentation: str, *, smooth: bool = False) -> Peer:
    recipe = unet_recipe(augmentation)
    settings = {"widths": WIDTHS, "dropout": DROPOUT, **asdict(recipe)}
    if smooth:
        title, settings = f"{title}, masks smoothed", {**settings, "smooth": True}
    return Peer(title, partial(prepare, recipe=recipe, smooth=smooth), settings)


PEERS = {
    "unet_plain": unet("2D UNet, no cross-modality augmentation", "plain"),
    "unet_plain_smooth": unet("2D UNet, no cross-modality augmentation", "plain", smooth=True),
    "unet_slaug": unet("2D UNet, SLAug-style augmentation", "slaug"),
    "unet_slaug_smooth": unet("2D UNet, SLAug-style augmentation", "slaug", smooth=True),
}

if __name__ == "__main__":
    run_peers(PEERS, __doc__)
