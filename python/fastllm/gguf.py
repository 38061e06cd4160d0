"""GGUF files: metadata and tensors, of any architecture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Union

from fastllm import _native

__all__ = ["GGUFFile", "Metadata", "MetadataValue", "TensorInfo"]

MetadataValue = Union[  # noqa: UP007 - it names itself
    int, float, bool, str, bytes, list["MetadataValue"]
]


class Metadata(Mapping[str, MetadataValue]):
    """The metadata of a file, read-only. Strings that are not UTF-8 are `bytes`."""

    def __init__(self, file: _native.File) -> None:
        self._file = file
        self._keys = dict.fromkeys(file.keys())

    def __getitem__(self, key: str) -> MetadataValue:
        return self._file.value(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __repr__(self) -> str:
        return f"<Metadata of {len(self)} keys>"

    def text(self, key: str) -> str | None:
        """The value of a key that should be a string; None if it is absent or is something else."""
        value = self.get(key)
        return value if isinstance(value, str) else None


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of a file.

    Attributes:
        name: Its name.
        shape: Its shape as in numpy: the row length comes last. (The file stores it the other way round.)
        dtype: How its numbers are stored, such as "q4_k".
        bytes: Bytes in the file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        product = 1
        for length in self.shape:
            product *= length
        return product


class GGUFFile:
    """The header of a GGUF file, or of all shards of a model. Reads no weights and works for any architecture.

    Args:
        path: The file, or its first shard.

    Raises:
        ModelFileError: The file cannot be read (also FileNotFoundError, PermissionError).
        ModelFormatError: It is not a GGUF file, or is damaged.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._native = _native.File(path)
        self.metadata = Metadata(self._native)
        self.tensors = tuple(
            TensorInfo(name, tuple(reversed(dims)), dtype, size) for name, dims, dtype, size in self._native.tensors()
        )

    @property
    def path(self) -> str:
        """The path that was opened."""
        return self._native.path

    @property
    def version(self) -> int:
        """The version of the format."""
        return self._native.version

    @property
    def bytes(self) -> int:
        """Bytes of all shards together."""
        return self._native.total_bytes

    @property
    def architecture(self) -> str | None:
        """`general.architecture`."""
        return self.metadata.text("general.architecture")

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def dtypes(self) -> dict[str, int]:
        """How many tensors have each type, the most bytes first."""
        sizes: dict[str, int] = {}
        counts: dict[str, int] = {}
        for tensor in self.tensors:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.bytes
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + 1
        return {dtype: counts[dtype] for dtype in sorted(counts, key=lambda dtype: -sizes[dtype])}

    def __repr__(self) -> str:
        return f"GGUFFile({self.path!r}, {self.architecture}, {len(self.tensors)} tensors)"
