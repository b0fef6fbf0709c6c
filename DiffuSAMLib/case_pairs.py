"""Which image of one folder goes with which label map of another, by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .composed_names import composed
from .errors import InputError
from .listing import is_folder, list_folder

IMAGE_ENDINGS = (".nii.gz", ".nii", ".seg.nrrd", ".nrrd", ".nhdr", ".mha", ".mhd")
# nnU-Net writes the number of the channel behind an image's name; others write what the file is.
_IMAGE_SUFFIX = re.compile(r"(_000\d|[-_. ](image|img|scan|volume))$", re.IGNORECASE)
_LABEL_SUFFIX = re.compile(
    r"[-_. ](labels?|labelmap|seg|segmentations?|segm|masks?|gt|groundtruth|ground[-_ ]truth|annotations?)$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class CasePair:
    """An image and its label map; `name` is what both are called, `composed`."""

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True)
class CasePairs:
    """What matched in two folders, and what did not.

    Attributes:
        pairs: In the order of the images' names.
        images_alone: Images without a label map.
        labels_alone: Label maps without an image.
    """

    pairs: tuple[CasePair, ...]
    images_alone: tuple[Path, ...]
    labels_alone: tuple[Path, ...]

    def report(self, *, only: Sequence[str] | None = None) -> list[str]:
        """What matched (and has a name among `only`, `composed`) and what did not, a sentence each."""
        lines = [
            f"{pair.image.name} goes with {pair.labels.name}."
            for pair in self.pairs
            if only is None or pair.name in only
        ]
        lines += [
            f"Image {path.name} has no label map of the same name; left out." for path in self.images_alone
        ]
        lines += [
            f"Label map {path.name} has no image of the same name; left out." for path in self.labels_alone
        ]
        return lines


def case_name(path: Path) -> str:
    """The file name without its image ending."""
    ending = _ending(path)
    return path.name[: -len(ending)] if ending else path.name


def pair_files(images: Path, labels: Path) -> CasePairs:
    """Pairs the images and label maps of two folders, or of one that holds both.

    Names that are equal but for their endings go together first; then those where only the label map's name tells
    what it is: `liver.nrrd` with `liver_label.nrrd`, `liver-seg.nii.gz` or `liver.seg.nrrd`; then those where the
    image's name does too: `liver_0000.nii.gz` with `liver.nii.gz`. An image may be a DICOM folder.

    Raises:
        InputError: A folder is missing or cannot be listed, or a file has two partners.
    """
    for folder in (images, labels):
        if not is_folder(folder):
            raise InputError(
                f"There is no folder {folder}.", hint="Give a folder of images and one of label maps."
            )
    if images.resolve() == labels.resolve():
        files = _listed(images, folders=True)
        label_files = [path for path in files if _is_named_label(path)]
        image_files = [path for path in files if path not in label_files]
    else:
        image_files, label_files = _listed(images, folders=True), _listed(labels, folders=False)
    pairs = []
    # The number in case_0001 looks like a channel: whole names of images are tried before shortened ones.
    for image_keys, label_keys in (
        (case_name, case_name),
        (case_name, _label_key),
        (_image_key, _label_key),
    ):
        by_image = _grouped(image_files, image_keys)
        by_label = _grouped(label_files, label_keys)
        for key in [key for key in by_image if key in by_label]:
            _require_one(by_image[key], "images", by_label[key][0].name)
            _require_one(by_label[key], "label maps", by_image[key][0].name)
            image, label = by_image[key][0], by_label[key][0]
            pairs.append(CasePair(composed(image_keys(image)), image, label))
            image_files.remove(image)
            label_files.remove(label)
    return CasePairs(
        tuple(sorted(pairs, key=lambda pair: pair.image.name)), tuple(image_files), tuple(label_files)
    )


def _ending(path: Path) -> str:
    return next((ending for ending in IMAGE_ENDINGS if path.name.lower().endswith(ending)), "")


def _is_named_label(path: Path) -> bool:
    if is_folder(path):
        return False
    return path.name.lower().endswith(".seg.nrrd") or bool(_LABEL_SUFFIX.search(case_name(path)))


def _listed(folder: Path, *, folders: bool) -> list[Path]:
    """Images by their endings, and folders where they may be DICOM series; hidden files are no images."""
    return [
        path
        for path in list_folder(folder)
        # macOS leaves hidden files beside the images that it copies.
        if not path.name.startswith(".") and (_ending(path) or (folders and is_folder(path)))
    ]


def _image_key(path: Path) -> str:
    return _IMAGE_SUFFIX.sub("", case_name(path))


def _label_key(path: Path) -> str:
    return _LABEL_SUFFIX.sub("", case_name(path))


def _grouped(paths: Iterable[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for path in paths:
        groups.setdefault(composed(key(path)).casefold(), []).append(path)
    return groups


def _require_one(paths: Sequence[Path], what: str, partner: str) -> None:
    if len(paths) > 1:
        raise InputError(
            f"Two {what} go with {partner}: {paths[0].name} and {paths[1].name}.",
            hint="Leave one of them there, or name each case differently.",
        )
