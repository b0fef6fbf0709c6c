"""Any safetensors file: opened by its table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from DiffuSAMLib.errors import WeightsError
from DiffuSAMLib.safetensors_files import read_content, read_safetensors, read_table


def some_tensors() -> dict[str, torch.Tensor]:
    return {
        "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
        "brain": torch.ones(4, dtype=torch.bfloat16),
    }


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_file(some_tensors(), path, metadata={"made by": "a test"})
    return path


def test_tensors_and_what_their_writer_said_come_back(weights: Path) -> None:
    metadata, tensors = read_safetensors(weights)
    assert metadata == {"made by": "a test"}
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {
        "half": torch.float16,
        "brain": torch.bfloat16,
    }
    assert all(torch.equal(tensors[name], tensor) for name, tensor in some_tensors().items())


def test_a_file_without_metadata_has_none(tmp_path: Path) -> None:
    save_file(some_tensors(), tmp_path / "plain.safetensors")
    assert read_safetensors(tmp_path / "plain.safetensors")[0] == {}


@pytest.mark.parametrize("read", [read_table, read_content, read_safetensors])
class TestUnusableFiles:
    def test_a_missing_file(self, read, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="There is no file"):
            read(tmp_path / "absent.safetensors")

    def test_a_folder(self, read, tmp_path: Path) -> None:
        with pytest.raises(WeightsError, match="cannot be read"):
            read(tmp_path)

    def test_an_empty_file(self, read, tmp_path: Path) -> None:
        (tmp_path / "e.safetensors").touch()
        with pytest.raises(WeightsError, match="is empty"):
            read(tmp_path / "e.safetensors")

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_pickled_file(self, read, zipped: bool, tmp_path: Path) -> None:
        torch.save(some_tensors(), tmp_path / "p.pt", _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match="pickled PyTorch file, which is refused"):
            read(tmp_path / "p.pt")

    def test_a_text_file(self, read, tmp_path: Path) -> None:
        (tmp_path / "t.safetensors").write_text("this is no prior at all")
        with pytest.raises(WeightsError, match="is not a safetensors file"):
            read(tmp_path / "t.safetensors")

    @pytest.mark.parametrize("kept", [1, 8, 9, 60, 0.3, 0.9, -1])
    def test_a_truncated_file(self, read, kept: float, weights: Path) -> None:
        content = weights.read_bytes()
        weights.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
        with pytest.raises(WeightsError, match=r"incomplete or damaged|not a safetensors file"):
            read(weights)

    def test_a_file_with_something_after_its_end(self, read, weights: Path) -> None:
        weights.write_bytes(weights.read_bytes() + b"\0" * 16)
        with pytest.raises(WeightsError, match="incomplete or damaged"):
            read(weights)

    def test_a_table_that_is_not_json(self, read, weights: Path) -> None:
        content = bytearray(weights.read_bytes())
        content[20] = 0
        weights.write_bytes(content)
        with pytest.raises(WeightsError, match="incomplete or damaged"):
            read(weights)


def test_a_table_with_an_unknown_tensor_type_is_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes().replace(b'"BF16"', b'"XX16"'))
    with pytest.raises(WeightsError, match="incomplete or damaged"):
        read_safetensors(weights)
