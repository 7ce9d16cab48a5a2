"""The complete decoding of image files, with an error that names the file and the reason."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image

from hafabench.errors import Problem, UserError

# Errors that Pillow raises for files that are truncated, damaged or no images.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


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
    """Decode an image file completely.

    Args:
        path: The file.
        mode: The mode of Pillow to convert to; None keeps the mode of the file (index masks).

    Raises:
        UnreadableImage: If the file is missing, truncated or damaged.
    """
    try:
        with Image.open(path) as image:
            image.load()
            # The pixels stay valid after the file is closed. A conversion to the same mode would copy them.
            return image if mode in (None, image.mode) else image.convert(mode)
    except FileNotFoundError:
        raise UnreadableImage(Problem(str(path), "", "no such image")) from None
    except _DECODING_ERRORS as error:
        reason = str(error) if "cannot identify" not in str(error) else "not an image"
        raise UnreadableImage(Problem(str(path), "", f"cannot be decoded: {reason}")) from None
