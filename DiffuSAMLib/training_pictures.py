"""Pictures of a training: held-out slices, how a memory comes out of noise, and the memories of the organs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torch.nn import functional as F

from .backbones import Backbone, Memory, mask_to_logits
from .errors import OutputError
from .files import atomic_path
from .labelled_stacks import LabelledStack
from .prior import SAMPLING_STEPS, Prior, outline_memory
from .stack_features import stack_features
from .terminology import segment_for
from .validation import Validation

log = logging.getLogger(__name__)

TILE = 160
PANEL = 384
MARGIN = 8
LINE = 20
BACKGROUND = (14, 16, 20)
TEXT = (226, 230, 236)
STRIP_STEPS = 5
STRIP_ORGANS = 6
SCATTER_SIDE = 640
# Slices whose memories are drawn, and the fewest memories that make a picture.
SCATTER_SLICES = 24
FEWEST_POINTS = 8
CHUNK = 4
Colour = tuple[int, int, int]


class TrainingPictures:
    """Draws into the folder of a run. A picture that cannot be drawn or written is left out with a warning.

    Args:
        folder: Of the run.
        backbone: Frozen.
        stacks: The cases.
        validation: The held-out slices; None shows others.
    """

    def __init__(
        self,
        folder: Path,
        backbone: Backbone,
        stacks: Sequence[LabelledStack],
        validation: Validation | None,
    ) -> None:
        self.folder, self.backbone, self.stacks, self.validation = folder, backbone, stacks, validation

    def overlay(self, prior: Prior, labels: np.ndarray, iteration: int) -> Path | None:
        """The held-out slice with most organs: truth on the left, what was found on the right."""
        return self._draw(f"overlay_{iteration:06d}.png", lambda: self._compared(prior, labels, iteration))

    def explain(self, prior: Prior) -> None:
        """`denoising.png` and `memories.png`, as figures 3 and 2 of the paper."""
        was = prior.training
        prior.eval()
        self._draw("denoising.png", lambda: self._denoising(prior))
        self._draw("memories.png", lambda: self._memories(prior))
        prior.train(was)

    def _compared(self, prior: Prior, labels: np.ndarray, iteration: int) -> Image.Image | None:
        if self.validation is None:
            return None
        truth, held_out = self.validation.truth, self.validation.held_out
        row = _fullest_of(truth)
        image = _image(held_out.stack, held_out.numbers[row])
        colours = _colours(prior.config.organs)
        panels = [
            _captioned(_overlay(image, shown[row], colours, PANEL), text)
            for shown, text in (
                (truth, "labels"),
                (labels, f"prior after {iteration:,} iterations"),
            )
        ]
        legend = _legend(prior.config.organs, colours, 2 * PANEL + MARGIN)
        return _below(_beside(panels), legend)

    @torch.no_grad()
    def _denoising(self, prior: Prior) -> Image.Image | None:
        """Sampling from left to right: for each organ the believed memory, and the mask decoded from it."""
        stack, number = self._fullest()
        organs = [n for n in range(len(prior.config.organs)) if (stack.labels[number] == n + 1).any()]
        if not organs:
            return None
        organs = organs[:STRIP_ORGANS]
        features = stack_features(self.backbone, stack, [number], reach_mm=prior.config.reach_mm)
        image = _image(stack, number)
        count = len(organs)
        index = torch.tensor(organs, device=self.backbone.device)
        repeated = features.repeat(count)
        outlines = prior.outlines(features)[0, organs]
        outlined = outline_memory(self.backbone, repeated, outlines)
        noise = torch.randn(
            (count, *self.backbone.memory_shape), generator=torch.Generator().manual_seed(0)
        ).to(self.backbone.device)
        believed: list[tuple[str, Tensor]] = []
        prior.sample(
            outlines,
            index,
            steps=min(STRIP_STEPS, prior.config.training_steps),
            noise=noise,
            on_step=lambda timestep, clean: believed.append((f"t = {timestep + 1}", clean)),
        )
        labels = torch.from_numpy(stack.labels[number].astype(np.int64))
        masks = torch.stack([labels == organ + 1 for organ in organs])[:, None].to(self.backbone.device)
        true = prior.to_latent(self.backbone.encode_memory(repeated, mask_to_logits(masks)), outlined)
        believed = [("noise", noise), *believed, ("of the label", true)]
        colours = _colours(prior.config.organs)
        columns = []
        for title, latent in believed:
            decoded = self.backbone.decode(repeated, [Memory(prior.to_memory(latent, outlined))])
            found = F.interpolate(decoded.logits, image.shape, mode="bilinear", align_corners=False) > 0
            tiles = []
            for row, organ in enumerate(organs):
                tiles.append(_heat(latent[row]))
                mask = found[row, 0].cpu().numpy().astype(np.uint8) * (organ + 1)
                tiles.append(_overlay(image, mask, colours, TILE))
            columns.append(_captioned(_stacked(tiles), title))
        names = [prior.config.organs[organ] for organ in organs]
        return _below(_beside(columns), _legend(names, [colours[organ] for organ in organs], 8 * TILE))

    @torch.no_grad()
    def _memories(self, prior: Prior) -> Image.Image | None:
        """t-SNE of the organs' memories: those that labels make, filled, and generated ones, as rings."""
        try:
            from sklearn.manifold import TSNE
        except ImportError:
            log.info("memories.png was not drawn: the package scikit-learn is not installed.")
            return None
        points: list[np.ndarray] = []
        organs: list[int] = []
        for stack, number in self._spread():
            features = stack_features(self.backbone, stack, [number], reach_mm=prior.config.reach_mm)
            shown = [n for n in range(len(prior.config.organs)) if (stack.labels[number] == n + 1).any()]
            index = torch.tensor(shown, device=self.backbone.device)
            labels = torch.from_numpy(stack.labels[number].astype(np.int64))
            masks = torch.stack([labels == organ + 1 for organ in shown])[:, None].to(self.backbone.device)
            repeated = features.repeat(len(shown))
            true = self.backbone.encode_memory(repeated, mask_to_logits(masks))
            generator = torch.Generator().manual_seed(len(points))
            outlines = prior.outlines(features)[0, shown]
            latent = prior.sample(
                outlines,
                index,
                steps=min(SAMPLING_STEPS, prior.config.training_steps),
                noise=torch.randn(true.shape, generator=generator).to(true.device),
            )
            generated = prior.to_memory(latent, outline_memory(self.backbone, repeated, outlines))
            # What masks leave in memories, whatever the slice shows.
            unmarked = outline_memory(self.backbone, repeated, torch.zeros_like(outlines))
            points.append((torch.stack((true, generated)) - unmarked).flatten(2).float().cpu().numpy())
            organs += shown
        together = np.concatenate(points, axis=1)
        flat = together.reshape(-1, together.shape[-1])
        if len(flat) < FEWEST_POINTS:
            return None
        perplexity = min(20.0, (len(flat) - 1) / 3)
        places = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(flat)
        return _scatter(places.reshape(2, -1, 2), organs, prior.config.organs)

    def _fullest(self) -> tuple[LabelledStack, int]:
        """The slice with most organs, of the held-out ones if there are any."""
        if self.validation is not None:
            row = _fullest_of(self.validation.truth)
            return self.validation.held_out.stack, self.validation.held_out.numbers[row]
        stack = max(self.stacks, key=lambda each: max(map(_fullness, each.labels)))
        return stack, _fullest_of(stack.labels)

    def _spread(self) -> list[tuple[LabelledStack, int]]:
        """Slices with organs, evenly over the cases."""
        chosen: list[tuple[LabelledStack, int]] = []
        each = max(1, SCATTER_SLICES // len(self.stacks))
        for stack in self.stacks[:SCATTER_SLICES]:
            filled = np.flatnonzero(stack.labels.any((1, 2)))
            picked = np.linspace(0, len(filled) - 1, min(each, len(filled))).round().astype(int)
            chosen += [(stack, int(number)) for number in filled[np.unique(picked)]]
        return chosen

    def _draw(self, name: str, draw: Callable[[], Image.Image | None]) -> Path | None:
        """The file of a picture; None where there is nothing to show, or it failed."""
        path = self.folder / name
        try:
            picture = draw()
            if picture is None:
                return None
            with atomic_path(path) as temporary:
                picture.save(temporary, format="PNG")
        except OutputError as error:
            log.warning("%s", error)
            return None
        except Exception as error:  # whatever is wrong with a picture, the training is worth more
            log.warning("%s was left out: it cannot be drawn (%s: %s).", path, type(error).__name__, error)
            log.debug("How that came about:", exc_info=True)
            return None
        return path


def _image(stack: LabelledStack, number: int) -> np.ndarray:
    """A slice as float32 `(s, s)` in `[0, 1]`."""
    return stack.slices[number].astype(np.float32) / 255


def _fullest_of(labels: np.ndarray) -> int:
    return max(range(len(labels)), key=lambda number: _fullness(labels[number]))


def _fullness(labels: np.ndarray) -> tuple[int, int]:
    return len(np.unique(labels[labels > 0])), int(np.count_nonzero(labels))


def _colours(organs: Sequence[str]) -> list[Colour]:
    colours = []
    for value, organ in enumerate(organs, start=1):
        red, green, blue = (round(255 * level) for level in segment_for(organ, value).color)
        colours.append((red, green, blue))
    return colours


def _overlay(image: np.ndarray, labels: np.ndarray, colours: Sequence[Colour], side: int) -> Image.Image:
    grey = np.asarray(_square(image * 255, side, Image.Resampling.BICUBIC), np.float32).clip(0, 255)
    picture = grey[..., None].repeat(3, axis=2)
    for value, colour in enumerate(colours, start=1):
        inside = np.asarray(_square((labels == value) * 255.0, side, Image.Resampling.BILINEAR)) / 255 > 0.5
        edge = inside & ~_eroded(inside)
        paint = np.array(colour, np.float32)
        picture[inside] += 0.3 * (paint - picture[inside])
        picture[edge] = paint
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def _eroded(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    return padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]


def _heat(latent: Tensor) -> Image.Image:
    """Root mean square over the channels; a standardised memory is about 1."""
    level = (latent.float() ** 2).mean(0).sqrt().cpu().numpy()
    level = (level / 3).clip(0, 1)
    colours = np.stack((level**0.7, level**1.5, 0.25 + 0.4 * np.sin(np.pi * level)), axis=-1)
    tile = Image.fromarray((colours.clip(0, 1) * 255).astype(np.uint8))
    return tile.resize((TILE, TILE), Image.Resampling.NEAREST)


def _square(array: np.ndarray, side: int, how: Image.Resampling) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(array, np.float32)).resize((side, side), how)


