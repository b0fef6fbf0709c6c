"""One image file in, its segmentation, confidence, preview and report out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from . import __version__
from .devices import choose_device
from .errors import InputError
from .files import require_writable
from .geometry import to_canonical
from .preview import PREVIEW_ENDINGS, write_preview
from .progress import Progress, ProgressEvent
from .run_report import (
    InputRecord,
    RunReport,
    StageTimer,
    WeightsRecord,
    cuda_peak_memory_mb,
    organ_records,
    peak_memory_mb,
)
from .segmentation_files import (
    SCALAR_ENDINGS,
    SEGMENTATION_ENDINGS,
    require_ending,
    write_scalar,
    write_segmentation,
)
from .segmenter import Segmentation, Segmenter, SegmentOptions
from .terminology import segment_for
from .volumes import normalise, read_volume
from .weights import LoadedPrior, load_prior


@dataclass(frozen=True)
class SegmentRequest:
    """What to segment and where to write it.

    Attributes:
        image: NIfTI, NRRD or MetaImage file, or DICOM folder.
        output: Ends in `.nii.gz`, `.nii`, `.nrrd`, `.mha` or `.seg.nrrd`.
        prior: Name in the catalogue, or path of a prior file.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        modality: "CT" or "MR"; None asks the file.
        series: For a DICOM folder with several series: UID, number or part of the description.
        confidence, report, preview: Further files to write; None writes none.
        options: How to segment.
    """

    image: Path
    output: Path
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
    """
    _require_writable(request)
    timer = StageTimer()
    device = choose_device(request.device)
    with timer("read"):
        _tell(progress, "read")
        volume = read_volume(request.image, modality=request.modality, series=request.series)
    with timer("load"):
        _tell(progress, "load")
        loaded = load_prior(request.prior)
        segmenter = Segmenter(loaded.backbone.backbone, loaded.prior, device=device)
    segmentation = segmenter.segment(volume, request.options, progress=progress, on_decoded=on_decoded)
    values = label_values(loaded, segmentation)
    labels = np.array([0, *values.values()], np.uint8)[segmentation.labels]
    segments = [segment_for(name, value) for name, value in values.items()]
    with timer("write"):
        _tell(progress, "write")
        if request.confidence is not None:
            write_scalar(request.confidence, segmentation.confidence, volume.geometry)
        if request.preview is not None:
            order = to_canonical(volume.geometry)
            write_preview(
                request.preview, order.apply(normalise(volume)), order.apply(labels), order.geometry, segments
            )
        # Last of the pictures: where it stands, they are complete too.
        write_segmentation(request.output, labels, volume.geometry, segments)
    report = RunReport(
        program_version=__version__,
        inputs=[InputRecord.of(request.image, modality=volume.modality, geometry=volume.geometry)],
        prior=WeightsRecord(loaded.header.name, loaded.sha256),
        backbone=WeightsRecord(loaded.header.backbone.name, loaded.backbone.sha256),
        seed=request.options.seed,
        device=device,
        options=asdict(request.options),
        timings={**timer.seconds, **segmentation.seconds},
        organs=organ_records(
            labels,
            values,
            voxel_volume_ml=volume.geometry.voxel_volume_ml,
            confidence_levels=segmentation.confidence_levels,
        ),
        peak_memory_mb=peak_memory_mb(),
        cuda_peak_memory_mb=cuda_peak_memory_mb(device),
    )
    if request.report is not None:
        report.write(request.report)
    return report


def label_values(loaded: LoadedPrior, segmentation: Segmentation) -> Mapping[str, int]:
    """The label number that the prior's header gives to each organ of a segmentation."""
    numbers = {label.name: label.value for label in loaded.header.labels}
    return {name: numbers[name] for name in segmentation.organs}


def _require_writable(request: SegmentRequest) -> None:
    """Finds a wrong ending or a missing folder before minutes of computing are lost."""
    require_ending(request.output, SEGMENTATION_ENDINGS)
    if request.confidence is not None:
        require_ending(request.confidence, SCALAR_ENDINGS)
    if request.preview is not None:
        require_ending(request.preview, PREVIEW_ENDINGS)
    written = [path for path in (request.output, request.confidence, request.report, request.preview) if path]
    if len(set(written)) < len(written):
        raise InputError("Two of the files to write have the same name.", hint="Give each a name of its own.")
    for path in written:
        require_writable(path)
        if path.resolve() == request.image.resolve():
            raise InputError(
                f"{path} is the image itself, which would be lost.", hint="Write to another file."
            )


def _tell(progress: Progress | None, stage: str) -> None:
    if progress is not None:
        progress(ProgressEvent(stage, 0, 1))
