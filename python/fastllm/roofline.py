"""Roofs: what this machine can do at most, measured, and what that leaves for a model.

Writing a token reads every weight that it meets, so it is bound by the rate at which memory is read. Reading a prompt
multiplies every weight with every token, so it is bound by the rate of dot products of bytes (or, for weights that are
stored as floats, of fused multiply-adds).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastllm import _native, system
from fastllm.errors import OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fastllm.gguf import GGUFFile

__all__ = [
    "ComputeRoof",
    "Rate",
    "ReadRoof",
    "Roofs",
    "TokenCost",
    "chosen_isa",
    "measure",
    "measure_read",
    "thread_counts",
    "token_cost",
]

# Share of the best rate that counts as having reached it: what repeated measurements differ by.
ENOUGH = 0.97
# Bytes of the memory that is read: several times the caches, and little enough to be ready at once.
_BYTES = (256 << 20, 512 << 20, 1 << 30)
_LEAST_BYTES = 16 << 20
# Share of the time that goes to memory.
_MEMORY = 0.4


@dataclass(frozen=True)
class Rate:
    """Per second. Other work can only slow a measurement down: the best one is the machine's.

    Attributes:
        best: Of the fastest window of time.
        median: Of the median window: what there is at the moment.
    """

    best: float
    median: float


@dataclass(frozen=True)
class ReadRoof:
    """Bytes per second of a plain read of memory.

    Attributes:
        threads: Threads that read.
        rate: Bytes per second, of all threads together.
    """

    threads: int
    rate: Rate


@dataclass(frozen=True)
class ComputeRoof:
    """Operations per second with everything in registers and the first cache. A multiply-add counts two.

    Attributes:
        isa: The instruction set.
        threads: Threads that compute.
        integer: Dot products of bytes, of all threads together.
        floating: Fused multiply-adds, of all threads together.
    """

    isa: str
    threads: int
    integer: Rate
    floating: Rate


@dataclass(frozen=True)
class Roofs:
    """What was measured.

    Attributes:
        isa: The instruction set that models use unless told otherwise.
        bytes: Bytes of the memory that was read.
        reads: By number of threads, ascending.
        compute: By instruction set, the slowest first, and number of threads.
    """

    isa: str
    bytes: int
    reads: tuple[ReadRoof, ...]
    compute: tuple[ComputeRoof, ...]

    @property
    def bandwidth(self) -> float:
        """Most bytes per second."""
        return max(read.rate.best for read in self.reads)

    @property
    def integer(self) -> float:
        """Most dot product operations per second of the instruction set in use."""
        return max(compute.integer.best for compute in self._in_use)

    @property
    def floating(self) -> float:
        """Most operations per second of fused multiply-adds of the instruction set in use."""
        return max(compute.floating.best for compute in self._in_use)

    @property
    def decode_threads(self) -> int:
        """The least threads that read memory about as fast as it can be read."""
        return min(read.threads for read in self.reads if read.rate.best >= ENOUGH * self.bandwidth)

    @property
    def prompt_threads(self) -> int:
        """The least threads that multiply about as fast as this machine can."""
        return min(x.threads for x in self._in_use if x.integer.best >= ENOUGH * self.integer)

    @property
    def _in_use(self) -> list[ComputeRoof]:
        return [compute for compute in self.compute if compute.isa == self.isa]

    def decode_share(self, bytes_per_second: float) -> float:
        """Share of the bandwidth."""
        return bytes_per_second / self.bandwidth

    def prompt_share(self, integer: float, floating: float) -> float:
        """Share of the arithmetic, for operations per second with integers and with floats.

        It is the share of the time that the roofs would need for the same operations.
        """
        return integer / self.integer + floating / self.floating


def chosen_isa() -> str:
    """The instruction set that models use unless told otherwise."""
    asked = os.environ.get("FASTLLM_ISA", "")
    return _native.available_isas()[-1] if asked in {"", "auto"} else asked


def thread_counts() -> list[int]:
    """1, 2, 4, ... up to what affinity and the CPU quota allow, and the default number of models."""
    quota = system.cgroup_cpus()
    most = system.allowed_cpus()
    if quota is not None:
        most = max(1, min(most, int(quota)))
    counts = {most, min(_native.default_threads(), most)}
    count = 1
    while count < most:
        counts.add(count)
        count *= 2
    return sorted(counts)


def _read_bytes() -> int:
    """Bytes to read: four times the last caches, but at most a quarter of the memory that is free."""
    cache, available = system.last_level_cache(), system.available_memory()
    least, usual, most = _BYTES
    wanted = usual if cache is None else min(max(4 * cache, least), most)
    return wanted if available is None else max(min(wanted, available // 4), 1 << 20)


def measure_read(isa: str, threads: Sequence[int], seconds: float) -> tuple[int, list[Rate]]:
    """Measures a plain read of memory, for about `seconds` for each of the numbers of threads.

    Returns:
        The bytes of the memory, several times the caches where there is room, and the rate for each number of threads.

    Raises:
        OutOfMemoryError: There is not even room for 16 MiB.
        ParameterError: There is no such instruction set.
    """
    return _read(isa, list(threads), seconds, _read_bytes())


def _read(isa: str, threads: list[int], seconds: float, size: int) -> tuple[int, list[Rate]]:
    try:
        return size, [Rate(*rate) for rate in _native.measure_read(isa, threads, size, seconds)]
    except OutOfMemoryError:
        # A limit that nothing tells of, such as that of the address space.
        if size < 2 * _LEAST_BYTES:
            raise
    return _read(isa, threads, seconds, size // 2)


def measure(*, isas: Iterable[str] | None = None, threads: Sequence[int] | None = None, seconds: float = 3.0) -> Roofs:
    """Measures this machine. Ctrl-C stops it within 100 ms.

    Args:
        isas: Instruction sets to measure besides the one in use, with one thread and with all; None: all.
        threads: Numbers of threads; None: those of `thread_counts`.
        seconds: Seconds in all, about. On a busy machine short measurements find no moment when all threads run.

    Raises:
        OutOfMemoryError: There is not even room for 16 MiB.
        ParameterError: There is no such instruction set.
    """
    counts = thread_counts() if threads is None else sorted(set(threads))
    chosen = chosen_isa()
    wanted = set(_native.available_isas() if isas is None else isas) | {chosen}
    size, reads = measure_read(chosen, counts, _MEMORY * seconds / len(counts))
    pairs = [
        (isa, count)
        for isa in _native.available_isas()
        if isa in wanted
        for count in (counts if isa == chosen else sorted({counts[0], counts[-1]}))
    ]
    compute = []
    for isa, count in pairs:
        # Each is two measurements.
        integer, floating = _native.measure_compute(isa, count, (1 - _MEMORY) * seconds / (2 * len(pairs)))
        compute.append(ComputeRoof(isa, count, Rate(*integer), Rate(*floating)))
    return Roofs(chosen, size, tuple(map(ReadRoof, counts, reads)), tuple(compute))


@dataclass(frozen=True)
class TokenCost:
    """What a token costs, from the header of a file.

    Attributes:
        weights: Bytes of weights that writing a token reads.
        kv_cache: Bytes of the KV cache that it reads, at the position that was asked for.
        layers: Operations with integers, and with floats, in the layers: what each token of a prompt needs.
        output: Those in the output matrix, which only tokens need whose successor is wanted.
    """

    weights: int
    kv_cache: int
    layers: tuple[int, int]
    output: tuple[int, int]

    def prompt(self, tokens: int) -> tuple[int, int]:
        """Operations, with integers and with floats, of a prompt of so many tokens."""
        return (tokens * self.layers[0] + self.output[0], tokens * self.layers[1] + self.output[1])

    def most_decoded(self, roofs: Roofs) -> float:
        """Tokens per second that cannot be exceeded when they are written one by one."""
        return roofs.bandwidth / (self.weights + self.kv_cache)

    def most_read(self, roofs: Roofs, tokens: int = 512) -> float:
        """Tokens per second that a prompt of so many tokens cannot exceed; attention is not counted."""
        return tokens / roofs.prompt_share(*self.prompt(tokens))


def token_cost(file: GGUFFile, *, kv_dtype: str = "f16", position: int = 0) -> TokenCost:
    """What a token at a position costs. Reads the header only.

    Raises:
        UnsupportedModelError: This version cannot run the file.
        ModelFormatError: The file is damaged.
        ParameterError: There is no such type of cache.
    """
    return TokenCost(*file._native.token_cost(kv_dtype, position))  # noqa: SLF001 - one package
