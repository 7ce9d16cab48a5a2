"""Procedural backgrounds: two colours, mixed by a pattern and lit unevenly.

A pattern is a function of a random generator and a side in pixels that returns (side, side) float32 from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Pattern = Callable[[np.random.Generator, int], np.ndarray]
Range = tuple[float, float]

_SATURATION, _VALUE = (0.05, 0.7), (0.12, 0.62)


def draw_background(rng: np.random.Generator, side: int, *, plain: bool = False) -> np.ndarray:
    """Return a random background (side, side, 3), float32 RGB, 0-255: textured, or ``plain`` soft clouds."""
    pattern = clouds if plain else PATTERNS[rng.choice(list(PATTERNS))]
    first, second = _colour_pair(rng)
    mix = pattern(rng, side)[..., None]
    image = first * (1 - mix) + second * mix
    image = image + 14 * (clouds(rng, side)[..., None] - 0.5)
    return image * _light(rng, side)[..., None]


def gradient(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return a linear or radial ramp."""
    if rng.random() < 0.5:
        across, _ = _axes(rng, side)
        return _normalised(across)
    x, y = _grid(side)
    centre = rng.uniform(0.1, 0.9, 2)
    return _normalised(np.hypot(x - centre[0], y - centre[1]))


def clouds(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return octaves of smooth noise."""
    total = np.zeros((side, side), np.float32)
    for octave in range(4):
        points = 2 ** (octave + 1) + 1
        noise = rng.random((points, points), dtype=np.float32)
        total += cv2.resize(noise, (side, side), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return _normalised(total)


def stripes(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return straight or wavy stripes with soft or hard edges."""
    across, along = _axes(rng, side)
    wave = rng.uniform(0, 0.06) * np.sin(2 * np.pi * rng.uniform(1, 3) * along)
    return _soft_square(rng, np.sin(2 * np.pi * rng.uniform(3, 9) * (across + wave)))


def checks(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return a rotated chequerboard."""
    across, along = _axes(rng, side)
    count = rng.uniform(2, 5)
    return _soft_square(rng, np.sin(2 * np.pi * count * across) * np.sin(2 * np.pi * count * along))


def dots(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return spots on a rotated grid."""
    across, along = _axes(rng, side)
    count, radius = rng.uniform(4, 9), rng.uniform(0.2, 0.38)
    distance = np.hypot((across * count) % 1 - 0.5, (along * count) % 1 - 0.5)
    return _soft_edge(radius - distance, count / side)


def patches(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return flat patches around random points, like paving."""
    x, y = _grid(side)
    points = rng.random((rng.integers(8, 28), 2), dtype=np.float32)
    nearest = np.argmin([np.hypot(x - px, y - py) for px, py in points], axis=0)
    shades = rng.random(len(points), dtype=np.float32)[nearest]
    return cv2.GaussianBlur(shades, (0, 0), 0.7)


def marble(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return bands bent by noise, which resemble marble at low and wood at high frequency."""
    across, _ = _axes(rng, side)
    bent = across * rng.uniform(1.5, 6) + rng.uniform(0.4, 1.2) * clouds(rng, side)
    return (0.5 + 0.5 * np.sin(2 * np.pi * bent)).astype(np.float32)


def bricks(rng: np.random.Generator, side: int) -> np.ndarray:
    """Return rows of bricks of different shades, separated by joints."""
    x, y = _grid(side)
    rows = int(rng.integers(5, 10))
    length = rng.uniform(1.8, 2.6)
    row = np.floor(y * rows).astype(int)
    along = x * rows / length + 0.5 * (row % 2)
    shade = rng.random((rows, rows + 2), dtype=np.float32)[row, np.floor(along).astype(int)] * 0.6 + 0.4
    joint = np.minimum(_edge_distance(y * rows), _edge_distance(along) * length)
    return shade * _soft_edge(joint - 0.07, rows / side)


PATTERNS: dict[str, Pattern] = {
    "gradient": gradient,
    "clouds": clouds,
    "stripes": stripes,
    "checks": checks,
    "dots": dots,
    "patches": patches,
    "marble": marble,
    "bricks": bricks,
}


def random_colour(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> np.ndarray:
    """Return a colour of any hue: (3,) float32 RGB, 0-255."""
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(*saturation), rng.uniform(*value)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255


def lab(colour: np.ndarray) -> np.ndarray:
    """Convert RGB colours (..., 3) in 0-255 to CIE L*a*b*, whose distances correspond to perceived differences."""
    flat = np.asarray(colour, np.float32).reshape(1, -1, 3) / 255
    return cv2.cvtColor(np.clip(flat, 0, 1), cv2.COLOR_RGB2LAB).reshape(np.shape(colour))


def _colour_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return two dark colours of similar lightness, so that a light digit contrasts with both."""
    first = random_colour(rng, _SATURATION, _VALUE)
    for _ in range(100):
        second = random_colour(rng, _SATURATION, _VALUE)
        if 8 < abs(lab(first)[0] - lab(second)[0]) < 24:
            break
    return first, second


def _light(rng: np.random.Generator, side: int) -> np.ndarray:
    across, _ = _axes(rng, side)
    return (1 + rng.uniform(0.05, 0.3) * (_normalised(across) - 0.5)).astype(np.float32)


def _grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    ticks = (np.arange(side, dtype=np.float32) + 0.5) / side
    x, y = np.meshgrid(ticks, ticks)
    return x, y


def _axes(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return coordinates across and along a random direction, in units of the side, with a random origin."""
    x, y = _grid(side)
    angle = rng.uniform(0, 2 * np.pi)
    shift = rng.random(2)
    across = x * np.cos(angle) + y * np.sin(angle) + shift[0]
    along = y * np.cos(angle) - x * np.sin(angle) + shift[1]
    return across.astype(np.float32), along.astype(np.float32)


def _soft_square(rng: np.random.Generator, wave: np.ndarray) -> np.ndarray:
    return (0.5 + 0.5 * np.tanh(rng.uniform(1, 6) * wave)).astype(np.float32)


def _soft_edge(distance: np.ndarray, pixel: float) -> np.ndarray:
    """Return 1 where ``distance`` > 0 and 0 elsewhere, with a ramp one pixel wide."""
    return np.clip(distance / pixel + 0.5, 0, 1).astype(np.float32)


def _edge_distance(coordinate: np.ndarray) -> np.ndarray:
    inside = coordinate % 1
    return np.minimum(inside, 1 - inside)


def _normalised(field: np.ndarray) -> np.ndarray:
    low, high = field.min(), field.max()
    return ((field - low) / max(high - low, 1e-6)).astype(np.float32)
