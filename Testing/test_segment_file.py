from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import (
    EVERYWHERE,
    ORGANS,
    Installation,
    files_in,
    read_array,
    small_abdomen,
    write_case,
)
from PIL import Image

from DiffuSAMLib.content_hashes import sha256_of
from DiffuSAMLib.errors import InputError, OutOfMemoryError, OutputError
from DiffuSAMLib.geometry import Geometry
from DiffuSAMLib.labelmaps import read_labelmap
from DiffuSAMLib.planes import PLANES
from DiffuSAMLib.procedural import make_abdomen
from DiffuSAMLib.progress import ProgressEvent
from DiffuSAMLib.segment_file import FileSegmenter, SegmentRequest, label_values, segment_file
from DiffuSAMLib.segmentation_files import write_scalar
from DiffuSAMLib.segmenter import Segmenter, SegmentOptions
from DiffuSAMLib.volumes import read_volume
from DiffuSAMLib.weights import LoadedPrior, load_prior

pytestmark = pytest.mark.usefixtures("random_weights")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    write_case(tmp_path, "abdomen", small_abdomen())
    return tmp_path / "images" / "abdomen.nii.gz"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_all_files_of_a_request_are_written(image: Path, out: Path, installation: Installation) -> None:
    stages: list[str] = []

    def listen(event: ProgressEvent) -> None:
        stages.append(event.stage)

    request = SegmentRequest(
        image,
        out / "labels.seg.nrrd",
        device="cpu",
        confidence=out / "confidence.nii.gz",
        report=out / "report.json",
        preview=out / "preview.png",
        options=EVERYWHERE,
    )
    report = segment_file(request, progress=listen)
    assert set(files_in(out)) == {"labels.seg.nrrd", "confidence.nii.gz", "report.json", "preview.png"}
    assert list(dict.fromkeys(stages)) == ["read", "load", "encode", "generate", "propagate", "write"]

    written = json.loads((out / "report.json").read_text(encoding="ascii"))
    assert written == report.to_json()
    assert written["inputs"][0]["sha256"] == sha256_of(image)
    assert written["prior"] == {"name": "abdomen-prior", "sha256": sha256_of(installation.prior)}
    assert written["backbone"] == {"name": "compact", "sha256": sha256_of(installation.backbone)}
    assert written["options"]["steps"] == 2
    assert set(written["timings"]) >= {"read", "load", "encode", "generate", "propagate", "resample", "write"}

    labels = read_labelmap(out / "labels.seg.nrrd")
    volume = read_volume(image)
    assert labels.geometry.shape == volume.geometry.shape
    np.testing.assert_allclose(labels.geometry.matrix, volume.geometry.matrix, atol=1e-4)
    assert labels.names == dict(enumerate(ORGANS, start=1))
    for record, value in zip(written["organs"], labels.names, strict=True):
        voxels = int((labels.array == value).sum())
        assert (record["value"], record["voxels"]) == (value, voxels)
        assert record["volume_ml"] == pytest.approx(voxels * 3.5 * 3.5 * 20 / 1000)

    confidence = read_array(out / "confidence.nii.gz")
    assert confidence.shape == labels.array.shape
    assert confidence.min() >= 0.5
    assert confidence.max() <= 1
    with Image.open(out / "preview.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_the_file_and_the_library_give_the_same_labels(
    image: Path, out: Path, installation: Installation
) -> None:
    segment_file(SegmentRequest(image, out / "labels.nrrd", device="cpu", options=EVERYWHERE))
    loaded = installation.load()
    found = Segmenter(loaded.backbone.backbone, loaded.prior).segment(read_volume(image), EVERYWHERE)
    np.testing.assert_array_equal(read_array(out / "labels.nrrd"), found.labels)


def test_labels_have_the_numbers_of_the_prior_whatever_is_asked_for(image: Path, out: Path) -> None:
    options = SegmentOptions(organs=("liver", "right kidney"), propagation=EVERYWHERE.propagation)
    report = segment_file(SegmentRequest(image, out / "labels.nii.gz", device="cpu", options=options))
    assert [organ.name for organ in report.organs] == ["right kidney", "liver"]
    assert set(np.unique(read_array(out / "labels.nii.gz"))) == {0, 2, 4}


def test_label_values_come_from_the_header(installation: Installation) -> None:
    assert label_values(installation.load().header, ("liver",)) == {"liver": 4}


def test_a_modality_that_is_given_is_used(image: Path, out: Path) -> None:
    report = segment_file(SegmentRequest(image, out / "labels.mha", device="cpu", modality="MR"))
    assert report.inputs[0].modality == "MR"


def test_a_modality_that_the_prior_has_not_learnt_from_is_told(
    image: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def of_ct(name: str) -> LoadedPrior:
        loaded = load_prior(name)
        loaded.prior.config = replace(loaded.prior.config, modalities=("CT",))
        return loaded

    monkeypatch.setattr("DiffuSAMLib.segment_file.load_prior", of_ct)
    strange, known = (
        segment_file(SegmentRequest(image, out / "labels.mha", device="cpu", modality=modality))
        for modality in ("MR", "CT")
    )
    told = "The prior has learnt from CT, not from MR: look at the result with care."
    assert list(strange.inputs[0].warnings) == caplog.messages == [told]
    assert list(known.inputs[0].warnings) == []


def test_features_are_used_again_only_for_priors_of_the_same_planes(image: Path, out: Path) -> None:
    """One that knows three planes needs features of its own where the voxels are cubes."""
    cubic = out / "cubic.nrrd"
    abdomen = make_abdomen(4, shape=(6, 12, 16), spacing=(20.0, 20.0, 24.0))
    write_scalar(cubic, abdomen.volume.array, abdomen.volume.geometry)
    segmenter = FileSegmenter()

    def encoding(path: Path) -> float:
        request = SegmentRequest(path, out / "labels.mha", device="cpu", modality="CT")
        return segmenter.segment(request).timings["encode"]

    for path, anew in ((image, False), (cubic, True)):
        assert encoding(path) > 0
        assert encoding(path) == 0
        assert segmenter._loaded is not None
        prior = segmenter._loaded.prior
        before = prior.config
        prior.config = replace(before, planes=PLANES)
        assert (encoding(path) > 0) == anew
        prior.config = before


def test_two_files_of_one_name_are_refused(image: Path, out: Path) -> None:
    same = out / "labels.nii.gz"
    for other in (same, out.parent / "images" / ".." / "out" / same.name, out / "Labels.nii.gz"):
        with pytest.raises(InputError, match="same name"):
            segment_file(SegmentRequest(image, same, confidence=other))


def test_the_image_is_never_overwritten(image: Path) -> None:
    before = image.read_bytes()
    for request in (
        SegmentRequest(image, image),
        SegmentRequest(image, image.parent / ".." / "images" / image.name),
        SegmentRequest(image, image.with_name("x.nrrd"), confidence=image),
    ):
        with pytest.raises(InputError, match="the image itself"):
            segment_file(request)
    assert image.read_bytes() == before


def test_too_little_memory_for_the_results_is_told(
    image: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr("DiffuSAMLib.segment_file.write_segmentation", fail)
    with pytest.raises(OutOfMemoryError, match="too little free memory for the results of this volume"):
        segment_file(SegmentRequest(image, out / "labels.nrrd", device="cpu", options=EVERYWHERE))


@pytest.mark.parametrize("which", ["output", "confidence", "report", "preview"])
def test_a_missing_folder_is_found_before_the_image_is_read(image: Path, out: Path, which: str) -> None:
    names = {
        "output": "a.nii.gz",
        "confidence": "b.nii.gz",
        "report": "c.json",
        "preview": "d.png",
    }
    paths = {key: out / ("nowhere" if key == which else "") / name for key, name in names.items()}
    stages: list[ProgressEvent] = []
    with pytest.raises(OutputError, match="no folder"):
        segment_file(SegmentRequest(image, **paths), progress=stages.append)
    assert not stages
    assert not files_in(out)


def test_a_sheared_grid_is_refused_for_nifti_before_anything_is_computed(tmp_path: Path, out: Path) -> None:
    volume = small_abdomen().volume
    matrix = np.array(volume.geometry.matrix)
    matrix[0, 2] = 0.2 * matrix[2, 2]
    sheared = Geometry(volume.geometry.shape, matrix)
    write_scalar(tmp_path / "sheared.nrrd", volume.array.astype(np.float32), sheared)
    stages: list[str] = []
    request = SegmentRequest(tmp_path / "sheared.nrrd", out / "labels.nii.gz", modality="CT", device="cpu")
    with pytest.raises(InputError, match="not perpendicular"):
        segment_file(request, progress=lambda event: stages.append(event.stage))
    assert stages == ["read"]
    assert list(out.iterdir()) == []
