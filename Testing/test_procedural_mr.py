from __future__ import annotations

import numpy as np

from DiffuSAMLib.procedural_mr import receive, unsuppressed

AXES = [np.arange(n, dtype=np.float32) * step for n, step in ((6, 5.0), (60, 2.0), (60, 2.0))]
# The patient: everything but a frame of air.
BODY = np.zeros((6, 60, 60), bool)
BODY[:, 5:-5, 5:-5] = True


def received(seed: int) -> np.ndarray:
    """What coils receive of tissue that is as bright everywhere."""
    return receive(BODY.astype(np.float32), AXES, np.random.default_rng(seed), body=BODY)


def test_coils_show_what_is_near_the_skin_brighter() -> None:
    images = [received(seed) for seed in range(8)]
    skin = [np.median(image[:, 7:12, 7:-7]) for image in images]
    depth = [np.median(image[:, 25:35, 25:35]) for image in images]
    ratios = np.divide(skin, depth)
    assert ratios.max() > 1.5
    assert ratios.mean() > 1.2
    # Not in every patient.
    assert ratios.min() < 1.2


def test_air_stays_dark() -> None:
    image = received(0)
    assert np.median(image[:, :3]) < 0.1 * np.median(image[BODY])


def test_the_same_draw_receives_the_same() -> None:
    np.testing.assert_array_equal(received(3), received(3))


def test_fat_alone_shines_where_its_suppression_fails() -> None:
    fat = np.zeros(BODY.shape)
    fat[:, :30] = 1
    signals = [unsuppressed(fat, AXES, np.random.default_rng(seed)) for seed in range(30)]
    assert all(not signal[:, 30:].any() for signal in signals)
    assert all(signal.min() >= 0 and signal.max() <= 0.6 for signal in signals)
    # In some patients, and not in all of their fat.
    shining = [float((signal[:, :30] > 0.1).mean()) for signal in signals]
    assert 0.02 < np.mean(shining) < 0.6
    assert min(shining) == 0
