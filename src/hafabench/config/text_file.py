"""Text files that people and other programs write: encodings, byte order marks, CSV, and numbers."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

from hafabench.config.base import shown
from hafabench.errors import Problem, UserError
from hafabench.files import not_a_file

# Bytes of the largest text that is read. A file that is larger is something else, or would fill the memory.
LARGEST_TEXT = 2**28

_OTHER_ENCODINGS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?|[-+]?(inf|infinity|nan)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]+,[0-9]+")


def read_bytes(path: Path, *, missing: str = "no such file", largest: int = LARGEST_TEXT) -> bytes:
    """Read a file completely.

    Args:
        path: The file.
        missing: The message of the error if the file does not exist.
        largest: The number of bytes above which the file is refused.

    Raises:
        UserError: If the file is missing, cannot be read, is no regular file, or is too large.
    """
    try:
        size = Path(path).stat().st_size
        wrong = None if Path(path).is_dir() else not_a_file(path)
        if wrong is None and size > largest:
            wrong = f"expected a file of at most {largest:,} bytes, found {size:,}"
        if wrong is not None:
            raise UserError(Problem(str(path), "", wrong))
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise UserError(Problem(str(path), "", missing)) from None
    except MemoryError:
        raise UserError(Problem(str(path), "", f"does not fit into memory: {size:,} bytes")) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(Problem(str(path), "", f"cannot be read: {reason}")) from None


def read_text(path: Path, *, missing: str = "no such file", largest: int = LARGEST_TEXT) -> str:
    """Read a text file in UTF-8. A byte order mark is left out; ends of lines are kept.

    Args:
        path: The file.
        missing: The message of the error if the file does not exist.
        largest: The number of bytes above which the file is refused.

    Raises:
        UserError: If the file is missing, cannot be read, is no regular file, is too large, or has another encoding.
    """
    content = read_bytes(path, missing=missing, largest=largest)
    for mark, encoding in _OTHER_ENCODINGS.items():
        if content.startswith(mark):
            message = f"the text is encoded in {encoding}; save the file with the encoding UTF-8"
            raise UserError(Problem(str(path), "", message))
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        message = "not UTF-8 text: it contains NUL bytes; save the file with the encoding UTF-8"
        raise UserError(Problem(str(path), "", message, line))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"not UTF-8 text (byte 0x{content[error.start]:02X}); save the file with the encoding UTF-8"
        raise UserError(Problem(str(path), "", message, line)) from None


def lines_of(text: str) -> list[str]:
    """Split a text at the ends of lines of all systems, and at no other character."""
    return [line.removesuffix("\n") for line in io.StringIO(text, newline=None)]


@dataclass(frozen=True)
class CsvTable:
    """The content of a CSV file.

    Attributes:
        header: The names of the columns, without surrounding spaces.
        rows: The fields of each line below the header, with the number of the line; empty lines are left out.
    """

    header: list[str]
    rows: list[tuple[int, list[str]]]


def read_csv_table(path: Path, *, missing: str = "no such file") -> CsvTable:
    """Read a CSV file whose fields are separated by commas.

    Args:
        path: The file.
        missing: The message of the error if the file does not exist.

    Raises:
        UserError: If the file is missing, empty, no text or no CSV, or if its fields are separated otherwise.
    """
    reader = csv.reader(io.StringIO(read_text(path, missing=missing), newline=""), strict=True)
    try:
        lines = [(reader.line_num, fields) for fields in reader if any(field.strip() for field in fields)]
    except csv.Error as error:
        raise UserError(Problem(str(path), "", f"not valid CSV: {error}", reader.line_num)) from None
    if not lines:
        raise UserError(Problem(str(path), "", "the file is empty; expected a header and a line per number"))
    header = [name.strip() for name in lines[0][1]]
    for separator, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")):
        if len(header) == 1 and separator in header[0]:
            message = f"the fields are separated by {name}; expected commas, and points in decimal numbers"
            raise UserError(Problem(str(path), "", message, lines[0][0]))
    return CsvTable(header, lines[1:])


def parse_number(text: str) -> float:
    """Return a number that is written in a text.

    Raises:
        ValueError: With what was expected, if the text is no number. A decimal comma is no decimal point.
    """
    if _NUMBER.fullmatch(text.strip()):
        return float(text)
    hint = " with a decimal point" if _DECIMAL_COMMA.fullmatch(text.strip()) else ""
    raise ValueError(f"expected a number{hint}, found {shown(text)}")
