"""The cache of packed weights: what is in it, checking and clearing it.

The first load of a large model writes its packed weights into the user's cache folder; later ones map that file, which
is instant and lets processes share one copy. `Model` works the same without it. Environment variables:

    FASTLLM_CACHE        0 or off: no cache. map: map files even where their pages are small, which decodes more slowly.
                         read: read them into memory, which shares nothing. Otherwise: whichever is faster.
    FASTLLM_CACHE_DIR    The folder (default: fastllm/packed in XDG_CACHE_HOME or ~/.cache, on macOS ~/Library/Caches).
    FASTLLM_CACHE_LIMIT  Most bytes of all files together (default: 64 GiB); 0 or off: no cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastllm import _native

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastllm.stream import Progress

__all__ = ["CachedModel", "Condition", "cached_models", "clear", "folder", "verify"]

Condition = Literal["ok", "other version", "damaged", "being written"]


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache.

    Attributes:
        model: Where its file was when it was packed; None if that cannot be read.
        path: The file in the cache.
        bytes: Its size.
        used: When it was last loaded.
        condition: Whether it can be used.
    """

    model: Path | None
    path: Path
    bytes: int
    used: datetime
    condition: Condition


def folder() -> Path | None:
    """The folder of the cache, which need not exist; None where there is no place for one: Windows, no home."""
    return _native.cache_folder()


def cached_models() -> list[CachedModel]:
    """All models in the cache, the most recently used first.

    Raises:
        ModelFileError: The folder cannot be read, or is not of this user alone.
    """
    return _models(_native.cache_list())


def clear() -> list[CachedModel]:
    """Deletes all but what is being written. Loaded models keep running.

    Returns:
        What was deleted.

    Raises:
        ModelFileError: The folder cannot be read, or a file not be deleted.
    """
    return _models(_native.cache_clear())


def verify(progress: Progress | None = None) -> list[CachedModel]:
    """Compares every byte with its checksum, which loading does with samples only, and deletes what is damaged.

    Args:
        progress: Called with bytes checked and bytes in all.

    Returns:
        All models that were in the cache.

    Raises:
        ModelFileError: The folder cannot be read, or a file not be deleted.
    """
    return _models(_native.cache_verify(progress))


def _models(cached: Iterable[tuple[Path, Path, int, float, Condition]]) -> list[CachedModel]:
    def local(seconds: float) -> datetime:
        return datetime.fromtimestamp(seconds, timezone.utc).astimezone()

    return [
        CachedModel(model if model.parts else None, path, size, local(used), condition)
        for model, path, size, used, condition in cached
    ]
