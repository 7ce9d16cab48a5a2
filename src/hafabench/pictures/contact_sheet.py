"""Contact sheets: all tiles of a sheet in one picture, with headings and captions."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from hafabench.data.classes import Colour
from hafabench.formatting.text import one_line

CAPTION_HEIGHT = 22  # pixels
HEADING_HEIGHT = 30
GAP = 8
_BACKGROUND: Colour = (255, 255, 255)
_TEXT: Colour = (30, 30, 30)


def compose_contact_sheet(
    tiles: Sequence[Sequence[Image.Image]], headings: Sequence[str], captions: Sequence[Sequence[str]]
) -> Image.Image:
    """Arrange rows of square tiles of one size, with a heading above each column and a caption below each tile."""
    size = tiles[0][0].width
    left = [GAP + column * (size + GAP) for column in range(len(headings))]
    top = [HEADING_HEIGHT + row * (size + CAPTION_HEIGHT + GAP) for row in range(len(tiles))]
    sheet = Image.new("RGB", (left[-1] + size + GAP, top[-1] + size + CAPTION_HEIGHT + GAP), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(15), ImageFont.load_default(13)
    for x, heading in zip(left, headings, strict=True):
        draw.text((x, HEADING_HEIGHT / 2), one_line(heading), _TEXT, large, anchor="lm")
    for y, row, texts in zip(top, tiles, captions, strict=True):
        for x, tile, text in zip(left, row, texts, strict=True):
            sheet.paste(tile, (x, y))
            draw.text((x, y + size + CAPTION_HEIGHT / 2), one_line(text), _TEXT, small, anchor="lm")
    return sheet
