"""MR-like twins of labelled CT: real anatomy in tissues as bright as an MR sequence would show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import ndimage

from .geometry import to_canonical
from .held_out import HeldOut
from .labelled_files import LabelledFiles
from .labelled_stacks import LabelledStack, to_stack
from .learnt_parts import part_to_learn
from .organ_names import organ_key
from .procedural_canvas import smooth_field
from .procedural_mr import MRSequence, receive, tissue_signals, unsuppressed
from .volumes import Volume

# One after the other; where there is real MR, which mostly shows fat suppressed, more of the others.
SEQUENCES: tuple[MRSequence, ...] = (
    "T2 fat-suppressed",
    "T1",
    "T2 fat-suppressed",
    "T2",
    "T2 fat-suppressed",
)
SEQUENCES_BESIDE_MR: tuple[MRSequence, ...] = ("T1", "T2", "T1", "T2", "T2 fat-suppressed")
# Tissues by names of organs, where they are not the same.
_TISSUES = {"right kidney": "kidney", "left kidney": "kidney", "portal and splenic vein": "vessel"}
# Below it, a voxel is gas.
_GAS_HU = -200.0
# Where the highest slice lies in the frame of a procedural abdomen, for the coil's end.
_TOP_MM = 265.0


def mr_twins(
    cases: Sequence[LabelledFiles],
    count: int,
    *,
    organs: Sequence[str],
    size: int,
    beside_mr: bool = False,
    held_out: HeldOut | None = None,
) -> list[LabelledStack]:
    """`count` twins of CT, about as many of each case.

    Args:
        cases: Labelled CT.
        count: How many.
        organs: Organ names, in the order of the label numbers.
        size: Side of the slices in pixels.
        beside_mr: Whether the training has real MR too.
        held_out: Slices not to learn from: they are black in the twins too; a whole case has none.

    Raises:
        InputError: A file cannot be read, or the grids differ.
    """
    if held_out is not None:
        cases = [case for case in cases if not held_out.leaves_out(case.name)]
    sequences = SEQUENCES_BESIDE_MR if beside_mr else SEQUENCES
    twins = []
    for place, case in enumerate(cases[:count]):
        volume, labels = part_to_learn(case, held_out)
        for number in range(place, count, len(cases)):
            sequence = sequences[(number // len(cases) + number) % len(sequences)]
            twin = mr_twin(volume, labels.array, case.label_names, seed=number, sequence=sequence)
            name = f"{case.name}, twin {number}"
            stack = to_stack(twin, labels.array, case.label_names, name=name, organs=organs, size=size)
            twins.append(replace(stack, origin="twin"))
    return twins


def mr_twin(
    volume: Volume, labels: np.ndarray, names: Mapping[int, str], *, seed: int, sequence: MRSequence
) -> Volume:
    """A CT as an MR sequence might show it.

    Labelled organs and fat get the signals of procedural abdomens; what else there is gets some, by its HU.

    Args:
        volume: CT.
        labels: `(z, y, x)` on its grid.
        names: Organ of every label value.
        seed: Of the signals and the noise.
        sequence: Which.
    """
    rng = np.random.default_rng(seed)
    order = to_canonical(volume.geometry)
    spacing = order.geometry.spacing
    raw = order.apply(volume.array)
    hu = ndimage.gaussian_filter(raw, (0.4, 0.8, 0.8))
    axes = [
        (np.arange(n) - n / 2).astype(np.float32) * step
        for n, step in zip(hu.shape, spacing[::-1], strict=True)
    ]
    axes[0] += _TOP_MM - axes[0][-1]
    signals = tissue_signals(rng, sequence)
    # Files may be clipped at the lowest HU of fat.
    gas = ndimage.binary_opening(raw < max(_GAS_HU, float(raw.min()) + 2), np.ones((1, 3, 3)))
    signal = _by_hu(hu, axes, signals, rng)
    organ_labels = order.apply(labels)
    for value, box in enumerate(ndimage.find_objects(organ_labels), 1):
        organ = organ_key(names.get(value, ""))
        tissue = _TISSUES.get(organ, organ)
        if box is None or tissue not in signals:
            continue
        box = tuple(slice(max(0, side.start - 2), side.stop + 2) for side in box)
        mask = organ_labels[box] == value
        soft = ndimage.gaussian_filter(mask.astype(np.float32), (0.4, 0.7, 0.7))
        # Contrast within: vessels, medulla, and what is not the organ's own.
        inner = np.clip((hu[box] - np.median(hu[box][mask])) / 100, -1, 1) * rng.uniform(-0.4, 1.0)
        soft *= np.clip((hu[box] + 40) / 40, 0, 1)
        if tissue == "liver":
            part = [axis[side] for axis, side in zip(axes, box, strict=True)]
            inner += (signals["liver vessel"] / signals["liver"] - 1) * _vessels(part, rng)
        signal[box] += soft * (signals[tissue] * (1 + inner) - signal[box])
    signal *= np.clip(1 + 0.09 * smooth_field(rng, axes, 9) + 0.05 * smooth_field(rng, axes, 50), 0.3, 2)
    if sequence == "T2 fat-suppressed":
        signal += unsuppressed(np.interp(hu, (-75, -10), (1, 0)), axes, rng)
    body = _body(gas)
    signal *= 1 - ndimage.gaussian_filter((gas | ~body).astype(np.float32), (0, 0.6, 0.6))
    made = np.empty_like(volume.array)
    order.view(made)[:] = receive(signal, axes, rng, body=body)
    return replace(volume, array=made, modality="MR", source=f"{volume.source}, as {sequence} MR")


def _by_hu(
    hu: np.ndarray, axes: Sequence[np.ndarray], signals: Mapping[str, float], rng: np.random.Generator
) -> np.ndarray:
    """Signals by HU alone: fat, muscle or bowel, vessels, bone."""
    fat = signals["visceral fat"]
    vessel, marrow = rng.uniform(0.1, 0.6), signals["bone marrow"]

    def curve(soft: float) -> np.ndarray:
        points = {
            -75: fat,
            -10: (fat + soft) / 2,
            30: soft,
            75: soft,
            140: (vessel + marrow) / 2,
            220: marrow,
            400: signals["bone"],
        }
        return np.interp(hu, list(points), list(points.values())).astype(np.float32)

    bowel = np.clip(0.5 + smooth_field(rng, axes, 45), 0, 1)
    signal = curve(signals["muscle"]) * (1 - bowel) + curve(signals["bowel"]) * bowel
    # Fluid is told from the edges between fat and organs, which are as dense, by its extent.
    fluid = ndimage.binary_opening((hu > -5) & (hu < 28), np.ones((1, 5, 5)))
    soft = ndimage.gaussian_filter(fluid.astype(np.float32), (0.3, 0.8, 0.8))
    return signal + soft * (signals["bowel content"] - signal)


def _vessels(axes: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """How much of each voxel is vessel, 0 to 1: MR shows many more of them than CT, lines in every slice."""
    # Where two smooth fields are 0 there is a line, and where one of them is, a sheet: lines in slices are enough.
    lines = [np.exp(-((smooth_field(rng, axes, scale) / rng.uniform(0.1, 0.25)) ** 2)) for scale in (18, 32)]
    return np.maximum(*lines) * np.clip(smooth_field(rng, axes, 45) + 0.3, 0, 1)


def _body(gas: np.ndarray) -> np.ndarray:
    """Where the patient is, `(z, y, x)`: neither the air around nor the table."""
    dense = ndimage.binary_opening(~gas, np.ones((1, 5, 5)))
    found, count = ndimage.label(dense)
    largest = found == 1 + np.argmax(np.bincount(found.ravel())[1:]) if count else dense
    return np.stack([ndimage.binary_fill_holes(each) for each in largest])
