"""Images decoded whole, or a sentence that says which file cannot be and why."""

from __future__ import annotations

import struct
from pathlib import Path

from PIL import Image

from hafabench.errors import Problem, UserError

# What Pillow raises for files that are truncated, damaged or no images.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class UnreadableImage(UserError):
    """An image that cannot be decoded.

    Raised in a loading process, it reaches the training process as one sentence too: torch makes it anew there from
    the text of the whole traceback, of which only the sentence is kept.
    """

    def __init__(self, problem: Problem | str):
        if isinstance(problem, str):
            problem = problem.rsplit(f"{UnreadableImage.__name__}: ", 1)[-1].strip()
        super().__init__(problem)


def read_image(path: Path | str, mode: str | None = "RGB") -> Image.Image:
    """Decode an image file completely.

    Args:
        path: the file.
        mode: Pillow's mode to convert to; None keeps the file's own (index masks).

    Raises:
        UnreadableImage: for a missing, truncated or damaged file.
    """
    try:
        with Image.open(path) as image:
            image.load()
            # The pixels outlive the file; a conversion to its own mode would copy them.
            return image if mode in (None, image.mode) else image.convert(mode)
    except FileNotFoundError:
        raise UnreadableImage(Problem(str(path), "", "no such image")) from None
    except _DECODING_ERRORS as error:
        reason = str(error) if "cannot identify" not in str(error) else "not an image"
        raise UnreadableImage(Problem(str(path), "", f"cannot be decoded: {reason}")) from None
