"""Checkpoints of other projects: reading them safely, and fitting their weights to a run's model.

Only tensors, plain containers and `argparse.Namespace` are read. timm and DeiT store such namespaces in their
checkpoints; they contain values and run no code.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hafabench.config.catalog import ModelSpec
from hafabench.errors import Problem, UserError
from hafabench.formatting.names import join_names
from hafabench.models.checkpoints.classifier import undecorated
from hafabench.models.checkpoints.digest import is_plain
from hafabench.models.checkpoints.published import Fitted, fit, fit_backbone
from hafabench.models.checkpoints.reading import read_tensors
from hafabench.models.checkpoints.storage import compare_digest, is_finite
from hafabench.runs.run import Run

# Keys under which other projects store a model's weights in a checkpoint.
PARTS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "ema", "ema_state_dict")


class ForeignWeights:
    """The weights in one file of another project.

    Args:
        file: A file of torch.save or safetensors.
        part: Key of the weights in the checkpoint; keys of nested entries are joined by dots. It can be left out if
            the checkpoint has only one set of weights.
        renames: For each prefix of names in the file, the prefix in the model.

    Attributes:
        part: Key of the weights; empty if the file contains nothing else.
        fitted: The weights as they were loaded, after `fill`.

    Raises:
        UserError: If the file cannot be read safely, or contains no weights or several sets of them.
    """

    fitted: Fitted

    def __init__(self, file: Path, part: str | None = None, renames: Mapping[str, str] | None = None):
        self.file, self.renames = file, dict(renames or {})
        content = read_tensors(file, [argparse.Namespace])
        compare_digest(file, content)
        self.part, self.tensors = _part(content, part, file)

    def fill(self, model: nn.Module, run: Run, checkpoint: Path) -> None:
        """Load the weights into the run's model.

        Raises:
            UserError: If weights do not fit the model; all problems are listed.
        """
        self._fit(fit, model, run.model)
        model.load_state_dict(self.fitted.state)

    def fit_backbone(self, backbone: nn.Module, spec: ModelSpec) -> None:
        """Fit the weights to the backbone of a dense model, without loading them.

        Args:
            backbone: A model of `hafabench.models.create` with ``dense=True``, on any device.
            spec: The model.

        Raises:
            UserError: If weights do not fit the model; all problems are listed.
        """
        self._fit(fit_backbone, backbone, spec)

    def fill_backbone(self, backbone: nn.Module, spec: ModelSpec) -> None:
        """Load the weights into the backbone of a dense model; see `fit_backbone`."""
        self.fit_backbone(backbone, spec)
        undecorated(backbone).load_state_dict(self.fitted.state)

    def _fit(self, function: Callable[..., Fitted], model: nn.Module, spec: ModelSpec) -> None:
        try:
            self.fitted = function(model, self.tensors, spec, self.renames)
        except UserError as error:
            raise UserError(
                [Problem(str(self.file), self.part, str(problem)) for problem in error.problems]
            ) from None
        own = undecorated(model).state_dict() if function is fit_backbone else model.state_dict()
        # A number that is finite in the file may exceed the range of the model's data type.
        infinite = [name for name, value in self.fitted.state.items() if not is_finite(value.to(own[name].dtype))]
        if infinite:
            message = f"some weights are not finite (NaN or infinity): {join_names(infinite)}"
            raise UserError(Problem(str(self.file), self.part, message))

    @property
    def read(self) -> str:
        """Clauses that describe which part was read and how its names were translated."""
        place = f"its {self.part}" if self.part else "the whole file"
        renamed = [f"renamed {old} to {new}" for old, new in self.renames.items()]
        return "; ".join([f"{place}, {self.fitted.naming}", *renamed, *self.fitted.dropped])


def _part(content: Any, part: str | None, file: Path) -> tuple[str, dict[str, Tensor]]:
    """Return the weights in the content of a file, and the name of the entry that contains them.

    An entry inside another one is named with a dot.
    """
    if not isinstance(content, Mapping):
        message = f"expected weights by name, found {_describe(content)}"
        raise UserError(Problem(str(file), "", message))
    if part is not None:
        return part, _weights(_entry(content, part), part, file, _names_of_weights(content))
    found = [name for name in PARTS if name in content]
    filled = [name for name in found if _is_weights(content[name])]
    if len(filled) > 1:
        message = f"weights in {' and '.join(filled)}; choose one with --part, or with `part` in an experiment file"
        raise UserError(Problem(str(file), "", message))
    if filled:
        return filled[0], _weights(content[filled[0]], filled[0], file)
    if not found and _are_mostly_weights(content):
        return "", _weights(content, "", file)
    deeper = _names_of_weights(content)
    if deeper:
        message = f"weights in {join_names(deeper)}; choose with --part, or with `part` in an experiment file"
        raise UserError(Problem(str(file), "", message))
    if len(found) == 1:
        _weights(content[found[0]], found[0], file)
    keys = join_names([str(key) for key in content], 8)
    raise UserError(Problem(str(file), "", f"no weights in {' or '.join(PARTS[:3])}; it contains {keys}"))


def _entry(content: Mapping[str, Any], part: str) -> Any:
    """Return the entry of a file that has this name; None if there is none."""
    if part in content:
        return content[part]
    entry: Any = content
    for key in part.split("."):
        entry = entry.get(key) if isinstance(entry, Mapping) else None
    return entry


def _names_of_weights(content: Mapping[str, Any], prefix: str = "", depth: int = 2) -> list[str]:
    """Return the names of the entries that contain weights, without those of the optimizer's states."""
    names = []
    for name, value in content.items():
        if _is_weights(value):
            names.append(f"{prefix}{name}")
        elif isinstance(value, Mapping) and depth > 1 and "optim" not in str(name):
            names += _names_of_weights(value, f"{prefix}{name}.", depth - 1)
    return names


def _weights(content: Any, part: str, file: Path, choices: Sequence[str] = ()) -> dict[str, Tensor]:
    """Return an entry of a file as weights by name.

    Args:
        content: The entry.
        part: Its name; empty for the whole file.
        file: The file.
        choices: The names of the entries that contain weights.

    Raises:
        UserError: If it is something else. Entries that are no tensors are named.
    """
    if not isinstance(content, Mapping) or not content:
        instead = f"; the file has weights in {', '.join(choices)}" if choices else ""
        raise UserError(Problem(str(file), part, f"expected weights by name, found {_describe(content)}{instead}"))
    others = [f"{name} ({_describe(value)})" for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        found = "found" if len(others) == len(content) else "found also"
        raise UserError(Problem(str(file), part, f"expected tensors only, {found} {join_names(others)}"))
    names = [name for name in content if not isinstance(name, str)]
    if names:
        raise UserError(Problem(str(file), part, f"expected names of tensors as text, found {names[0]!r}"))
    sparse = [name for name, value in content.items() if not is_plain(value)]
    if sparse:
        raise UserError(Problem(str(file), part, f"expected dense tensors, found others: {join_names(sparse)}"))
    return dict(content)


def _is_weights(content: Any) -> bool:
    """Return whether an entry is a set of weights, though perhaps with something else among them."""
    return isinstance(content, Mapping) and any(isinstance(value, Tensor) for value in content.values())


def _are_mostly_weights(content: Mapping[str, Any]) -> bool:
    return 2 * sum(isinstance(value, Tensor) for value in content.values()) > len(content)


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a mapping with {_keys(content)}" if content else "an empty mapping"
    return "nothing" if content is None else f"{type(content).__name__}"


def _keys(content: Mapping[Any, Any]) -> str:
    return join_names([str(key) for key in content], 8)
