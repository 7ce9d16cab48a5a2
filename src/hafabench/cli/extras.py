"""Find the extra of this package that installs a missing module."""

from __future__ import annotations

import re
from importlib import metadata

# Names of distributions that differ from those of their modules, by module.
_DISTRIBUTIONS = {
    "cv2": "opencv-python",
    "mmcv": "mmcv-lite",
    "mmseg": "mmsegmentation",
    "sklearn": "scikit-learn",
}


def missing_extra(module: str) -> str | None:
    """Return the message for a module that cannot be imported, or None if no extra of hafabench installs it.

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
