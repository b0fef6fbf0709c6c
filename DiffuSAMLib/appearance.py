"""How bright organs are in the scan at hand, which a prior of few cases cannot know beforehand."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .finer_masks import changed_finer_masks

# Of a prior of FEW cases or less: half as much or one and a half times as much gains nearly as much there. It would lose
# where the prior knows 28.
HIGHEST_WEIGHT = 2.0
FEW = 3
# An organ is told from what lies within so many mm of it.
AROUND_MM = 15.0
# Of an image of 0 to 1; what is learnt of one counts for its neighbours too.
LEVELS = 64
LEVELS_SIGMA = 1.0
# Voxels added to each level, and the share of all: what was seldom seen tells little.
UNSEEN, UNSEEN_SHARE = 1.0, 1e-3
MOST_EVIDENCE = 3.0
# Near an organ nothing is less likely beforehand: so a prior that missed some of it can be outvoted.
LEAST_LOGIT = -5.0
MOST_LOGIT = 10.0


def appearance_weight(cases: int) -> float:
    """How much the brightness in the scan at hand counts beside what a prior finds that has learnt from so many."""
    return HIGHEST_WEIGHT * min(1.0, FEW / max(1, cases))


def weigh_appearance(
    logits: np.ndarray, guide: np.ndarray, spacing: tuple[float, float, float], *, weight: float, across: bool
) -> np.ndarray:
    """Adds to masks how much likelier a voxel's brightness is in the organ, as far as found, than just around it.

    The region term of Boykov and Jolly ("Interactive Graph Cuts", ICCV 2001), its histograms taken from what was found
    as in GrabCut (Rother et al., SIGGRAPH 2004), once.

    Args:
        logits: Of masks, `(n, organs, j, j)`.
        guide: Images of the slices, `(n, k, k)`, float32, 0 to 1.
        spacing: Of the guide's pixels, `(z, y, x)` in mm.
        weight: Of the logarithm of that ratio.
        across: Whether all slices tell together how bright an organ is; else each tells for itself.

    Returns:
        Logits `(n, organs, k, k)`, float16.
    """
    levels = (guide * LEVELS).astype(np.uint8).clip(0, LEVELS - 1)

    def weigh(masks: np.ndarray) -> None:
        for organ in np.moveaxis(masks, 1, 0):
            for begin in (0,) if across else range(len(organ)):
                together = slice(begin, None if across else begin + 1)
                _weigh(organ[together], levels[together], spacing, weight)

    return changed_finer_masks(logits, guide.shape[-1], weigh)


def _weigh(
    logits: np.ndarray, levels: np.ndarray, spacing: tuple[float, float, float], weight: float
) -> None:
    """Changes the logits `(n, k, k)` of one organ in place."""
    found = logits > 0
    boxes = ndimage.find_objects(found.view(np.uint8))
    if not boxes:
        return
    box = tuple(
        slice(max(0, side.start - reach), side.stop + reach)
        for side, reach in zip(boxes[0], (int(AROUND_MM / mm) + 1 for mm in spacing), strict=True)
    )
    near = ndimage.distance_transform_edt(~found[box], sampling=spacing) < AROUND_MM
    some, level = logits[box][near], levels[box][near]
    organ = 1 / (1 + np.exp(-some))
    evidence = np.log(_distribution(level, organ) / _distribution(level, 1 - organ))
    evidence = evidence.clip(-MOST_EVIDENCE, MOST_EVIDENCE)[level]
    logits[box][near] = (np.maximum(some, LEAST_LOGIT) + weight * evidence).clip(-MOST_LOGIT, MOST_LOGIT)


def _distribution(levels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How often each of `LEVELS` occurs among voxels that count by their shares; sums to about 1."""
    counts = ndimage.gaussian_filter1d(np.bincount(levels, shares, LEVELS), LEVELS_SIGMA)
    counts += UNSEEN + UNSEEN_SHARE * counts.sum()
    return counts / counts.sum()
