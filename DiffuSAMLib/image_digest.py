"""When two cases show the same image, whatever they are called."""

from __future__ import annotations

import hashlib

import numpy as np

from .geometry import to_canonical
from .volumes import Volume


def image_digest(volume: Volume) -> str:
    """The sha256 of an image's voxels in the order of the canonical axial stack.

    File names, formats, and the order in which a file stores the axes make no difference.
    """
    return _sha256(to_canonical(volume.geometry).view(volume.array))


def digests_in_headers(volume: Volume) -> set[str]:
    """What headers may call an image: those of the first priors hash the voxels in the order of the file."""
    return {image_digest(volume), _sha256(volume.array)}


def _sha256(voxels: np.ndarray) -> str:
    digest = hashlib.sha256()
    # Slice by slice, so that a large volume is not copied whole.
    for voxel_slice in voxels:
        digest.update(np.ascontiguousarray(voxel_slice).data)
    return digest.hexdigest()
