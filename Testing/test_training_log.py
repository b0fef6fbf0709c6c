"""Events for TensorBoard, and that neither they nor a full disk hold up a training."""

from __future__ import annotations

import csv
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from DiffuSAMLib.training_events import ValidationEvent
from DiffuSAMLib.training_log import TrainingLog

REPOSITORY = Path(__file__).resolve().parents[1]
# No file may grow past 4000 bytes: the events get there first, and the tables could go on for long.
FILL = """
import logging, pathlib, resource, sys
from DiffuSAMLib.training_log import TrainingLog
import tensorboardX
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
log = TrainingLog(pathlib.Path(sys.argv[1]), resumed_at=0)
for iteration in range(40):
    log.losses(iteration, 1.0, 1e-3, {"prior": 0.5, "segmentation": 0.5, "outlines": 0.5})
log.close()
"""


def events_in(folder: Path) -> list[Any]:
    """Of all event files, in the order of writing."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    from tensorboardX.record_writer import masked_crc32c

    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            record, sums = content[12 : 12 + length], content[8:12] + content[12 + length : 16 + length]
            assert sums == struct.pack("<II", masked_crc32c(content[:8]), masked_crc32c(record))
            events.append(event_pb2.Event.FromString(record))
            content = content[16 + length :]
    return events


def points_of(events: list[Any]) -> dict[str, list[tuple[int, float]]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        for value in event.summary.value:
            points.setdefault(value.tag, []).append((event.step, round(value.simple_value, 4)))
    return points


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tensorboard_is_told_what_the_tables_say(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, resumed_at=0)
    log.losses(10, 1.0, 1e-3, {"prior": 0.5, "outlines": 0.25})
    log.validation(ValidationEvent(10, 1.0, {"right kidney": 0.5, "liver": None}, 0.5, True, None))
    # Before it is closed: a run that is killed loses nothing of it.
    events = events_in(tmp_path)
    assert (events[0].file_version, events[0].HasField("session_log")) == ("brain.Event:2", False)
    assert all(event.wall_time > 1e9 for event in events)
    assert points_of(events) == {
        "loss/prior": [(10, 0.5)],
        "loss/outlines": [(10, 0.25)],
        "loss/total": [(10, 0.75)],
        "learning_rate": [(10, 0.001)],
        "dice/right_kidney": [(10, 0.5)],
        "dice/mean": [(10, 0.5)],
    }
    log.close()
    log = TrainingLog(tmp_path, resumed_at=10)
    log.losses(20, 2.0, 1e-3, {"prior": 0.4, "outlines": 0.25})
    log.close()
    events = events_in(tmp_path)
    # TensorBoard drops what a lost part of the run had told from this step on.
    (begun,) = [event for event in events if event.HasField("session_log")]
    assert (begun.step, begun.session_log.status) == (10, begun.session_log.START)
    assert points_of(events)["loss/prior"] == [(10, 0.5), (20, 0.4)]


@pytest.mark.parametrize("spoilt", [b"\xff\xfe\n", b"1,2,3,4,5,6,7,8\n", b"2,0.1", b"\0\0\0\0"])
def test_a_table_that_a_crash_has_spoilt_holds_up_no_training(tmp_path: Path, spoilt: bytes) -> None:
    losses = {"prior": 0.5, "segmentation": 0.25}
    log = TrainingLog(tmp_path, resumed_at=0)
    log.losses(1, 60.0, 1e-3, losses)
    log.close()
    path = tmp_path / "losses.csv"
    path.write_bytes(path.read_bytes() + spoilt)
    log = TrainingLog(tmp_path, resumed_at=1)
    log.losses(2, 120.0, 1e-3, losses)
    log.close()
    told = [row["iteration"] for row in rows(path)]
    assert told[-1] == "2"
    assert told in (["1", "2"], ["2"])


def test_a_disk_that_fills_with_events_ends_the_log_alone(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    pytest.importorskip("tensorboardX")
    command = [sys.executable, "-X", "dev", "-W", "ignore", "-c", FILL, str(tmp_path)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"The training's log {tmp_path} cannot be written (")
    assert 0 < len(rows(tmp_path / "losses.csv")) < 40


@pytest.mark.parametrize(("error", "said"), [(ImportError("none"), 0), (TypeError("Descriptors"), 1)])
def test_a_tensorboardx_that_cannot_be_used_leaves_the_tables(
    tmp_path: Path,
    error: Exception,
    said: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    pytest.importorskip("tensorboardX")
    monkeypatch.setattr("DiffuSAMLib.event_file.EventFile", fail)
    log = TrainingLog(tmp_path, resumed_at=0)
    for iteration in (10, 20):
        log.losses(iteration, 1.0, 1e-3, {"prior": 0.5})
    log.close()
    assert [row["iteration"] for row in rows(tmp_path / "losses.csv")] == ["10", "20"]
    assert caplog.text.count("events are left out (TypeError: Descriptors)") == len(caplog.records) == said
