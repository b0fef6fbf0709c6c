from __future__ import annotations

import hashlib
from dataclasses import replace

from cases import AXIS_ORDERS, reordered, small_abdomen

from DiffuSAMLib.image_digest import digests_in_headers, image_digest


def test_an_image_is_the_same_in_whatever_order_its_axes_are_stored() -> None:
    volume = small_abdomen().volume
    found = {image_digest(reordered(volume, axes, flips)) for axes, flips in AXIS_ORDERS}
    assert found == {image_digest(volume)}
    other = volume.array.copy()
    other[0, 0, 0] += 1
    assert image_digest(replace(volume, array=other)) not in found


def test_headers_may_hold_the_digest_of_the_file_as_it_is() -> None:
    volume = reordered(small_abdomen().volume, (2, 0, 1), (True, False, True))
    as_stored = hashlib.sha256(volume.array.tobytes()).hexdigest()
    assert as_stored != image_digest(volume)
    assert digests_in_headers(volume) == {as_stored, image_digest(volume)}
