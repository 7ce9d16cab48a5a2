"""The one rule by which image files become pixels.

Verification, training, evaluation, previews and pictures of every task read images with `read_image`:

- The EXIF orientation is applied, as mmcv, OpenCV and image viewers do. torchvision's ``ImageFolder`` ignores it.
  Widths and heights, in annotations and of masks, are those of the oriented image. Other metadata is not used, such
  as colour profiles (ICC) or an orientation in XMP.
- Values of 16 bits are scaled to 8 bits by their high byte, so that 0-65535 becomes 0-255, as OpenCV does. Pillow
  alone, and therefore torchvision, clips grey images of 16 bits at 255.
- Values of 32 bits, integer or floating point, have no known range. Such images are refused.
- Alpha channels and transparent colours are dropped, which leaves the stored colours, as mmcv and torchvision do.
- Grey and 1-bit images have three equal channels. Palettes are looked up. CMYK is converted by Pillow, which differs
  by at most a few levels from OpenCV.
- Of an animation, the first frame is read.

The format of a file is known from its content and not from its suffix. For 8-bit JPEG and PNG files without
orientation, the pixels are those of torchvision and of mmcv with OpenCV, bit by bit.

Index masks are read as they are stored (mode None), and an index mask with an EXIF orientation is refused.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from hafabench.errors import Problem, UserError
from hafabench.files import not_a_file

# Formats with pixels; MPO is a kind of JPEG. Pillow reads others as well, and runs Ghostscript for PostScript files.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")
# Errors that Pillow raises for files that are truncated, damaged or no images.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_WITHOUT_PREMULTIPLIED_ALPHA = {"RGBa": "RGBA", "La": "LA"}


class UnreadableImage(UserError):
    """An image that cannot be decoded.

    torch passes an error of a loading process to the training process as the text of its whole traceback. The
    constructor keeps only the message.
    """

    def __init__(self, problem: Problem | str):
        if isinstance(problem, str):
            problem = problem.rsplit(f"{UnreadableImage.__name__}: ", 1)[-1].strip()
        super().__init__(problem)


def read_image(path: Path | str, mode: str | None = "RGB") -> Image.Image:
    """Decode an image file completely, by the rule of this module.

    Args:
        path: The file.
        mode: ``RGB``, or None for an index mask, whose values are returned as they are stored.

    Raises:
        UnreadableImage: If the file is missing, truncated or damaged, or has values of 32 bits, or is an index mask
            with an EXIF orientation.
    """
    try:
        if wrong := not_a_file(path):
            raise UnreadableImage(Problem(str(path), "", wrong))
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            orientation = _orientation(image)
            # The pixels stay valid after the file is closed.
            if mode is not None:
                return _oriented(_as_rgb(image, path), orientation)
    except FileNotFoundError:
        raise UnreadableImage(Problem(str(path), "", "no such image")) from None
    except _DECODING_ERRORS as error:
        reason = str(error) if "cannot identify" not in str(error) else "not an image"
        raise UnreadableImage(Problem(str(path), "", f"cannot be decoded: {reason}")) from None
    if orientation != 1:
        message = f"an index mask with the EXIF orientation {orientation}; expected one that is stored upright"
        raise UnreadableImage(Problem(str(path), "", message))
    return image


def image_size(path: Path | str) -> tuple[int, int] | None:
    """Return (width, height) in pixels of the image that `read_image` returns, from the beginning of the file.

    Returns:
        The size, after the EXIF orientation if it precedes the pixels; None if the file cannot be read.
    """
    try:
        if not_a_file(path):
            return None
        with Image.open(path, formats=_FORMATS) as image:
            width, height = image.size
            return (height, width) if _orientation(image) >= 5 else (width, height)
    except _DECODING_ERRORS:
        return None


def is_turned(path: Path | str) -> bool:
    """Return whether an image file, which can be decoded, has an EXIF orientation that `read_image` applies."""
    with Image.open(path, formats=_FORMATS) as image:
        return _orientation(image) != 1


def annotated_size_problem(path: Path | str, found: tuple[int, int], annotated: tuple[int, int]) -> str | None:
    """Compare the size of an image with that of its annotations.

    Args:
        path: The image file.
        found: (width, height) in pixels of the image as `read_image` returns it.
        annotated: (width, height) in pixels.

    Returns:
        The problem; None if the sizes agree.
    """
    if found == annotated:
        return None
    message = f"expected {annotated[0]} x {annotated[1]} pixels as annotated, found {found[0]} x {found[1]}"
    return message + orientation_note(path, annotated)


def orientation_note(path: Path | str, expected: tuple[int, int]) -> str:
    """Return the end of a message about an image of a wrong size, if its EXIF orientation explains that size.

    Args:
        path: The image file, which can be decoded.
        expected: (width, height) in pixels.

    Returns:
        Text to append to the message; empty unless the image has the expected size before its orientation is applied.
    """
    with Image.open(path, formats=_FORMATS) as image:
        image.load()
        orientation = _orientation(image)
        if orientation == 1 or image.size != expected:
            return ""
    return (
        f" after its EXIF orientation {orientation} was applied, as in image viewers; before that it has "
        f"{expected[0]} x {expected[1]}. Expected annotations of the image as it is shown"
    )


def _as_rgb(image: Image.Image, path: Path | str) -> Image.Image:
    """Return an image of 8 bits per channel in the mode RGB."""
    if image.mode == "I" and image.format == "PPM":
        # Pillow scales the values of PGM files beyond 8 bits to 0-65535.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        kind = "integer" if image.mode == "I" else "floating-point"
        message = f"{kind} values of 32 bits, whose range is not known; expected 8 or 16 bits per channel"
        raise UnreadableImage(Problem(str(path), "", message))
    if image.mode == "RGB":
        # A conversion to the same mode would copy the pixels.
        return image
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    # Pillow warns about palettes with transparency, which is dropped here in any case.
    image.info.pop("transparency", None)
    if image.mode in _WITHOUT_PREMULTIPLIED_ALPHA:
        image = image.convert(_WITHOUT_PREMULTIPLIED_ALPHA[image.mode])
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1, upright, if there is none that can be read."""
    # Pillow's getexif() would also read an orientation in XMP. TIFF files are oriented by Pillow itself.
    content = image.info.get("exif")
    if not content:
        return 1
    exif = Image.Exif()
    try:
        exif.load(content)
        found = exif.get(ExifTags.Base.Orientation)
    except Exception:
        # Damaged metadata raises errors of many types, and the pixels are sound.
        return 1
    return found if isinstance(found, int) and found in range(2, 9) else 1


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _oriented(image: Image.Image, orientation: int) -> Image.Image:
    return image if orientation == 1 else image.transpose(_TURNS[orientation])
