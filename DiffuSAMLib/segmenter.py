"""From a volume to labels on its own grid: what the command line, the Slicer module and scripts all call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from .backbones import Backbone, ImageFeatures
from .devices import autocast
from .encoded_volume import EncodedVolume
from .errors import InputError
from .full_resolution import PlaneLogits, to_volume
from .geometry import Geometry
from .lanes import Lanes, even_parts
from .organ_names import chosen_organs
from .organ_traits import OrganTraits
from .out_of_memory import telling_memory
from .plane_appearance import weigh_plane
from .plane_smoothing import smooth_plane
from .planes import AXIAL, usable_planes
from .poses import THREE_POSES, UPRIGHT, mean_of_poses
from .prior import SAMPLING_STEPS, Prior, outline_memory
from .progress import Progress, ProgressEvent
from .propagation import NOTHING, Propagation, PropagationConfig
from .stage_timer import StageTimer
from .tensor_store import TensorStore
from .volumes import Volume

# Slices generated at a time: bounds memory, and larger batches are not faster on a CPU.
CHUNK = 8


@dataclass(frozen=True)
class SegmentOptions:
    """How to segment.

    Attributes:
        organs: Names to look for; None takes all the prior knows.
        steps: Diffusion sampling steps.
        samples: Chains with different noise, averaged.
        seed: Of the noise.
        regions: In a modality that the prior has not learnt from, keep organs to where training cases have them, seen
            from the other organs; not where slices stand by themselves, nor where three planes are joined.
        appearance: Where the prior knows few cases, ask how bright the organs are in the scan at hand; not where three
            planes are joined.
        poses: In a modality that the prior has not learnt from, look at every slice in three poses, which takes up
            to three times as long; not where three planes are joined.
        smooth: Let masks spread within what the image shows as one piece, across slices too where these are chained;
            those of three planes that are joined are not smoothed.
        refine: Bring outlines to the image's edges and, in CT and in MR that shows it bright, take fat out of solid
            organs; in CT, bone and contrast medium too.
        clean: Drop small pieces (all but the largest, of organs that are one piece) and fill small holes.
        axial_only: Leave out the other planes of a prior that has learnt from three.
        propagation: How slices are chained; those of three planes that are joined are not.
    """

    organs: tuple[str, ...] | None = None
    steps: int = SAMPLING_STEPS
    samples: int = 1
    seed: int = 0
    regions: bool = True
    appearance: bool = True
    poses: bool = True
    smooth: bool = True
    refine: bool = True
    clean: bool = True
    axial_only: bool = False
    propagation: PropagationConfig = field(default_factory=PropagationConfig)

    def check(self, *, training_steps: int) -> None:
        """Refuses what a prior cannot do.

        Args:
            training_steps: Length of its noise schedule.

        Raises:
            InputError: The steps, samples or seed are out of range.
        """
        if not 1 <= self.steps <= training_steps:
            raise InputError(f"The number of sampling steps must be 1 to {training_steps}, not {self.steps}.")
        if self.samples < 1:
            raise InputError(f"The number of samples must be 1 or more, not {self.samples}.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"The seed must be 0 to {2**32 - 1}, not {self.seed}.")


@dataclass(frozen=True)
class Segmentation:
    """The result on the input's grid.

    Attributes:
        labels: uint8 `(z, y, x)`, 1 for the first of `organs`, 0 elsewhere.
        confidence_levels: uint8 `(z, y, x)`, probability of the label that each voxel got before cleaning,
            times 255: a float map of a long scan would weigh more than the scan.
        geometry: The input's.
        organs: Names, in the order of the labels.
        seconds: Time of each stage.
    """

    labels: np.ndarray
    confidence_levels: np.ndarray
    geometry: Geometry
    organs: tuple[str, ...]
    seconds: dict[str, float]

    @property
    def confidence(self) -> np.ndarray:
        """float32 `(z, y, x)`, 0.5 to 1."""
        return self.confidence_levels.astype(np.float32) / 255


@dataclass(frozen=True)
class _Generated:
    """For each of some slices, the probability `(n, organs)` and the memories `(n, organs, samples, m, h, w)`."""

    numbers: range
    presence: Tensor
    memories: Tensor


class Segmenter:
    """Segments volumes with a frozen backbone and a prior.

    Args:
        backbone: Moved to `device`, frozen.
        prior: Trained for this backbone; `load_prior` checks that.
        device: "cpu", "cuda", "cuda:1", "mps".

    Raises:
        OutOfMemoryError: The device has too little memory for the networks, of which a part may lie there now.
    """

    def __init__(self, backbone: Backbone, prior: Prior, *, device: str = "cpu") -> None:
        self.device = torch.device(device)
        with _memory_errors(self.device, job="the networks"):
            self.backbone = backbone.freeze().to(self.device)
            self.prior = prior.eval().requires_grad_(False).to(self.device)

    def segment(
        self,
        volume: Volume,
        options: SegmentOptions | None = None,
        *,
        encoded: Sequence[EncodedVolume] | None = None,
        progress: Progress | None = None,
        on_decoded: Callable[[int, int, Tensor], None] | None = None,
    ) -> Segmentation:
        """Segments one volume, in each of the planes that the prior knows and the volume's voxels allow.

        Args:
            volume: Any grid, CT or MR.
            options: How to segment; None takes the defaults.
            encoded: From `views` of the same volume, for they keep what is encoded; None makes them.
            progress: Called as stages advance.
            on_decoded: Called with (slice of the canonical stack, index of the organ, mask logits) as masks appear in
                axial slices.

        Raises:
            InputError: An organ is unknown to the prior, or the steps, samples or seed are out of range.
            OutOfMemoryError: The device has too little memory.
        """
        options = options or SegmentOptions()
        organs = self._organ_indices(options.organs)
        options.check(training_steps=self.prior.config.training_steps)
        traits = OrganTraits(self.prior.config, organs)
        timer = StageTimer()
        # Not inference_mode: sam2 keeps some tensors for later, and the same backbone may be trained with next.
        with torch.no_grad(), autocast(self.device), _memory_errors(self.device):
            views = self.views(volume, options) if encoded is None else encoded
            if not all(view.complete for view in views):
                with timer("encode"):
                    reports = _parts(_reporter(progress, "encode"), [len(view) for view in views])
                    for view, report in zip(views, reports, strict=True):
                        view.encode(report)
            found = self._found(views, organs, options, timer, progress, on_decoded)
            with timer("resample"):
                one_plane = len(found) == 1
                if options.regions and self.is_strange(volume) and options.propagation.three_d and one_plane:
                    axial = found[0]
                    pixel = axial.grid.spacing(axial.order.geometry, axial.logits.shape[-1])
                    traits.keep_to_regions(axial.logits, pixel)
                # Joined, three planes are not the better for smoothing; the brightness was not tried there.
                across = options.propagation.three_d
                weight = self.prior.config.appearance if options.appearance else 0.0
                if weight and one_plane:
                    found = [weigh_plane(views[0], found[0], weight=weight, across=across)]
                if options.smooth and one_plane:
                    found = [smooth_plane(views[0], found[0], across=across)]
                labels, confidence = to_volume(volume, found, refine=options.refine)
        # In the computer's memory, whatever the device.
        with timer("clean"), _memory_errors(torch.device("cpu")):
            order = views[0].order
            if options.refine:
                traits.remove_other_tissue(labels, volume, order)
            if options.clean:
                stack = order.view(labels)
                stack[:] = traits.cleaned(stack, order.geometry.spacing[::-1])
        return Segmentation(
            labels=labels,
            confidence_levels=confidence,
            geometry=volume.geometry,
            organs=tuple(traits.names),
            seconds=timer.seconds,
        )

    def views(self, volume: Volume, options: SegmentOptions) -> tuple[EncodedVolume, ...]:
        """The volume in the planes and poses in which it is to be segmented; nothing is encoded yet.

        The axial plane comes first, upright.
        """
        planes = AXIAL if options.axial_only else usable_planes(volume.geometry, self.prior.config.planes)
        several = options.poses and self.is_strange(volume) and len(planes) == 1
        gamma = self.gamma(volume)
        return tuple(
            EncodedVolume(volume, self.backbone, plane=plane, gamma=gamma, pose=pose)
            for plane in planes
            for pose in (THREE_POSES if several else (UPRIGHT,))
        )

    def gamma(self, volume: Volume) -> float:
        """The exponent of scaled intensities with which the prior wants to see a volume."""
        return self.prior.config.mr_gamma if volume.modality == "MR" else 1.0

    def is_strange(self, volume: Volume) -> bool:
        """Whether the prior has not learnt from the volume's modality."""
        return volume.modality not in self.prior.config.modalities

    def _organ_indices(self, names: Sequence[str] | None) -> list[int]:
        known = self.prior.config.organs
        return [known.index(name) for name in chosen_organs(known, names)]

    def _found(
        self,
        views: Sequence[EncodedVolume],
        organs: list[int],
        options: SegmentOptions,
        timer: StageTimer,
        progress: Progress | None,
        on_decoded: Callable[[int, int, Tensor], None] | None,
    ) -> list[PlaneLogits]:
        """Generates and decodes in each plane and pose, the first being the one that is told of; poses are joined."""
        # Joined, three planes know of each other's neighbours already; chained, they were never better, and are slower.
        one_plane = len({view.plane for view in views}) == 1
        chained = options.propagation.three_d and one_plane
        options = replace(options, propagation=replace(options.propagation, three_d=chained))
        with ExitStack() as open_stores:
            shape = (len(organs) * options.samples, *self.backbone.memory_shape)
            stores = [open_stores.enter_context(TensorStore([shape])) for _ in views]
            with timer("generate"):
                reports = _parts(_reporter(progress, "generate"), [len(view) for view in views])
                presences = [
                    self._generate(view, store, organs, options, report)
                    for view, store, report in zip(views, stores, reports, strict=True)
                ]
            found = []
            with timer("propagate"):
                wanted = [int((presence >= options.propagation.presence).sum()) for presence in presences]
                reports = _parts(_reporter(progress, "propagate"), wanted)
                for view, store, presence, report in zip(views, stores, presences, reports, strict=True):
                    listener = on_decoded if view is views[0] else None
                    logits = self._propagate(view, store, presence, options, report, listener)
                    found.append(
                        PlaneLogits(view.order, view.grid, view.pose.undone(logits, nothing=NOTHING))
                    )
        if one_plane:
            mean = mean_of_poses([pose.logits for pose in found], nothing=NOTHING)
            found = [replace(found[0], logits=mean)]
        return found

    def _generate(
        self,
        encoded: EncodedVolume,
        generated: TensorStore,
        organs: list[int],
        options: SegmentOptions,
        report: Callable[[int, int], None],
    ) -> np.ndarray:
        """Stores a generated memory for every slice and organ that may be present; returns presence `(n, organs)`."""
        presence = np.zeros((len(encoded), len(organs)), np.float32)
        lanes: Lanes[_Generated] = Lanes(self.device)
        done = 0

        def keep(result: _Generated) -> None:
            nonlocal done
            presence[result.numbers] = result.presence.cpu().float().numpy()
            for number, record in zip(result.numbers, result.memories, strict=True):
                generated.put(number, [record])
            done += len(result.numbers)
            report(done, len(encoded))

        def made(numbers: range) -> Iterator[_Generated]:
            yield self._generated(encoded, numbers, organs, options)

        parts = even_parts(len(encoded), most=CHUNK, lanes=lanes.count)
        lanes.run((made(numbers) for numbers in parts), keep)
        return presence

    def _generated(
        self, encoded: EncodedVolume, numbers: range, organs: list[int], options: SegmentOptions
    ) -> _Generated:
        features = encoded.features(numbers, reach_mm=self.prior.config.reach_mm)
        outlines = self.prior.outlines(features)
        presence = self.prior.presence(outlines)[:, organs]
        wanted = (presence >= options.propagation.presence).nonzero()
        # Noise depends on the seed and the slice alone, not on which organs are asked for or how slices are batched.
        noise = torch.stack([self._noise(number, options) for number in numbers])[:, :, organs]
        memories = noise.new_zeros(len(numbers), len(organs), options.samples, *self.backbone.memory_shape)
        if len(wanted):
            slices, picks = wanted.T
            organ = torch.tensor(organs, device=wanted.device)[picks]
            own = outlines[slices, organ]
            outlined = outline_memory(self.backbone, _for_memories(features, slices), own)
            rows, labels = (each.repeat_interleave(options.samples) for each in (slices, picks))
            sample = torch.arange(options.samples, device=rows.device).repeat(len(wanted))
            latent = self.prior.sample(
                own.repeat_interleave(options.samples, 0),
                organ.repeat_interleave(options.samples),
                steps=options.steps,
                noise=noise[rows.cpu(), sample.cpu(), labels.cpu()].to(own),
            )
            memory = self.prior.to_memory(latent, outlined.repeat_interleave(options.samples, 0))
            memories[rows.cpu(), labels.cpu(), sample.cpu()] = memory.float().cpu()
        return _Generated(numbers, presence, memories)

    def _noise(self, number: int, options: SegmentOptions) -> Tensor:
        """Standard normal noise `(samples, organs of the prior, m, h, w)` of one slice."""
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + number)
        return torch.randn(
            options.samples, len(self.prior.config.organs), *self.backbone.memory_shape, generator=generator
        )

    def _propagate(
        self,
        encoded: EncodedVolume,
        generated: TensorStore,
        presence: np.ndarray,
        options: SegmentOptions,
        report: Callable[[int, int], None],
        on_decoded: Callable[[int, int, Tensor], None] | None,
    ) -> np.ndarray:
        total = int((presence >= options.propagation.presence).sum())
        done = 0

        def decoded(number: int, organ: int, mask: Tensor) -> None:
            nonlocal done
            done += 1
            report(done, total)
            if on_decoded is not None:
                on_decoded(number, organ, mask)

        def memories(items: Sequence[tuple[int, int, int]]) -> Tensor:
            (records,) = generated.get([number for number, _, _ in items], device=self.device)
            picks = torch.tensor([organ * options.samples + sample for _, organ, sample in items])
            return records[torch.arange(len(items)), picks]

        return Propagation(
            self.backbone,
            features=encoded.features,
            generated=memories,
            presence=presence,
            samples=options.samples,
            config=options.propagation,
            on_decoded=decoded,
        ).run()


def _for_memories(features: ImageFeatures, slices: Tensor) -> ImageFeatures:
    """What memories of masks on these slices are made with: the coarse features.

    The others are many times as large, and would be copied for every mask.
    """
    return ImageFeatures(features.fine[:0], features.middle[:0], features.coarse[slices])


def _reporter(progress: Progress | None, stage: str) -> Callable[[int, int], None]:
    def report(done: int, total: int) -> None:
        if progress is not None:
            progress(ProgressEvent(stage, done, total))

    return report


def _parts(report: Callable[[int, int], None], totals: Sequence[int]) -> list[Callable[[int, int], None]]:
    """Reports of parts, one after another, as reports of the whole."""

    def part(before: int) -> Callable[[int, int], None]:
        return lambda done, _: report(before + done, sum(totals))

    return [part(sum(totals[:number])) for number in range(len(totals))]


def _memory_errors(device: torch.device, *, job: str = "this volume") -> AbstractContextManager[None]:
    other = "" if device.type == "cpu" else ", or run with --device cpu"
    return telling_memory(job, device=device, hint=f"Close other programs{other}.")
