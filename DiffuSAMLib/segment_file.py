"""One image file in, its segmentation, confidence, preview and report out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import __version__
from .content_hashes import content_sha256, sha256_of
from .devices import choose_device
from .encoded_volume import EncodedVolume
from .errors import InputError
from .files import is_same_file, require_writable
from .geometry import to_canonical
from .live_labels import LiveLabels
from .organ_names import chosen_organs
from .out_of_memory import telling_memory
from .peak_memory import cuda_peak_memory_mb, peak_memory_mb
from .preview import PREVIEW_ENDINGS, write_preview
from .prior_files import PriorHeader
from .progress import Progress, ProgressEvent
from .run_report import InputRecord, RunReport, WeightsRecord, organ_records
from .segmentation_files import (
    SCALAR_ENDINGS,
    SEGMENTATION_ENDINGS,
    require_ending,
    require_grid,
    write_scalar,
    write_segmentation,
)
from .segmenter import Segmentation, Segmenter, SegmentOptions
from .stage_timer import StageTimer
from .terminology import segment_for
from .volumes import Volume, normalise, read_volume
from .weights import LoadedPrior, load_prior, prior_path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SegmentRequest:
    """What to segment and where to write it.

    Attributes:
        image: NIfTI, NRRD or MetaImage file, or DICOM folder.
        output: Ends in `.nii.gz`, `.nii`, `.nrrd`, `.mha` or `.seg.nrrd`; None writes no file.
        prior: Name in the catalogue, or path of a prior file.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        modality: "CT" or "MR"; None asks the file.
        series: For a DICOM folder with several series: UID, place in the list or part of the description.
        confidence, report, preview: Further files to write; None writes none.
        options: How to segment.
    """

    image: Path
    output: Path | None = None
    prior: str = "abdomen"
    device: str = "auto"
    modality: str | None = None
    series: str | None = None
    confidence: Path | None = None
    report: Path | None = None
    preview: Path | None = None
    options: SegmentOptions = field(default_factory=SegmentOptions)


def segment_file(
    request: SegmentRequest,
    *,
    progress: Progress | None = None,
    on_decoded: Callable[[int, int, Tensor], None] | None = None,
) -> RunReport:
    """Segments one image; on return all files of the request are complete.

    Raises:
        InputError: The image or an option cannot be used.
        WeightsError: The prior or its backbone cannot be used.
        OutputError: A file cannot be written.
        OutOfMemoryError: The device or the computer has too little memory.
    """
    return FileSegmenter().segment(request, progress=progress, on_decoded=on_decoded)


def label_values(header: PriorHeader, organs: Sequence[str] | None) -> dict[str, int]:
    """The label number that a prior's header gives to each organ that is asked for, in the order of a segmentation.

    Raises:
        InputError: The prior does not know an organ.
    """
    numbers = {label.name: label.value for label in header.labels}
    return {name: numbers[name] for name in chosen_organs(list(numbers), organs)}


@dataclass
class _ReadImage:
    """An image as it was read, and its features once they are there."""

    volume: Volume
    sha256: str
    modality: str | None
    series: str | None
    encoded: tuple[EncodedVolume, ...] | None = None
    seen_by: tuple[object, ...] | None = None


class FileSegmenter:
    """Segments images one after another, and keeps the last prior and the last image's features.

    What is kept is used again only while the files have the same content, so a second run with other organs
    neither loads nor encodes.
    """

    def __init__(self) -> None:
        self._loaded: LoadedPrior | None = None
        self._segmenter: Segmenter | None = None
        self._image: _ReadImage | None = None

    def segment(
        self,
        request: SegmentRequest,
        *,
        progress: Progress | None = None,
        on_decoded: Callable[[int, int, Tensor], None] | None = None,
        live: LiveLabels | None = None,
    ) -> RunReport:
        """As `segment_file`; `live` is filled as masks appear, and holds the final labels on return."""
        _require_writable(request)
        timer = StageTimer()
        device = choose_device(request.device)
        with timer("read"):
            _tell(progress, "read")
            image = self._read(request)
            for path in (request.output, request.confidence):
                if path is not None:
                    # Also found on writing, but then the computing would be lost.
                    require_grid(path, image.volume.geometry)
        with timer("load"):
            _tell(progress, "load")
            loaded, segmenter = self._load(request.prior, device)
        volume = image.volume
        doubts = _doubts(volume, segmenter)
        for doubt in doubts:
            log.warning("%s", doubt)
        encoded = self._encoded(image, loaded, segmenter, request.options)
        values = label_values(loaded.header, request.options.organs)
        if live is not None:
            live.begin(encoded[0], values)
        segmentation = segmenter.segment(
            volume,
            request.options,
            encoded=encoded,
            progress=progress,
            on_decoded=_both(on_decoded, live),
        )
        with telling_memory("the results of this volume"):
            labels = np.array([0, *values.values()], np.uint8)[segmentation.labels]
            with timer("write"):
                _tell(progress, "write")
                if live is not None:
                    live.finish(labels)
                _write(request, volume, labels, values, segmentation)
            report = _report(
                request,
                image,
                loaded,
                labels,
                values,
                segmentation,
                doubts=doubts,
                device=device,
                # Features that were kept cost nothing.
                timings={"encode": 0.0, **timer.seconds, **segmentation.seconds},
            )
        if request.report is not None:
            report.write(request.report)
        return report

    def _read(self, request: SegmentRequest) -> _ReadImage:
        kept = self._image
        if (
            kept is not None
            and (kept.modality, kept.series) == (request.modality, request.series)
            and request.image.exists()
            and content_sha256(request.image) == kept.sha256
        ):
            return kept
        self._image = None
        volume = read_volume(request.image, modality=request.modality, series=request.series)
        self._image = _ReadImage(volume, content_sha256(request.image), request.modality, request.series)
        return self._image

    def _load(self, name: str, device: str) -> tuple[LoadedPrior, Segmenter]:
        path = prior_path(name)
        if self._loaded is None or not path.is_file() or sha256_of(path) != self._loaded.sha256:
            self._loaded = self._segmenter = None
            self._loaded = load_prior(name)
        if self._segmenter is None or self._segmenter.device != torch.device(device):
            self._segmenter = None
            try:
                self._segmenter = Segmenter(self._loaded.backbone.backbone, self._loaded.prior, device=device)
            except BaseException:
                # Part of the networks may lie on that device now, and the kept features follow their backbone.
                self._loaded = None
                if self._image is not None:
                    self._image.encoded = None
                raise
        return self._loaded, self._segmenter

    def _encoded(
        self, image: _ReadImage, loaded: LoadedPrior, segmenter: Segmenter, options: SegmentOptions
    ) -> tuple[EncodedVolume, ...]:
        """The image's features, kept where backbone, slice size, device, planes, poses and contrast are the same."""
        views = segmenter.views(image.volume, options)
        seen_by = (
            loaded.backbone.sha256,
            segmenter.backbone.image_size,
            str(segmenter.device),
            *((view.plane, view.pose, view.gamma) for view in views),
        )
        if image.encoded is None or image.seen_by != seen_by:
            image.encoded, image.seen_by = views, seen_by
        return image.encoded


