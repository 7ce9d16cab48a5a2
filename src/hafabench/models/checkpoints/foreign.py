"""Checkpoints of other projects: reading them safely, and fitting their weights to a run's model.

Only tensors, plain containers and `argparse.Namespace` are read. timm and DeiT store such namespaces in their
checkpoints; they contain values and run no code.
"""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hafabench.errors import Problem, UserError
from hafabench.models.checkpoints.published import Fitted, fit
from hafabench.runs.run import Run

# Keys under which other projects store a model's weights in a checkpoint.
PARTS = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "ema", "ema_state_dict")
# Files of torch.save began with this pickled magic number before they became archives.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class ForeignWeights:
    """The weights in one file of another project.

    Args:
        file: A file of torch.save or safetensors.
        part: Key of the weights in the checkpoint. It can be left out if the checkpoint has only one set of weights.
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
        content = _read(file)
        self.part, self.tensors = _part(content, part, file)

    def fill(self, model: nn.Module, run: Run, checkpoint: Path) -> None:
        """Load the weights into the run's model.

        Raises:
            UserError: If weights do not fit the model; all problems are listed.
        """
        try:
            self.fitted = fit(model, self.tensors, run.model, self.renames)
        except UserError as error:
            raise UserError(
                [Problem(str(self.file), self.part, str(problem)) for problem in error.problems]
            ) from None
        if not all(value.isfinite().all() for value in self.fitted.state.values()):
            raise UserError(Problem(str(self.file), self.part, "some weights are not finite"))
        model.load_state_dict(self.fitted.state)

    @property
    def read(self) -> str:
        """Clauses that describe which part was read and how its names were translated."""
        place = f"its {self.part}" if self.part else "the whole file"
        renamed = [f"renamed {old} to {new}" for old, new in self.renames.items()]
        return "; ".join([f"{place}, {self.fitted.naming}", *renamed, *self.fitted.dropped])


def _read(file: Path) -> Any:
    if not file.is_file():
        raise UserError(Problem(str(file), "", "no such file"))
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(Problem(str(file), "", f"not a readable safetensors file: {error}")) from None
    if not zipfile.is_zipfile(file) and not _is_old_torch(file):
        raise UserError(Problem(str(file), "", "not a readable checkpoint: truncated, or not written by torch.save"))
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(file) if zipfile.is_zipfile(file) else []
        named = ", ".join(sorted(set(names) - {"argparse.Namespace"}))
        message = (
            f"contains Python objects other than tensors{f' ({named})' if named else ''}, which can run code when "
            "they are read; if you trust the file, save its weights alone, or as safetensors"
        )
        raise UserError(Problem(str(file), "", message)) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = (str(error).splitlines() or ["empty"])[0][:160]
        raise UserError(Problem(str(file), "", f"not a readable checkpoint: {reason}")) from None


def _is_old_torch(file: Path) -> bool:
    """Return whether the file was written by PyTorch before 1.6, whose torch.save did not write archives."""
    with file.open("rb") as handle:
        return handle.read(len(_OLD_TORCH)) == _OLD_TORCH


def _part(content: Any, part: str | None, file: Path) -> tuple[str, dict[str, Tensor]]:
    if not isinstance(content, Mapping):
        raise UserError(Problem(str(file), "", f"expected weights by name, found {type(content).__name__}"))
    if part is not None:
        if not _is_weights(content.get(part)):
            candidates = ", ".join(name for name in content if _is_weights(content[name])) or "none"
            raise UserError(Problem(str(file), part, f"no weights of this name; expected one of: {candidates}"))
        return part, dict(content[part])
    if _is_weights(content):
        return "", dict(content)
    found = [name for name in PARTS if _is_weights(content.get(name))]
    if not found:
        keys = ", ".join(map(str, list(content)[:8])) or "nothing"
        raise UserError(Problem(str(file), "", f"no weights in {' or '.join(PARTS[:3])}; it contains {keys}"))
    if len(found) > 1:
        raise UserError(Problem(str(file), "", f"weights in {' and '.join(found)}; choose one with --part"))
    return found[0], dict(content[found[0]])


def _is_weights(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )
