"""Which modality the input volume is taken for, and how the panel says so."""

from __future__ import annotations

from slicer.i18n import tr as _

from .parameter_node import DiffuSAMSegmentParameterNode, Modality
from .priors import PriorCard
from .volume_export import hasVoxels
from .volume_modality import MODALITIES, dicomModality, guessModality


class ModalityChoice:
    """The modality that the user chose, or the guess, shown in a label.

    :param label: of the panel, beside the choice
    """

    def __init__(self, label) -> None:
        self._label = label
        self._guess: tuple[object, str] = (None, "")

    def of(self, parameters: DiffuSAMSegmentParameterNode) -> str:
        """CT or MR; empty where nothing was chosen and there is no volume to guess from."""
        chosen = parameters.modality
        return self._guessed(parameters.inputVolume) if chosen is Modality.AUTOMATIC else chosen.value

    def show(self, parameters: DiffuSAMSegmentParameterNode, card: PriorCard | None) -> None:
        """Says what the volume is taken for, and whether that suits the prior and what DICOM says."""
        modality, volumeNode = self.of(parameters), parameters.inputVolume
        text = _("taken for {modality}").format(modality=modality) if modality else ""
        if modality and card is not None and card.modalities and modality not in card.modalities:
            text = _("{modality}, but the prior is for {others}").format(
                modality=modality, others=", ".join(card.modalities)
            )
        tip = _("What Automatic takes the volume for.")
        tagged = dicomModality(volumeNode) if volumeNode is not None else ""
        if modality and tagged and tagged not in MODALITIES:
            text = _("taken for {modality}, but DICOM says {tagged}").format(modality=modality, tagged=tagged)
            tip = _("Priors know CT and MR only; in other images they may find nothing, or the wrong thing.")
        self._label.text = text
        self._label.toolTip = tip

    def _guessed(self, volumeNode) -> str:
        if not hasVoxels(volumeNode):
            return ""
        # Guessing looks at all voxels: once for each state of the volume.
        key = (volumeNode.GetID(), volumeNode.GetImageData().GetMTime())
        if self._guess[0] != key:
            self._guess = (key, guessModality(volumeNode))
        return self._guess[1]
