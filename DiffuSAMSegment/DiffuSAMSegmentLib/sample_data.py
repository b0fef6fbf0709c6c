"""What Sample Data offers for this module."""

from __future__ import annotations

import slicer
from slicer.i18n import tr as _

from .lib_location import addLibraryToPath

CATEGORY = "DiffuSAM Segment"
CT_LIVER_SHA256 = "e16eae0ae6fefa858c5c11e58f0f1bb81834d81b7102e021571056324ef6f37e"
MR_ABDOMEN_URL = "https://raw.githubusercontent.com/wasserth/TotalSegmentator/v2.18.0/tests/reference_files/example_mr_sm.nii.gz"
MR_ABDOMEN_SHA256 = "209b46efaff595dd54a9332872e17a722b62654bbb68dbd89acd5090701bbd4f"


def registerSampleData(iconFolder: str) -> None:
    """Adds the samples to the Sample Data module, once."""
    import SampleData

    def register(name: str, **details: object) -> None:
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category=CATEGORY, sampleName=name, **details
        )

    for name, modality in (("ProceduralAbdomenCT", "CT"), ("ProceduralAbdomenMR", "MR")):
        register(
            name,
            # Made on this computer; Sample Data asks for an address and a file all the same.
            uris="",
            fileNames=f"{name}.nrrd",
            nodeNames=name,
            thumbnailFileName=f"{iconFolder}/{name}.png",
            customDownloader=lambda source=None, modality=modality: [_showProceduralAbdomen(modality)],
        )
    # Case 100 of the Medical Segmentation Decathlon's liver task, CC-BY-SA 4.0, as Slicer itself offers it.
    register(
        "CTLiver",
        uris=f"{slicer.util.TESTING_DATA_URL}SHA256/{CT_LIVER_SHA256}",
        fileNames="CTLiver.nrrd",
        nodeNames="CTLiver",
        checksums=f"SHA256:{CT_LIVER_SHA256}",
    )
    # An example of TotalSegmentator, Apache 2.0: fat is bright, 20 slices of 3 mm.
    register(
        "MRAbdomen",
        uris=MR_ABDOMEN_URL,
        fileNames="MRAbdomen.nii.gz",
        nodeNames="MRAbdomen",
        thumbnailFileName=f"{iconFolder}/MRAbdomen.png",
        checksums=f"SHA256:{MR_ABDOMEN_SHA256}",
    )


def _showProceduralAbdomen(modality: str):
    """As Sample Data shows what it downloads; with a downloader of the sample's own it leaves that to it."""
    node, _truth = addProceduralAbdomen(modality)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def addProceduralAbdomen(modality: str = "CT", seed: int | None = None):
    """Makes a patient that never lived.

    :param seed: of which patient; by default that of ``make demo``
    :return: the volume node, and the true labels as an array (z, y, x): 1 spleen, 2 right kidney, 3 left
        kidney, 4 liver
    """
    import numpy as np
    import vtk

    addLibraryToPath()
    from DiffuSAMLib.procedural import DEMO_SEED, make_abdomen

    abdomen = make_abdomen(DEMO_SEED if seed is None else seed, modality=modality)
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ abdomen.volume.geometry.matrix
    name = _("Procedural abdomen {modality}").format(modality=modality)
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLScalarVolumeNode", slicer.mrmlScene.GenerateUniqueName(name)
    )
    slicer.util.updateVolumeFromArray(node, abdomen.volume.array)
    ijkToRas = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            ijkToRas.SetElement(row, column, matrix[row, column])
    node.SetIJKToRASMatrix(ijkToRas)
    node.CreateDefaultDisplayNodes()
    if modality == "CT":
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevelMinMax(-125, 275)
    return node, abdomen.labels.array
