"""The digest of a checkpoint's content, by which a byte that changed after it was written is found.

``torch.load`` does not verify the checksums in its archives. Without the digest, a flipped byte would be read as
another weight.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from hafabench.errors import UserError


def content_digest(content: Mapping[Any, Any], without: Iterable[str] = ()) -> str:
    """Return the SHA-256 of all tensors and values in a checkpoint, and of the names under which they are stored.

    It is a digest of the content and not of the file: neither the order of names nor the layout of tensors in memory
    changes it.

    Args:
        content: Tensors, numbers, texts and containers of them.
        without: Names at the top level that the digest does not cover.

    Raises:
        UserError: If a tensor is sparse, quantised or has no values.
    """
    digest = hashlib.sha256()
    left_out = set(without)
    _add(digest, {key: value for key, value in content.items() if key not in left_out})
    return digest.hexdigest()


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is dense and has its values in memory."""
    return tensor.layout is torch.strided and not tensor.is_quantized and not tensor.is_meta and not tensor.is_nested


def _add(digest: Any, value: Any) -> None:
    # Every value begins with its type and size, so that two different contents cannot give the same bytes.
    if isinstance(value, Tensor):
        if not is_plain(value):
            raise UserError("expected dense tensors with values")
        digest.update(f"tensor {value.dtype} {tuple(value.shape)}\n".encode())
        values = value.detach().resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)}\n".encode())
        for key in sorted(value, key=lambda key: (type(key).__name__, repr(key))):
            _add(digest, key)
            _add(digest, value[key])
    elif isinstance(value, (list, tuple)):
        digest.update(f"{type(value).__name__} {len(value)}\n".encode())
        for item in value:
            _add(digest, item)
    else:
        text = repr(value).encode("utf-8", "backslashreplace")
        digest.update(f"{type(value).__name__} {len(text)}\n".encode())
        digest.update(text)
