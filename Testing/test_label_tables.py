from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import small_abdomen

from DiffuSAMLib.errors import InputError
from DiffuSAMLib.label_tables import disagreement, label_names_from, names_in_file, read_label_table
from DiffuSAMLib.segmentation_files import write_segmentation
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


def test_a_swapped_table_is_noticed() -> None:
    assert disagreement({1: "spleen", 2: "liver"}, {1: "Liver", 2: "Spleen"}).startswith(
        "it calls label 1 Liver"
    )
    assert not disagreement({1: "spleen", 2: "liver"}, {1: "Segment_1", 2: "liver"})
