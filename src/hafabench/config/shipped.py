"""The configuration files that come with this project: recipes, tables, claims, rates and experiments.

They are stored in `configs/` of a checkout. A wheel contains a copy of them in the package (see `setup.py`).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_CHECKOUT = _PACKAGE.parents[1]


def shipped_folder() -> Path:
    """Return the folder of the shipped files: `configs/` of the checkout, or the copy in an installed package.

    The path is relative if the folder is inside the working directory, so that messages, commands and records contain
    no path of one machine where this is not necessary.
    """
    in_checkout = _PACKAGE.parent.name == "src" and (_CHECKOUT / "configs").is_dir()
    folder = _CHECKOUT / "configs" if in_checkout else _PACKAGE / "configs"
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def own_or_shipped(folder: Path, name: str) -> Path:
    """Return the file ``name`` in ``folder``, or the shipped one if ``folder`` does not contain it.

    Args:
        folder: The folder of files that a user wrote.
        name: The path of the file, relative to ``folder`` and to `shipped_folder`.
    """
    own = folder / name
    shipped = shipped_folder() / name
    return own if own.is_file() or not shipped.is_file() else shipped
