"""Escaping of text for LaTeX."""

from __future__ import annotations

from hafabench.formatting.text import one_line

MINUS = "\u2212"
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",  # ?` and !` are ligatures
    '"': "''",  # the default font encoding has no straight quote
    "\u00a0": "~",
    "\u2013": "--",
    "\u2014": "---",
    "±": r"$\pm$",
    "\u00d7": r"$\times$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "¶": r"\textsuperscript{\P}",
    "§": r"\textsuperscript{\S}",
    MINUS: "$-$",
}


def escape_latex(text: str) -> str:
    r"""Escape a text so that pdflatex prints it as it is, on one line.

    A character without a glyph becomes its code point.
    """
    return "".join(_SPECIAL.get(character) or _letter(character) for character in one_line(text))


def escape_latex_row(text: str) -> str:
    r"""Escape the first cell of a row: after ``\\``, a ``[`` or ``*`` would be read as an argument."""
    escaped = escape_latex(text)
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def _letter(character: str) -> str:
    if character.isascii() or (character.isalpha() and ord(character) < 0x180):
        return character
    return f"\\texttt{{U+{ord(character):04X}}}"
