"""Scenes: scans of digits painted on textured backgrounds, with the visible part of each digit.

All random numbers come from one generator, so that equal generators give equal scenes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from hafabench.data.scans import Glyph, Pose, draw_glyph, load_scans
from hafabench.data.textures import clouds, draw_background, lab, random_colour

# Smallest share of a digit that has to be inside the image and uncovered, so that the digit is readable.
_LEAST_INSIDE = 0.8
_LEAST_UNCOVERED = 0.75
# A close-up fills this share of the image. At 128 x 128 its mask is a large object of COCO (over 96 x 96 pixels).
_CLOSE_UP_SHARE = 0.6
_CLOSE_UP_INSIDE = 0.75
_CLOSE_UP_UNCOVERED = 0.95
_ATTEMPTS = 40
# Ranges of the centre and of the height of the only digit of an image, as shares of the side.
_PORTRAIT = (0.43, 0.57), (0.45, 0.55), (0.58, 0.85)
_UPRIGHT_PORTRAIT = (0.47, 0.53), (0.48, 0.52), (0.7, 0.81)


_PALE = (0, 0.2), (0.9, 1)  # saturation and value of pale ink
_BOLD = (0.7, 1.3)  # range of the weight of bold strokes


@dataclass(frozen=True)
class Style:
    """What may differ between the scenes of two data sets.

    Attributes:
        min_objects: Smallest number of digits that are drawn for a scene; None means two if there may be two.
        heights: Smallest and largest height of the digits of a scene, relative to its side. Their logarithms are
            uniform. None means small and middle-sized digits.
        plain: Whether backgrounds are soft clouds.
        bold: Whether all strokes are bold.
        pale: Whether all digits are nearly white, without outlines in another colour.
        upright: Whether digits are turned, slanted and stretched little, and a single digit is in the middle.
    """

    min_objects: int | None = None
    heights: tuple[float, float] | None = None
    plain: bool = False
    bold: bool = False
    pale: bool = False
    upright: bool = False


@dataclass(frozen=True)
class Instance:
    """One digit of a scene.

    Attributes:
        label: 0-9.
        scan: Index of its source scan.
        glyph: The complete digit, before other digits covered it.
        visible: (H, W) float32, the part of its silhouette that no later digit's silhouette covers.
        least_uncovered: Share of its silhouette that has to stay visible.
    """

    label: int
    scan: int
    glyph: Glyph
    visible: np.ndarray
    least_uncovered: float


@dataclass(frozen=True)
class Scene:
    """An image and its digits, the rearmost first.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        instances: All digits in the image; each is visible.
    """

    image: np.ndarray
    instances: list[Instance]

    def index_mask(self, background: int) -> np.ndarray:
        """Return a mask (H, W) uint8: label + 1 on ink, ``background`` elsewhere, 0 (unlabelled) on their border."""
        mask = np.full(self.image.shape[:2], background, np.uint8)
        for instance in self.instances:
            stroke = instance.glyph.stroke
            mask[stroke > 1 / 3] = 0
            mask[stroke > 2 / 3] = instance.label + 1
        return mask


def compose_portrait(rng: np.random.Generator, label: int, scan: int, side: int, style: Style = Style()) -> Scene:
    """Compose a square image that is mostly filled by one digit.

    Args:
        rng: The source of all random numbers.
        label: The digit, 0-9.
        scan: Index of its scan.
        side: Side of the image, pixels.
        style: How background and strokes are drawn.
    """
    image = draw_background(rng, side, plain=style.plain)
    across, down, height = _UPRIGHT_PORTRAIT if style.upright else _PORTRAIT
    pose = Pose(
        x=side * rng.uniform(*across),
        y=side * rng.uniform(*down),
        height=side * rng.uniform(*height),
        **_gestures(rng, style),
    )
    instance = _instance(label, scan, pose, side)
    _paint(rng, image, instance.glyph, style)
    return Scene(_add_noise(rng, image), [instance])


def compose_scene(
    rng: np.random.Generator,
    pool: dict[int, np.ndarray],
    side: int,
    max_objects: int,
    *,
    close_up: bool,
    style: Style = Style(),
) -> Scene:
    """Compose a square image of several digits of different sizes, nearer ones in front of further ones.

    Args:
        rng: The source of all random numbers.
        pool: Scan indices by label, from which digits are drawn.
        side: Side of the image, pixels.
        max_objects: Largest number of digits. There are at least two if this and ``style`` allow it and they fit.
        close_up: Whether the rearmost digit fills most of the image.
        style: How many digits of which heights there are, and how background and strokes are drawn.
    """
    image = draw_background(rng, side, plain=style.plain)
    least = min(2, max_objects) if style.min_objects is None else style.min_objects
    count = int(rng.integers(least, max_objects + 1))
    if style.heights is not None:
        low, high = np.log(style.heights)
        heights = np.exp(rng.uniform(low, high, count))
    else:
        small = rng.random(count) < 0.45
        heights = np.where(small, rng.uniform(0.19, 0.3, count), rng.uniform(0.36, 0.78, count))
    instances: list[Instance] = []
    if close_up:
        instances.append(_close_up(rng, pool, side))
        heights = rng.uniform(0.19, 0.32, count - 1)
    # Smaller digits are in front, because large ones would cover them completely.
    for height in sorted(heights, reverse=True):
        instances = _add_digit(rng, instances, pool, side, side * float(height), style)
    for instance in instances:
        _paint(rng, image, instance.glyph, style)
    return Scene(_add_noise(rng, image), instances)


def _add_digit(
    rng: np.random.Generator,
    instances: list[Instance],
    pool: dict[int, np.ndarray],
    side: int,
    height: float,
    style: Style,
) -> list[Instance]:
    """Add a digit in front of ``instances``, unless every attempt hides too much of them."""
    label, scan = _draw(rng, pool)
    gestures = _gestures(rng, style)
    for _ in range(_ATTEMPTS):
        x, y = rng.uniform(0.05, 0.95, 2) * side
        new = _instance(label, scan, Pose(x=x, y=y, height=height, **gestures), side)
        if new.glyph.inside < _LEAST_INSIDE:
            continue
        behind = [replace(old, visible=old.visible * (1 - new.glyph.silhouette)) for old in instances]
        if all(_stays_readable(old) for old in behind):
            return [*behind, new]
    return instances


def _stays_readable(instance: Instance) -> bool:
    whole, left = instance.glyph.silhouette.sum(), instance.visible.sum()
    if left < instance.least_uncovered * whole:
        return False
    # A digit in the middle of another would be a hole in its mask, which polygons cannot represent.
    mask = (instance.visible > 0.5).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(mask.copy(), outlines, -1, 1, thickness=cv2.FILLED)
    return bool((filled == mask).all())


def _close_up(rng: np.random.Generator, pool: dict[int, np.ndarray], side: int) -> Instance:
    """Draw a bold digit over most of the image, partly outside; the largest one of several attempts is used."""
    best: Instance | None = None
    for _ in range(_ATTEMPTS):
        label, scan = _draw(rng, pool)
        pose = Pose(
            x=side * rng.uniform(0.42, 0.58),
            y=side * rng.uniform(0.45, 0.55),
            height=side * rng.uniform(1.0, 1.2),
            aspect=rng.uniform(1.15, 1.6),
            rotation=rng.uniform(-12, 12),
            weight=1.3,
        )
        new = replace(_instance(label, scan, pose, side), least_uncovered=_CLOSE_UP_UNCOVERED)
        if new.glyph.inside < _CLOSE_UP_INSIDE:
            continue
        if best is None or new.visible.mean() > best.visible.mean():
            best = new
        if best.visible.mean() > _CLOSE_UP_SHARE:
            break
    assert best is not None  # heights near the side of the image always fit
    return best


def _draw(rng: np.random.Generator, pool: dict[int, np.ndarray]) -> tuple[int, int]:
    label = int(rng.choice(list(pool)))
    return label, int(rng.choice(pool[label]))


def _gestures(rng: np.random.Generator, style: Style) -> dict[str, float]:
    aspect, turn, slant = ((0.94, 1.1), 6, 0.06) if style.upright else ((0.85, 1.25), 15, 0.15)
    return {
        "aspect": rng.uniform(*aspect),
        "rotation": rng.uniform(-turn, turn),
        "slant": rng.uniform(-slant, slant),
        "weight": rng.uniform(*(_BOLD if style.bold else (0, 1))),
    }


def _instance(label: int, scan: int, pose: Pose, side: int) -> Instance:
    glyph = draw_glyph(load_scans().images[scan], pose, side)
    return Instance(label, scan, glyph, glyph.silhouette, _LEAST_UNCOVERED)


def _paint(rng: np.random.Generator, image: np.ndarray, glyph: Glyph, style: Style) -> None:
    """Paint a digit into ``image`` in a colour that contrasts with its background.

    Ink is always lighter. With both polarities, small networks need most of a short training to learn that alone.
    """
    side = image.shape[0]
    under = (image * glyph.stroke[..., None]).sum((0, 1)) / max(glyph.stroke.sum(), 1e-6)
    if rng.random() < 0.4:
        offset = rng.uniform(-0.03, 0.03) * side, rng.uniform(0.01, 0.04) * side
        shift = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float32)
        shadow = cv2.GaussianBlur(cv2.warpAffine(glyph.stroke, shift, (side, side)), (0, 0), 0.015 * side)
        image *= 1 - 0.45 * shadow[..., None]
    ink = random_colour(rng, *_PALE) if style.pale else _lighter(rng, under, rng.uniform(30, 55))
    shade = ink * (1 + rng.uniform(0, 0.3) * (clouds(rng, side)[..., None] - 0.5))
    _blend(image, shade, glyph.stroke)
    if not style.pale and rng.random() < 0.2:
        _blend(image, random_colour(rng, (0.3, 1), (0.1, 0.5)), glyph.core)


def _blend(image: np.ndarray, colour: np.ndarray, coverage: np.ndarray) -> None:
    image += (colour - image) * coverage[..., None]


def _lighter(rng: np.random.Generator, other: np.ndarray, contrast: float) -> np.ndarray:
    """Return a colour whose lightness (0-100) exceeds that of ``other`` by ``contrast``; white if none is found."""
    least = lab(other)[0] + contrast
    for _ in range(60):
        colour = random_colour(rng, (0.05, 0.85), (0.5, 1))
        if lab(colour)[0] > least:
            return colour
    return np.full(3, 250, np.float32)


def _add_noise(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add sensor noise and round to uint8."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * rng.uniform(1, 5)
    return np.clip(image + noise, 0, 255).round().astype(np.uint8)
