"""Which cases train, tune and test: split files, and the refusal of cases that are missing or in two of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError


@dataclass(frozen=True)
class Split:
    """One division of the cases of one or more data sets.

    Args:
        name: Short name, equal to the file's stem.
        train: Case ids that weights may be fitted to.
        development: Case ids for choosing between variants; no weights are fitted to them.
        test: Case ids for the reported figure; nothing is fitted to or chosen by them.
        note: How the division was made and what it is for.

    Raises:
        InputError: A case is listed twice, or in two of the three lists.
    """

    name: str
    train: tuple[str, ...]
    development: tuple[str, ...]
    test: tuple[str, ...]
    note: str

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        twice: list[str] = []
        for role in ("train", "development", "test"):
            for case in getattr(self, role):
                if case in seen:
                    twice.append(f"{case} ({seen[case]} and {role})")
                seen[case] = role
        if twice:
            raise InputError(
                f"The split {self.name} lists cases more than once: {', '.join(twice)}.",
                hint="Leave each case in one list only.",
            )


def load_split(path: Path) -> Split:
    """Read a split file.

    Raises:
        InputError: The file is missing or is not a split, or a case is in more than one list.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The split file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"The split file {path} is not JSON: {error}.") from error
    roles = ("train", "development", "test")
    if (
        not isinstance(content, dict)
        or set(content) != {"name", "note", *roles}
        or not all(isinstance(content[key], str) for key in ("name", "note"))
        or not all(_is_case_list(content[role]) for role in roles)
    ):
        raise InputError(
            f"The split file {path} is not a split.",
            hint="It needs name, note, and train, development and test as lists of case names.",
        )
    lists = {role: tuple(content[role]) for role in roles}
    return Split(name=content["name"], note=content["note"], **lists)


def _is_case_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(case, str) for case in value)


def save_split(split: Split, path: Path) -> None:
    """Write a split file, one case a line, so that a difference between two versions can be read."""
    content = {
        "name": split.name,
        "note": split.note,
        "train": list(split.train),
        "development": list(split.development),
        "test": list(split.test),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def missing_cases_error(names: Iterable[str]) -> InputError:
    """Cases of a split file that no folder has."""
    return InputError(
        f"These cases of the split file are in no --data folder: {', '.join(names)}.",
        hint="Correct their names there, or give the folder that has them.",
    )


def refuse_overlap(training_cases: Iterable[str], evaluated_cases: Iterable[str]) -> None:
    """Stop an evaluation on cases that the weights were fitted to.

    Args:
        training_cases: Case ids in the training of every weight in use: prior and backbone.
        evaluated_cases: Case ids about to be scored.

    Raises:
        InputError: Some case is in both; the message names them.
    """
    both = sorted(set(training_cases) & set(evaluated_cases))
    if both:
        raise InputError(
            f"Cases to be evaluated were used in training: {', '.join(both)}.",
            hint="Evaluate on other cases.",
        )


def refuse_seen_images(training_images: Collection[str], evaluated: Iterable[tuple[str, str]]) -> None:
    """Stop an evaluation on images that the weights were fitted to under another name.

    Args:
        training_images: What `image_digest` gives for each image of the training.
        evaluated: Case id and the same digest of each case about to be scored.

    Raises:
        InputError: Some image is in both; the message names its cases.
    """
    seen = [case for case, digest in evaluated if digest in training_images]
    if seen:
        raise InputError(
            f"Cases to be evaluated have images that were used in training under another name: {', '.join(seen)}.",
            hint="Evaluate on other cases.",
        )
