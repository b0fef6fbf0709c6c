"""Loading and saving by file name, which in the application Qt reader and writer classes do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

_VOLUMES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd", ".hdr")


class FileManager:
    def file_type(self, name: str) -> str:
        lower = name.lower()
        if lower.endswith((".seg.nrrd", ".seg.nhdr")):
            return "SegmentationFile"
        if lower.endswith((".mrml", ".mrb")):
            return "SceneFile"
        if lower.endswith(_VOLUMES):
            return "VolumeFile"
        raise RuntimeError(f"The test host does not know the type of {name}.")

    def load(self, file_type: str, properties: dict[str, Any]) -> list[Any]:
        """The nodes read; an empty list if the reader failed. Raises RuntimeError for a type it does not know."""
        file = str(properties["fileName"])
        loaders = {
            "VolumeFile": self._volume,
            "SegmentationFile": self._segmentation,
            "SceneFile": self._scene,
        }
        if file_type not in loaders:
            raise RuntimeError(f"The test host does not load {file_type}.")
        if not Path(file).exists():
            return []
        return loaders[file_type](file, properties)

    def _volume(self, file: str, properties: dict[str, Any]) -> list[Any]:
        name = properties.get("name") or Path(file).name.split(".")[0]
        options = int(bool(properties.get("labelmap")))
        node = slicer.modules.volumes.logic().AddArchetypeVolume(file, name, options)
        return [node] if node else []

    def _segmentation(self, file: str, properties: dict[str, Any]) -> list[Any]:
        name = properties.get("name") or Path(file).name.split(".")[0]
        node = slicer.modules.segmentations.logic().LoadSegmentationFromFile(file, True, name)
        return [node] if node else []

    def _scene(self, file: str, properties: dict[str, Any]) -> list[Any]:
        scene = slicer.mrmlScene
        if properties.get("clear"):
            scene.Clear(False)
        before = scene.GetNumberOfNodes()
        if file.endswith(".mrb"):
            read = scene.ReadFromMRB(file)
        else:
            scene.SetURL(file)
            read = scene.Import()
        new = [scene.GetNthNode(i) for i in range(before, scene.GetNumberOfNodes())]
        return new if read else []

    def save(self, node: Any, file: str, properties: dict[str, Any]) -> bool:
        if not node.GetStorageNode():
            node.AddDefaultStorageNode()
        storage = node.GetStorageNode()
        storage.SetFileName(file)
        if "useCompression" in properties:
            storage.SetUseCompression(bool(properties["useCompression"]))
        return bool(storage.WriteData(node))
