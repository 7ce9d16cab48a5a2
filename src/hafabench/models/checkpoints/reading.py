"""Reading files of torch.save and safetensors, without running the code that a pickle may contain.

The format follows from the content of a file. A file that is something else, such as a web page or a pointer of Git
LFS that was saved under the name of a checkpoint, is refused with what it is.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from hafabench.errors import Problem, UserError
from hafabench.files import not_a_file
from hafabench.formatting.names import join_names

_EXPECTED = "expected a file of torch.save or safetensors"
# Files of torch.save began with this pickled magic number before they became archives.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LFS = b"version https://git-lfs"
# First bytes of other formats.
_OTHERS = {
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"BZh": "compressed by bzip2; unpack it first",
    b"\xfd7zXZ": "compressed by xz; unpack it first",
    b"7z\xbc\xaf": "an archive of 7-Zip; unpack it first",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"\x93NUMPY": "a NumPy array",
    b"{": "a text file",
    b"\x80": "a pickle that torch.save did not write",
}


def read_tensors(file: Path, allowed: Sequence[Any] = ()) -> Any:
    """Read a file of torch.save or safetensors onto the CPU.

    Args:
        file: The file.
        allowed: Classes that the file may contain besides tensors, numbers, texts and containers of them.

    Raises:
        UserError: If the file is missing, is something else, is damaged, or contains other Python objects.
    """
    wrong = _not_a_checkpoint(file)
    if wrong:
        raise UserError(Problem(str(file), "", wrong))
    try:
        if _is_safetensors(file):
            from safetensors.torch import load_file

            return load_file(file)
        # torch.load would choose the format by the suffix of a path.
        with torch.serialization.safe_globals(list(allowed)), file.open("rb") as handle:
            return torch.load(handle, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(Problem(str(file), "", _unsafe(file, error, allowed))) from None
    # Damaged pickles and archives raise errors of any class.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UserError(
            Problem(str(file), "", f"not a readable checkpoint: damaged or truncated ({reason})")
        ) from None


def _not_a_checkpoint(file: Path) -> str:
    """Return what a file is if it is neither a file of torch.save nor safetensors; otherwise an empty text."""
    try:
        if file.is_dir():
            return f"this is a folder; {_EXPECTED}"
        if wrong := not_a_file(file):
            return wrong
        with file.open("rb") as handle:
            start = handle.read(512)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if not start:
        return f"the file is empty; {_EXPECTED}"
    if start.startswith(_LFS):
        return f"a pointer of Git LFS instead of the weights, which `git lfs pull` fetches; {_EXPECTED}"
    if _is_page(start):
        return f"a web page, not weights; the link led to a page instead of the file; {_EXPECTED}"
    if start.startswith(b"PK"):
        return _wrong_archive(file)
    if start.startswith(_OLD_TORCH) or _is_safetensors(file):
        return ""
    if start[257:262] == b"ustar":
        return f"a tar archive; unpack it first; {_EXPECTED}"
    kind = next((kind for magic, kind in _OTHERS.items() if start.startswith(magic)), "")
    if kind:
        return f"not a readable checkpoint: {kind}; {_EXPECTED}"
    what = "safetensors file" if file.suffix == ".safetensors" else "checkpoint"
    return f"not a readable {what}: truncated, or of another format; {_EXPECTED}"


def _is_page(start: bytes) -> bool:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml", b"<script", b"<!--"))


def _wrong_archive(file: Path) -> str:
    """Return what is wrong with a ZIP archive; an empty text if torch.save wrote it."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "not a readable checkpoint: truncated, the end of the archive is missing"
    inside = [name.rpartition("/")[2] for name in names]
    if "constants.pkl" in inside:
        return f"a TorchScript module, which contains code; save its state_dict; {_EXPECTED}"
    if "data.pkl" in inside:
        return ""
    return f"a ZIP archive that torch.save did not write, with {join_names(names)}; {_EXPECTED}"


def _is_safetensors(file: Path) -> bool:
    """Return whether a file begins with the header of safetensors: its length (8 bytes), and a JSON object."""
    with file.open("rb") as handle:
        start = handle.read(9)
        size = handle.seek(0, 2)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def _unsafe(file: Path, error: Exception, allowed: Sequence[type]) -> str:
    if zipfile.is_zipfile(file):
        try:
            names = torch.serialization.get_unsafe_globals_in_checkpoint(file)
        except Exception:  # A damaged pickle raises errors of any class.
            return "not a readable checkpoint: damaged or truncated (its pickle cannot be read)"
    else:
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
    known = {f"{cls.__module__}.{cls.__name__}" for cls in allowed}
    named = sorted(set(names) - known)
    if not named:
        return "not a readable checkpoint: damaged or truncated (its pickle cannot be read)"
    return (
        f"contains Python objects other than tensors ({join_names(named)}), which can run code "
        "when they are read; if you trust the file, save its weights alone (the state_dict), or as safetensors"
    )
