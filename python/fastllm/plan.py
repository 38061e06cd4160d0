"""How much memory a model needs, from the header of its file alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastllm import system
from fastllm.errors import ParameterError
from fastllm.gguf import GGUFFile

if TYPE_CHECKING:
    import os

__all__ = ["MemoryPlan", "plan"]


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part.

    Attributes:
        weights: The weights, packed for this machine.
        kv_cache: Keys and values of all sequences, filled to the context length.
        scratch: Activations of the largest batch.
        other: Tokenizer, header and small tables.
        context_length: Positions of a sequence that the plan is for.
        kv_dtype: How keys and values are stored.
        batch: Sequences at a time.
        available: Bytes of memory that are free for it here; None where that is not known.
    """

    weights: int
    kv_cache: int
    scratch: int
    other: int
    context_length: int
    kv_dtype: str
    batch: int
    available: int | None

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.scratch + self.other

    @property
    def fits(self) -> bool | None:
        """Whether it fits into the memory that is available; None where that is not known."""
        return None if self.available is None else self.total <= self.available


def plan(
    path: str | os.PathLike[str], *, context_length: int | None = None, kv_dtype: str = "f16", batch: int = 1
) -> MemoryPlan:
    """Plans the memory for a model. Reads the header of the file only.

    Args:
        path: A GGUF file, or the first shard of a model.
        context_length: Positions of a sequence; None: what the model was trained for.
        kv_dtype: How keys and values are stored: "f32", "f16" or "q8_0".
        batch: Sequences at a time.

    Raises:
        ModelFileError: The file cannot be read.
        ModelFormatError: It is not a GGUF file, or is damaged.
        UnsupportedModelError: This version cannot run it.
        ParameterError: An option is out of range.
    """
    for name, value in (("context_length", context_length), ("batch", batch)):
        if value is not None and not 1 <= value <= 2**30:
            raise ParameterError(f"{name} = {value} is not allowed: 1 to {2**30}")
    weights, kv_cache, scratch, other, length = GGUFFile(path)._native.plan(context_length, kv_dtype, batch)  # noqa: SLF001
    return MemoryPlan(weights, kv_cache, scratch, other, length, kv_dtype, batch, system.available_memory())
