"""The optional dependencies of this package: which extra installs a module that is missing."""

from __future__ import annotations

import re
from importlib import metadata

# Distributions whose modules have other names.
_DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "mmcv": "mmcv-lite",
    "mmseg": "mmsegmentation",
    "sklearn": "scikit-learn",
}


def missing_extra(module: str) -> str | None:
    """The message for a module that cannot be imported; None where no extra of hafabench installs it.

    The extras are read from the metadata of the installed package, that is, from ``pyproject.toml``.
    """
    name = module.partition(".")[0]
    distribution = _DISTRIBUTIONS.get(name, name)
    for requirement in metadata.requires("hafabench") or []:
        found = re.match(r"([\w.-]+)[^;]*;.*extra == ['\"]([\w-]+)['\"]", requirement)
        if found and found[1].replace("_", "-").lower() == distribution and found[2] != "all":
            return (
                f"the package {distribution} is not installed; install it with: pip install 'hafabench[{found[2]}]'"
            )
    return None
