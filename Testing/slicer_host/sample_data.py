"""SampleData as far as modules register with it; nothing is downloaded."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer


class DownloadRefused(RuntimeError):
    """The test host has no network."""


def _as_list(value: Any) -> list | None:
    return value if value is None or isinstance(value, list) else [value]


class SampleDataSource:
    def __init__(
        self,
        sampleName: str | None = None,
        sampleDescription: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        checksums: Any = None,
        loadFiles: Any = None,
        customDownloader: Callable | None = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFileProperties: dict | None = None,
    ) -> None:
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        self.uris, self.fileNames = _as_list(uris) or [], _as_list(fileNames) or []
        self.nodeNames, self.checksums = _as_list(nodeNames) or [], _as_list(checksums) or []
        self.loadFiles, self.loadFileTypes = _as_list(loadFiles) or [], _as_list(loadFileTypes) or []
        self.loadFileProperties = loadFileProperties or {}
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        if not sampleName:
            raise ValueError("A sample data source needs a sampleName.")
        if thumbnailFileName is not None and not Path(thumbnailFileName).is_file():
            raise FileNotFoundError(thumbnailFileName)
        if customDownloader is None and not self.uris:
            raise ValueError(f"{sampleName}: neither uris nor customDownloader.")
        for name in ("fileNames", "nodeNames", "checksums", "loadFiles", "loadFileTypes"):
            given = getattr(self, name)
            if self.uris and given and len(given) != len(self.uris):
                raise ValueError(f"{sampleName}: {len(given)} {name} for {len(self.uris)} uris.")
        for checksum in self.checksums:
            slicer.util.extractAlgoAndDigest(checksum)


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Callable | None = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        loadFileProperties: dict | None = None,
        checksums: Any = None,
        loadFileType: Any = None,
    ) -> None:
        source = SampleDataSource(
            sampleName=sampleName,
            uris=uris,
            fileNames=fileNames,
            nodeNames=nodeNames,
            thumbnailFileName=thumbnailFileName,
            loadFileTypes=loadFileTypes or loadFileType,
            loadFiles=loadFiles,
            loadFileProperties=loadFileProperties,
            checksums=checksums,
            customDownloader=customDownloader,
        )
        sources = slicer.modules.sampleDataSources.setdefault(category, [])
        sources[:] = [s for s in sources if s.sampleName != sampleName] + [source]

    @staticmethod
    def sourceForSampleName(sampleName: str) -> SampleDataSource | None:
        for sources in slicer.modules.sampleDataSources.values():
            for source in sources:
                if source.sampleName == sampleName:
                    return source
        return None

    @staticmethod
    def sampleDataSourcesByCategory(category: str | None = None) -> Any:
        sources = slicer.modules.sampleDataSources
        return sources if category is None else sources.get(category, [])

    def __init__(self, logMessage: Callable | None = None) -> None:
        self.logMessage = logMessage or (lambda message, level=logging.INFO: logging.log(level, message))

    def downloadFromSource(self, source: SampleDataSource, maximumAttemptsCount: int = 3) -> list[Any]:
        """Runs the source's own downloader; raises DownloadRefused if it has none."""
        if source.customDownloader is None:
            raise DownloadRefused(f"The test host downloads nothing: {source.uris}")
        return _as_list(source.customDownloader(source)) or []

    def downloadSamples(self, sampleName: str) -> list[Any]:
        source = self.sourceForSampleName(sampleName)
        if source is None:
            raise ValueError(f"No sample data named {sampleName}.")
        return self.downloadFromSource(source)

    def downloadSample(self, sampleName: str) -> Any:
        nodes = self.downloadSamples(sampleName)
        return nodes[0] if nodes else None

    def downloadFileIntoCache(self, uri: str, name: str, checksum: str | None = None) -> str:
        raise DownloadRefused(f"The test host downloads nothing: {uri}")


def downloadSample(sampleName: str) -> Any:
    return SampleDataLogic().downloadSample(sampleName)


def downloadFromURL(uris: Any = None, *arguments: Any, **options: Any) -> Any:
    raise DownloadRefused(f"The test host downloads nothing: {uris}")
