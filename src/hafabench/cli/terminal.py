"""Output to terminals and files whose encoding does not have all characters, and the signals that end a command."""

from __future__ import annotations

import codecs
import io
import signal
import sys
from types import FrameType

from hafabench.formatting.text import printable

# Plain spellings of the characters that the messages, tables and explanations contain.
_PLAIN = {
    "\u2010": "-",
    "\u2011": "-",
    "\u2013": "-",
    "\u2014": "--",
    "\u2212": "-",
    "\u2018": "'",
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2020": "+",
    "\u2021": "++",
    "\u00a7": "(S)",
    "\u00b6": "(P)",
    "\u00ae": "(R)",
    "\u2122": "(TM)",
    "\u2022": "*",
    "\u2026": "...",
    "\u2192": "->",
    "\u2260": "!=",
    "\u2264": "<=",
    "\u2265": ">=",
    "\u2009": " ",
    "\u202f": " ",
    "\u00a0": " ",
    "\u00b1": "+/-",
    "\u00b2": "2",
    "\u00b7": "*",
    "\u00d7": "x",
    "\u0394": "delta ",
}


def print_everywhere() -> None:
    """Make standard output and error write a plain spelling of characters that their encoding does not have.

    Characters without a plain spelling, for example in the names of files, are written as escapes. So are control
    characters, which could change what a terminal shows.
    """
    codecs.register_error("hafabench.plain", _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            setattr(sys, name, _PrintableStream(stream))


class _PrintableStream(io.TextIOWrapper):
    """A stream for text that writes to the file of another one, with control characters as visible escapes."""

    def __init__(self, stream: io.TextIOWrapper):
        super().__init__(
            stream.buffer,
            stream.encoding,
            "hafabench.plain",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        # The other stream would close the file when it is deleted.
        self._stream = stream

    def write(self, text: str) -> int:
        super().write(printable(text))
        return len(text)


def clean_up_on_signals() -> None:
    """Make a command that is ended by SIGTERM or SIGHUP remove its temporary files, as after Ctrl-C.

    A training handles these signals itself. SIGHUP stays ignored if nohup started the command.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _exit)


def _exit(number: int, _frame: FrameType | None) -> None:
    # A second signal must not interrupt the removal.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    text = "".join(
        _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode() for character in wrong
    )
    return text, error.end