def _doubts(volume: Volume, segmenter: Segmenter) -> list[str]:
    """Why to look at the result with care, as sentences."""
    if not segmenter.is_strange(volume):
        return []
    learnt = " and ".join(segmenter.prior.config.modalities)
    return [f"The prior has learnt from {learnt}, not from {volume.modality}: look at the result with care."]


def _write(
    request: SegmentRequest,
    volume: Volume,
    labels: np.ndarray,
    values: Mapping[str, int],
    segmentation: Segmentation,
) -> None:
    """Writes the images that the request names, each under its name only when complete."""
    segments = [segment_for(name, value) for name, value in values.items()]
    if request.confidence is not None:
        write_scalar(request.confidence, segmentation.confidence, volume.geometry)
    if request.preview is not None:
        order = to_canonical(volume.geometry)
        write_preview(
            request.preview, order.apply(normalise(volume)), order.apply(labels), order.geometry, segments
        )
    # Last of the pictures: where it stands, they are complete too.
    if request.output is not None:
        write_segmentation(request.output, labels, volume.geometry, segments)


def _report(
    request: SegmentRequest,
    image: _ReadImage,
    loaded: LoadedPrior,
    labels: np.ndarray,
    values: Mapping[str, int],
    segmentation: Segmentation,
    *,
    doubts: Sequence[str],
    device: str,
    timings: Mapping[str, float],
) -> RunReport:
    """The record of a run that gave the organs `values` their numbers in `labels`."""
    volume = image.volume
    geometry = volume.geometry
    return RunReport(
        program_version=__version__,
        inputs=[
            InputRecord(
                request.image,
                image.sha256,
                volume.modality,
                geometry.shape,
                geometry.matrix.tolist(),
                series_uid=volume.series_uid,
                warnings=(*volume.warnings, *doubts),
            )
        ],
        prior=WeightsRecord(loaded.header.name, loaded.sha256),
        backbone=WeightsRecord(loaded.header.backbone.name, loaded.backbone.sha256),
        seed=request.options.seed,
        device=device,
        options=asdict(request.options),
        timings=timings,
        organs=organ_records(
            labels,
            values,
            voxel_volume_ml=geometry.voxel_volume_ml,
            confidence_levels=segmentation.confidence_levels,
        ),
        peak_memory_mb=peak_memory_mb(),
        cuda_peak_memory_mb=cuda_peak_memory_mb(device),
    )


def _both(
    on_decoded: Callable[[int, int, Tensor], None] | None, live: LiveLabels | None
) -> Callable[[int, int, Tensor], None] | None:
    if on_decoded is None or live is None:
        return on_decoded or live

    def call(number: int, organ: int, mask: Tensor) -> None:
        on_decoded(number, organ, mask)
        live(number, organ, mask)

    return call


def _require_writable(request: SegmentRequest) -> None:
    """Finds a wrong ending or a missing folder before minutes of computing are lost."""
    if request.output is not None:
        require_ending(request.output, SEGMENTATION_ENDINGS)
    if request.confidence is not None:
        require_ending(request.confidence, SCALAR_ENDINGS)
    if request.preview is not None:
        require_ending(request.preview, PREVIEW_ENDINGS)
    written = [path for path in (request.output, request.confidence, request.report, request.preview) if path]
    for path in written:
        require_writable(path)
    if any(is_same_file(one, other) for one, other in combinations(written, 2)):
        raise InputError("Two of the files to write have the same name.", hint="Give each a name of its own.")
    for path in written:
        if is_same_file(path, request.image):
            raise InputError(
                f"{path} is the image itself, which would be lost.", hint="Write to another file."
            )


def _tell(progress: Progress | None, stage: str) -> None:
    if progress is not None:
        progress(ProgressEvent(stage, 0, 1))
