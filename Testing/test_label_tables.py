from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import small_abdomen

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.label_tables import contradiction, label_names_from, names_in_file, read_label_table
from DiffuSAMLib.labelled_files import find_cases
from DiffuSAMLib.segmentation_files import write_scalar, write_segmentation
from DiffuSAMLib.terminology import segment_for


@pytest.mark.parametrize(
    "content",
    [
        {"1": "spleen", "2": "right kidney"},
        {"spleen": 1, "right_kidney": 2},
        {"labels": {"background": 0, "spleen": 1, "right_kidney": 2}, "name": "x"},
        {"labels": {"0": "background", "1": "spleen", "2": "right kidney"}},
    ],
)
def test_a_json_table_is_read_either_way_round(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps(content))
    assert label_names_from(str(path)) == {1: "spleen", 2: "right kidney"}


def test_an_option_is_read_as_a_json_table_is() -> None:
    assert label_names_from("0=background,1=spleen,2=right_kidney") == {1: "spleen", 2: "right kidney"}
    with pytest.raises(InputError, match="background alone"):
        label_names_from("0=background")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"labels": {}}', '{"spleen": 300}', '{"spleen": "x"}', '{"spleen": 1.5}', '{"1": ""}'],
)
def test_a_wrong_json_table_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"names\.json"):
        read_label_table(path)


def test_a_label_with_two_names_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text('{"spleen": 1, "liver": 1}')
    with pytest.raises(InputError, match="gives label 1 two names: spleen and liver"):
        read_label_table(path)
    with pytest.raises(InputError, match="Label 1 has two names: spleen and liver"):
        label_names_from("1=spleen,1=liver")


def test_segments_bring_their_names(tmp_path: Path) -> None:
    abdomen = small_abdomen()
    labels = np.where(abdomen.labels.array == 4, 4, 0).astype(np.uint8)
    for name in ("a.seg.nrrd", "a.nrrd"):
        write_segmentation(tmp_path / name, labels, abdomen.labels.geometry, [segment_for("Liver", 4)])
    assert names_in_file(tmp_path / "a.seg.nrrd") == {4: "Liver"}
    with pytest.raises(InputError, match="does not say what its labels are"):
        names_in_file(tmp_path / "a.nrrd")


def test_a_control_has_the_names_of_its_segments(tmp_path: Path) -> None:
    """An image that shows none of the organs has a label map without a label."""
    abdomen = small_abdomen()
    geometry, labels = abdomen.labels.geometry, abdomen.labels.array
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for name, array in {"case": labels, "control": np.zeros_like(labels)}.items():
        write_scalar(tmp_path / "images" / f"{name}.nrrd", abdomen.volume.array, geometry)
        write_segmentation(
            tmp_path / "labels" / f"{name}.seg.nrrd", array, geometry, [segment_for("spleen", 1)]
        )
    found = find_cases(tmp_path / "images", tmp_path / "labels", None)
    assert [(case.name, case.label_names) for case in found] == [
        ("case", {1: "spleen"}),
        ("control", {1: "spleen"}),
    ]


def test_names_that_are_not_utf8_are_made_so(tmp_path: Path) -> None:
    """Such bytes reach Python as lone surrogates, in arguments as in the escapes of JSON."""
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"Gef\udce4\udcdfe": 1}))
    assert label_names_from("1=Gef\udce4\udcdfe") == label_names_from(str(path)) == {1: "Gef??e"}


def test_a_swapped_table_is_noticed() -> None:
    file, table = Path("a.seg.nrrd"), {1: "spleen", 2: "liver"}
    wrong = contradiction(file, table, {1: "Liver", 2: "Spleen"})
    assert wrong is not None
    assert wrong.message.startswith("a.seg.nrrd has names of its own, and it calls label 1 Liver, which is")
    assert contradiction(file, table, {1: "Segment_1", 2: "liver"}) is None
