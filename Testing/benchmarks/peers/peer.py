"""What a peer is, and the command line that all peers share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import benchmark_path  # noqa: F401
import numpy as np
from protocols import Job, add_job_options, jobs
from units import Unit

from DiffuSAMLib.evaluation import Evaluation, evaluate_by
from DiffuSAMLib.interrupts import terminated_as_interrupt
from DiffuSAMLib.labelled_files import LabelledFiles
from DiffuSAMLib.volumes import Volume


@dataclass(frozen=True)
class Prepared:
    """A peer that is ready to segment.

    Attributes:
        segment: Labels on the volume's grid; only peers prompted with the truth may look at the case.
        cases: Every case that its weights have seen, labelled or not, the backbone's included.
        record: What its training was like.
    """

    segment: Callable[[Volume, LabelledFiles], np.ndarray]
    cases: Sequence[str]
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """One method to compare with.

    Attributes:
        title: For people.
        prepare: Trains on the job's cases, or loads what was trained before.
        settings: What decides its figures besides the job.
        trains: Whether the training time matters.
        uses_backbone: Whether the backbone's weights matter.
    """

    title: str
    prepare: Callable[[Job], Prepared]
    settings: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = True
    uses_backbone: bool = False


def measure_peer(method: str, peer: Peer, job: Job) -> bool:
    """Measures one draw, unless that was done before."""
    settings: dict[str, Any] = {"peer": peer.settings}
    if peer.trains:
        settings["minutes"] = job.minutes
    if peer.uses_backbone:
        settings["backbone_sha256"] = job.backbone().sha256

    def work() -> tuple[Evaluation, Mapping[str, Any]]:
        prepared = peer.prepare(job)
        evaluation = evaluate_by(
            prepared.segment,
            job.evaluated_cases(),
            organs=job.protocol.organs,
            training_cases=prepared.cases,
        )
        return evaluation, {"cases": prepared.cases, **prepared.record}

    return Unit(job, method, settings).measure(work)


def run_peers(peers: Mapping[str, Peer], description: str | None) -> None:
    """The command line of a peer's file."""
    parser = argparse.ArgumentParser(description=description)
    add_job_options(parser)
    parser.add_argument("--only", nargs="+", choices=peers, help="default: all of this file")
    arguments = parser.parse_args()
    with terminated_as_interrupt():
        for job in jobs(arguments):
            for method, peer in peers.items():
                if arguments.only is None or method in arguments.only:
                    measure_peer(method, peer, job)
