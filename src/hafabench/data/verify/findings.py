"""The findings of a verification, and checks that all data formats share."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hafabench.config.experiment import DatasetConfig
from hafabench.data.listing import as_text
from hafabench.data.paths import Split
from hafabench.errors import Problem, UserError

# Problems of one kind that are printed. A wrong path causes thousands of them.
_SHOWN = 10


class Findings:
    """Problems, sorted by kind.

    Attributes:
        turned: Valid images with an EXIF orientation.
    """

    def __init__(self) -> None:
        self._found: dict[str, list[Problem | str]] = defaultdict(list)
        self.turned: list[Path] = []

    def add(self, kind: str, file: Path, message: str, key: str = "") -> None:
        """Add a problem.

        Args:
            kind: The kind of problem, a plural noun; problems of one kind are counted together.
            file: The file or folder that has the problem.
            message: The problem.
            key: The place in the file.
        """
        self._found[kind].append(Problem(str(file), key, message))

    def add_problem(self, kind: str, problem: Problem | None) -> None:
        """Add a problem of a kind, if there is one."""
        if problem is not None:
            self._found[kind].append(problem)

    def add_error(self, kind: str, error: UserError) -> None:
        """Add the problems of an error."""
        self._found[kind].extend(error.problems)

    def __bool__(self) -> bool:
        return bool(self._found)

    def notes(self, root: Path, *, has_annotations: bool) -> list[str]:
        """Return a note about the images below ``root`` with an EXIF orientation, if there are any.

        Args:
            root: The folder of the data set.
            has_annotations: Whether places in the images are annotated.
        """
        if not self.turned:
            return []
        number, example = len(self.turned), as_text(min(self.turned).relative_to(root))
        has = "1 decoded image has" if number == 1 else f"{number} decoded images have"
        expected = "; annotations are expected for the image as it is shown" if has_annotations else ""
        return [f"{has} an EXIF orientation, which is applied: {example}{', ...' if number > 1 else ''}{expected}"]

    def problems(self) -> list[Problem | str]:
        """List the first problems of each kind, and the number of the others."""
        shown: list[Problem | str] = []
        for kind, found_of_kind in self._found.items():
            found = [problem for problem in found_of_kind if problem not in shown]
            shown += found[:_SHOWN]
            if len(found) > _SHOWN:
                shown.append(f"and {len(found) - _SHOWN} more {kind}")
        return shown


@dataclass(frozen=True)
class Sample:
    """An image that can be decoded.

    Attributes:
        image: The image file.
        mask: The file of its index mask, in data formats that have masks.
        size: (width, height) in pixels according to the annotations.
    """

    image: Path
    mask: Path | None = None
    size: tuple[int, int] | None = None


@dataclass
class Survey:
    """The contents of a data set according to its file names and annotations.

    Attributes:
        counts: Images per split.
        classes: Class names, if the data set contains them.
        samples: All images, per split.
        files: All files of the data set.
        details: Further counts for the report.
    """

    counts: dict[str, int] = field(default_factory=dict)
    classes: list[str] | None = None
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def normal_form(name: str) -> str:
    """Return a name in the Unicode normal form NFC. Files that were copied from macOS often have names in NFD."""
    return unicodedata.normalize("NFC", name)


def check_folder(path: Path, findings: Findings) -> bool:
    """Check that a folder exists."""
    if path.is_dir():
        return True
    findings.add("folders", path, "no such folder" if not path.exists() else "expected a folder, found a file")
    return False


def check_count(dataset: DatasetConfig, split: Split, found: int, path: Path, findings: Findings) -> None:
    """Check the number of images of a split.

    Args:
        dataset: Contains the expected numbers.
        split: ``train`` or ``val``.
        found: Number of images.
        path: The folder or file that contains or lists them.
        findings: Receives the problem.
    """
    expected = dataset.images.get(split)
    if found == 0:
        findings.add("empty splits", path, "no images in it" + (f"; expected {expected}" if expected else ""))
    elif expected is not None and found != expected:
        findings.add("counts", path, f"expected {expected} images, found {found}")
