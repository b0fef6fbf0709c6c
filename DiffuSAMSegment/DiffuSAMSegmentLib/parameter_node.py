"""What the user chose, stored in the scene."""

from enum import Enum
from typing import Annotated

from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper


class Modality(Enum):
    AUTOMATIC = "auto"
    CT = "CT"
    MR = "MR"

    def label(self) -> str:
        return _("Automatic") if self is Modality.AUTOMATIC else self.value


class Frames(Enum):
    CURRENT = "current"
    ALL = "all"

    def label(self) -> str:
        return {Frames.CURRENT: _("Current frame"), Frames.ALL: _("All frames")}[self]


class Device(Enum):
    AUTOMATIC = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self) -> str:
        return {
            Device.AUTOMATIC: _("Automatic"),
            Device.CPU: _("CPU"),
            Device.CUDA: _("NVIDIA GPU"),
            Device.MPS: _("Apple GPU"),
        }[self]


class Quality(Enum):
    """How many chains with different noise are averaged."""

    FAST = 1
    BEST = 4

    def label(self) -> str:
        return {Quality.FAST: _("Fast"), Quality.BEST: _("Best (takes about twice as long)")}[self]


@parameterNodeWrapper
class DiffuSAMSegmentParameterNode:
    """Parameters of the module.

    inputVolume - The volume to segment.
    outputSegmentation - Where organs are written; None makes a new one.
    modality, frames, device, quality - As on the panel.
    prior - Name in the catalogue of weights.
    skippedOrgans - Organs of the prior that are not wanted; so that another prior starts with all of its own.
    confidence - Whether a volume shows how sure the network is of each voxel.
    keepPartial - Whether Stop keeps what was found so far.
    trainingVolumes, trainingSegmentations - The examples to train a prior on, in pairs; None where not chosen yet.
    trainingSkipped - Segment names that all segmentations have and that the prior shall not learn.
    trainingWanted - Segment names that only some segmentations have and that it shall learn all the same.
    trainingName, trainingLicence, trainingMinutes - As on the panel.
    trainingStart - Name of the prior to begin from; empty for none.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    modality: Modality = Modality.AUTOMATIC
    frames: Frames = Frames.CURRENT
    device: Device = Device.AUTOMATIC
    quality: Quality = Quality.FAST
    prior: str = "abdomen"
    skippedOrgans: list[str]
    confidence: bool = False
    keepPartial: bool = False
    trainingVolumes: list[vtkMRMLScalarVolumeNode]
    trainingSegmentations: list[vtkMRMLSegmentationNode]
    trainingSkipped: list[str]
    trainingWanted: list[str]
    trainingName: str = ""
    trainingLicence: str = "As the training data"
    trainingMinutes: Annotated[int, WithinRange(1, 10080)] = 30
    trainingStart: str = "abdomen"


def resetToDefaults(node: DiffuSAMSegmentParameterNode) -> None:
    """Sets every choice but the input, the output and those of the training back."""
    choices = (
        "modality",
        "frames",
        "device",
        "quality",
        "prior",
        "skippedOrgans",
        "confidence",
        "keepPartial",
    )
    for name in choices:
        node.setValue(name, node.default(name).value)