def _font(size: int = 14) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _canvas(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), BACKGROUND)


def _captioned(picture: Image.Image, text: str) -> Image.Image:
    canvas = _canvas(picture.width, picture.height + LINE)
    canvas.paste(picture, (0, LINE))
    ImageDraw.Draw(canvas).text((2, LINE / 2), text, fill=TEXT, font=_font(), anchor="lm")
    return canvas


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    canvas = _canvas(
        sum(picture.width + MARGIN for picture in pictures) + MARGIN,
        max(picture.height for picture in pictures) + 2 * MARGIN,
    )
    x = MARGIN
    for picture in pictures:
        canvas.paste(picture, (x, MARGIN))
        x += picture.width + MARGIN
    return canvas


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    canvas = _canvas(pictures[0].width, sum(picture.height + 2 for picture in pictures))
    y = 0
    for picture in pictures:
        canvas.paste(picture, (0, y))
        y += picture.height + 2
    return canvas


def _below(upper: Image.Image, lower: Image.Image) -> Image.Image:
    canvas = _canvas(max(upper.width, lower.width), upper.height + lower.height)
    canvas.paste(upper, (0, 0))
    canvas.paste(lower, (0, upper.height))
    return canvas


def _legend(names: Sequence[str], colours: Sequence[Colour], width: int) -> Image.Image:
    """The organs' names behind their colours, in as many lines as they need."""
    font = _font()
    places, x, y = [], MARGIN, LINE / 2
    for name in names:
        length = 28 + int(font.getlength(name))
        if x > MARGIN and x + length > width:
            x, y = MARGIN, y + LINE
        places.append((x, y))
        x += length
    canvas = _canvas(width, int(y + LINE / 2) + MARGIN)
    draw = ImageDraw.Draw(canvas)
    for name, colour, (left, middle) in zip(names, colours, places, strict=True):
        draw.ellipse((left, middle - 5, left + 10, middle + 5), fill=colour)
        draw.text((left + 15, middle), name, fill=TEXT, font=font, anchor="lm")
    return canvas


def _scatter(places: np.ndarray, organs: Sequence[int], names: Sequence[str]) -> Image.Image:
    """Points `(2, n, 2)`: of labels, filled, and generated, as rings."""
    low, high = places.min((0, 1)), places.max((0, 1))
    scaled = (places - low) / np.maximum(high - low, 1e-6) * (SCATTER_SIDE - 60) + 30
    canvas = _canvas(SCATTER_SIDE, SCATTER_SIDE)
    draw, colours = ImageDraw.Draw(canvas), _colours(names)
    for generated in (False, True):
        for (x, y), organ in zip(scaled[int(generated)], organs, strict=True):
            box = (x - 5, y - 5, x + 5, y + 5)
            if generated:
                draw.ellipse(box, outline=colours[organ], width=2)
            else:
                draw.ellipse(box, fill=colours[organ])
    title = "Memories (t-SNE): filled from labels, rings generated"
    return _below(_captioned(canvas, title), _legend(names, colours, SCATTER_SIDE))
