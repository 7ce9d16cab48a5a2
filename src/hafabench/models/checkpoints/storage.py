"""Checkpoint files: they contain tensors and plain containers only, are written atomically and checked when loaded.

A *final* checkpoint contains ``state_dict``, ``meta`` (the run of the weights and the provenance of their training)
and, if the training kept a moving average of the weights, ``average``. A *work* checkpoint contains everything that
an exact resume needs and belongs to one fingerprint. Both contain ``digest``, the digest of everything else in the
file, which is compared whenever the file is read. Checkpoints of earlier versions have none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import nn

from hafabench.errors import Problem, UserError
from hafabench.files import atomic_path
from hafabench.models.checkpoints.digest import content_digest, is_plain
from hafabench.models.checkpoints.reading import read_tensors
from hafabench.runs.run import Run

FORMAT = "hafabench.checkpoint/1"
DIGEST = "digest"
_SHOWN = 8

# Loads the weights of a file into a run's model.
Fill = Callable[[nn.Module, Run, Path], None]


def save_checkpoint(path: Path, content: dict[str, Any], check: Callable[[], None] = lambda: None) -> None:
    """Write ``content`` (tensors, numbers, strings and containers of them) and its digest to ``path`` atomically.

    Args:
        path: The file.
        content: What it will contain.
        check: Called when everything is written but not yet in place. If it raises an error, ``path`` is unchanged.

    Raises:
        UserError: If the disk is full or the folder cannot be written. Then ``path`` is unchanged.
    """
    stored = {"format": FORMAT, **content}
    stored[DIGEST] = content_digest(stored, without=[DIGEST])
    with atomic_path(path) as temporary:
        with temporary.open("wb") as handle:
            writer = _Writer(handle)
            torch.save(stored, cast(IO[bytes], writer))
            writer.finish()
        check()


class _Writer:
    """A file for torch.save, which would replace an error of the operating system by one that hides the cause.

    Args:
        handle: The file that is written.
    """

    def __init__(self, handle: IO[bytes]):
        self._handle = handle
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write ``data``, and nothing more after an error."""
        if self._error is None:
            try:
                self._handle.write(data)
            except OSError as error:
                self._error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing; `finish` flushes."""

    def finish(self) -> None:
        """Raise the first error of the operating system, if there was one."""
        if self._error is not None:
            raise self._error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of this project onto the CPU, without unpickling arbitrary objects.

    Raises:
        UserError: If the file is missing, truncated or not a checkpoint of this project, or if its content is not
            that which was written.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(Problem(str(path), "", "no such checkpoint"))
    content = read_tensors(path)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise UserError(Problem(str(path), "format", f"expected {FORMAT!r}, found {found!r}"))
    compare_digest(path, content)
    return content


def compare_digest(path: Path, content: Any) -> None:
    """Compare the content of a file with its digest, if it is a checkpoint of this project that has one.

    Raises:
        UserError: If the content has changed since it was written.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT or DIGEST not in content:
        return
    try:
        found = content_digest(content, without=[DIGEST])
    except UserError as error:
        raise UserError(Problem(str(path), "", str(error))) from None
    except RecursionError:
        raise UserError(Problem(str(path), "", "its containers are nested too deeply")) from None
    if found != content[DIGEST]:
        message = (
            f"the content has changed since the checkpoint was written: expected digest {content[DIGEST]!r}, "
            f"found {found!r}; restore the file from a copy"
        )
        raise UserError(Problem(str(path), DIGEST, message))


