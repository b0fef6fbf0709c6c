from __future__ import annotations

import errno
import unicodedata
from pathlib import Path

import pytest

from DiffuSAMLib.case_pairs import case_name, pair_files
from DiffuSAMLib.errors import InputError
from DiffuSAMLib.labelled_files import find_cases


def folders(root: Path, images: list[str], labels: list[str]) -> tuple[Path, Path]:
    for folder, names in (("images", images), ("labels", labels)):
        (root / folder).mkdir()
        for name in names:
            if name.endswith("/"):
                (root / folder / name).mkdir()
            else:
                (root / folder / name).touch()
    return root / "images", root / "labels"


@pytest.mark.parametrize(
    ("image", "label", "name"),
    [
        ("a.nii.gz", "a.nii.gz", "a"),
        ("a.nii.gz", "a.seg.nrrd", "a"),
        ("a.mha", "a.nii", "a"),
        ("dicom/", "dicom.nrrd", "dicom"),
        ("case_0000.nii.gz", "case.nii.gz", "case"),
        ("case_0000.nii.gz", "case_0000.nii.gz", "case_0000"),
        ("case.nrrd", "case_label.nrrd", "case"),
        ("case.nrrd", "case-seg.nii.gz", "case"),
        ("case_image.nrrd", "case_segmentation.seg.nrrd", "case"),
        ("Case.NRRD", "case_Mask.nii.gz", "Case"),
        ("1.2.3.nrrd", "1.2.3_gt.nrrd", "1.2.3"),
    ],
)
def test_names_that_mean_the_same_go_together(tmp_path: Path, image: str, label: str, name: str) -> None:
    pairs = pair_files(*folders(tmp_path, [image], [label]))
    assert [(pair.name, pair.image.name, pair.labels.name) for pair in pairs.pairs] == [
        (name, image.rstrip("/"), label)
    ]
    assert pairs.images_alone == pairs.labels_alone == ()


def test_accents_go_together_however_they_are_stored(tmp_path: Path) -> None:
    stored, typed = (unicodedata.normalize(form, "fälle1") for form in ("NFD", "NFC"))
    images, labels = folders(tmp_path, [f"{stored}.nii.gz"], [f"{typed}_seg.nii.gz"])
    for name in (stored, typed):
        (case,) = find_cases(images, labels, {1: "liver"}, only=[name])
        assert case.name == typed


def test_equal_names_come_before_similar_ones(tmp_path: Path) -> None:
    pairs = pair_files(*folders(tmp_path, ["a.nrrd", "a_0000.nrrd"], ["a.nrrd", "a_0000.nrrd"]))
    assert [(pair.image.name, pair.labels.name) for pair in pairs.pairs] == [
        ("a.nrrd", "a.nrrd"),
        ("a_0000.nrrd", "a_0000.nrrd"),
    ]


@pytest.mark.parametrize("ending", ["_seg.nii.gz", "_label.nrrd", ".nii.gz"])
def test_numbers_that_look_like_channels_are_names_where_the_labels_have_them(
    tmp_path: Path, ending: str
) -> None:
    names = [f"case_{number:04d}" for number in range(12)]
    images, labels = ([f"{name}{end}" for name in names] for end in (".nii.gz", ending))
    pairs = pair_files(*folders(tmp_path, images, labels))
    assert [(pair.name, pair.labels.name) for pair in pairs.pairs] == list(zip(names, labels, strict=True))
    assert pairs.images_alone == pairs.labels_alone == ()


def test_an_image_does_not_get_the_labels_of_the_next(tmp_path: Path) -> None:
    pairs = pair_files(
        *folders(tmp_path, ["case_0001.nrrd", "case_0002.nrrd"], ["case_0002_seg.nrrd", "case_0003_seg.nrrd"])
    )
    assert [(pair.image.name, pair.labels.name) for pair in pairs.pairs] == [
        ("case_0002.nrrd", "case_0002_seg.nrrd")
    ]


def test_channels_behind_numbers_are_left_out_of_names(tmp_path: Path) -> None:
    pairs = pair_files(
        *folders(
            tmp_path, ["case_0001_0000.nrrd", "case_0002_0000.nrrd"], ["case_0001.nrrd", "case_0002_seg.nrrd"]
        )
    )
    assert [pair.name for pair in pairs.pairs] == ["case_0001", "case_0002"]


def test_the_report_says_what_matched_and_what_did_not(tmp_path: Path) -> None:
    pairs = pair_files(
        *folders(tmp_path, ["a.nrrd", "b.nrrd", "notes.txt", "._a.nrrd"], ["a_label.nrrd", "c.nrrd", "x.pdf"])
    )
    assert pairs.report() == [
        "a.nrrd goes with a_label.nrrd.",
        "Image b.nrrd has no label map of the same name; left out.",
        "Label map c.nrrd has no image of the same name; left out.",
    ]


def test_images_and_labels_may_share_a_folder(tmp_path: Path) -> None:
    for name in ("a.nrrd", "a.seg.nrrd", "b.nii.gz", "b_label.nii.gz"):
        (tmp_path / name).touch()
    pairs = pair_files(tmp_path, tmp_path)
    assert [(pair.name, pair.labels.name) for pair in pairs.pairs] == [
        ("a", "a.seg.nrrd"),
        ("b", "b_label.nii.gz"),
    ]


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (
            ["a_0000.nrrd", "a_0001.nrrd"],
            ["a.nrrd"],
            "Two images go with a.nrrd: a_0000.nrrd and a_0001.nrrd",
        ),
        (["a.nrrd"], ["a_label.nrrd", "a_seg.nrrd"], "Two label maps go with a.nrrd"),
        (["a.nrrd", "a.nii.gz"], ["a.nrrd"], "Two images go with a.nrrd"),
        (["a.nrrd"], ["a.nrrd", "a.seg.nrrd"], "Two label maps go with a.nrrd"),
    ],
)
def test_a_file_with_two_partners_is_refused(
    tmp_path: Path, images: list[str], labels: list[str], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        pair_files(*folders(tmp_path, images, labels))


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        pair_files(tmp_path, tmp_path / "nowhere")


def test_a_closed_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    images, labels = folders(tmp_path, ["a.nrrd"], ["a.nrrd"])
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"images cannot be listed \(Permission denied\)\. Check its perm"):
        pair_files(images, labels)


def test_endings_are_known_in_any_case() -> None:
    assert case_name(Path("A.NII.GZ")) == "A"
    assert case_name(Path("b.Seg.nrrd")) == "b"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("case.nii.gz", "case"),
        ("case.nii", "case"),
        ("case.seg.nrrd", "case"),
        ("case.1.nrrd", "case.1"),
        ("dicom_folder", "dicom_folder"),
    ],
)
def test_a_case_is_called_like_its_file_without_the_ending(file: str, name: str) -> None:
    assert case_name(Path(file)) == name
