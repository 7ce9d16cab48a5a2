"""Text from files and records that must not act on a terminal or leave its line."""

from __future__ import annotations

import re

_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")
# Control characters, overrides of the direction of text, halves of surrogate pairs, and code points that are no
# characters. XML allows none of them, and terminals act on some. Lines may contain tabs.
_HIDDEN = "\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
_HIDDEN_IN_LINE = re.compile(f"[{_HIDDEN}]")
_HIDDEN_IN_LINES = re.compile(f"[{_HIDDEN}\v\f\r\x1c-\x1e\x85\u2028\u2029]")


def one_line(text: str) -> str:
    """Return a text on one line: line breaks and tabs become spaces, other control characters visible escapes."""
    return _HIDDEN_IN_LINE.sub(_escaped, _BREAKS.sub(" ", text)).strip()


def printable(text: str) -> str:
    r"""Return a text for a terminal: control characters other than tabs and ``\n`` become visible escapes."""
    return _HIDDEN_IN_LINES.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