def meta_of(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``meta`` of a checkpoint.

    Raises:
        UserError: If it is missing or no mapping.
    """
    meta = content.get("meta")
    if not isinstance(meta, dict):
        raise UserError(Problem(str(path), "meta", f"expected the run of the weights, found {type(meta).__name__}"))
    return meta


def expect_meta(path: Path, content: dict[str, Any], **expected: Any) -> None:
    """Check the ``meta`` of a checkpoint.

    Args:
        path: The file, for error messages.
        content: Its content.
        **expected: Values that ``meta`` must have (model, task, num_classes, ...).

    Raises:
        UserError: If values differ; all of them are listed.
    """
    meta = meta_of(path, content)
    problems = [
        Problem(
            str(path),
            f"meta.{key}",
            f"checkpoint of another run: expected {value!r}, found {meta.get(key)!r}",
        )
        for key, value in expected.items()
        if meta.get(key) != value
    ]
    if problems:
        raise UserError(problems)


def load_strict(module: nn.Module, state: Any, path: Path) -> None:
    """Load ``state``, tensors by name, into ``module``.

    Raises:
        UserError: If tensors are missing, unexpected, of another shape or of another data type, or if values are not
            finite.
    """
    problems = state_problems(module, state, path)
    if problems:
        raise UserError(problems)
    module.load_state_dict(state)


def state_problems(module: nn.Module, state: Any, path: Path) -> list[Problem | str]:
    """Describe why ``state`` cannot be the state of ``module``; see `load_strict`.

    Args:
        module: A model, on any device.
        state: Tensors by name, or whatever else a file contains in their place.
        path: The file, for error messages.
    """
    if not isinstance(state, Mapping):
        return [Problem(str(path), "", f"expected weights by name, found {type(state).__name__}")]
    own = module.state_dict()
    problems: list[Problem] = []
    for key in own.keys() - state.keys():
        problems.append(Problem(str(path), key, "expected by the model, missing in the checkpoint"))
    for key in state.keys() - own.keys():
        problems.append(Problem(str(path), str(key), "in the checkpoint, unknown to the model"))
    for key in own.keys() & state.keys():
        problem = tensor_problem(own[key], state[key])
        if problem:
            problems.append(Problem(str(path), key, problem))
    problems.sort(key=lambda problem: problem.key)
    shown: list[Problem | str] = [*problems[:_SHOWN]]
    if len(problems) > len(shown):
        shown.append(Problem(str(path), "", f"and {len(problems) - len(shown)} more such tensors"))
    return shown


def tensor_problem(own: Any, found: Any) -> str:
    """Describe why ``found`` cannot take the place of the tensor ``own``; empty if it can.

    Args:
        own: A tensor of a model or an optimiser, on any device.
        found: A tensor of a checkpoint of this project, which stores every tensor in the data type that it has.
    """
    if not isinstance(found, torch.Tensor):
        return f"expected a tensor, found {type(found).__name__}"
    if not is_plain(found):
        return "expected a dense tensor with values"
    if own.shape != found.shape:
        return f"expected shape {tuple(own.shape)}, found {tuple(found.shape)}"
    if own.dtype != found.dtype:
        return f"expected data type {own.dtype}, found {found.dtype}"
    return "" if is_finite(found) else "some values are not finite (NaN or infinity)"


def weights_problems(state: Any, path: Path) -> list[Problem]:
    """Describe why ``state`` cannot be the weights of any model: something else than tensors, or no finite values.

    Args:
        state: Tensors by name, or whatever else a file contains in their place.
        path: The file, for error messages.
    """
    if not isinstance(state, Mapping) or not state:
        return [Problem(str(path), "", f"expected weights by name, found {type(state).__name__}")]
    found = ((name, tensor_problem(value, value)) for name, value in state.items())
    problems = [Problem(str(path), str(name), problem) for name, problem in found if problem]
    more = (
        [Problem(str(path), "", f"and {len(problems) - _SHOWN} more such tensors")] if len(problems) > _SHOWN else []
    )
    return [*problems[:_SHOWN], *more]


def infinite_names(model: nn.Module) -> list[str]:
    """Return the names of the weights and buffers of a model that contain NaN or infinity."""
    return [name for name, value in (*model.named_parameters(), *model.named_buffers()) if not is_finite(value)]


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether all values of a tensor are finite; integers always are."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    # `isfinite` is not implemented for numbers of 8 bits.
    return bool((tensor.float() if tensor.dtype.itemsize == 1 else tensor).isfinite().all())
