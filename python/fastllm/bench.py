"""Speed of forward passes alone: what llama-bench measures, under its names."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastllm import _native
from fastllm.errors import ParameterError
from fastllm.roofline import token_cost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastllm.model import Model

__all__ = ["BenchResult", "bench"]

_Row = tuple[int, int, int, bool]


@dataclass(frozen=True)
class BenchResult:
    """One test: `n_prompt` tokens read, or `n_gen` tokens made one after the other, at a depth of `n_depth` tokens.

    Attributes:
        n_prompt: Tokens of a prompt; 0 in a test of decoding.
        n_gen: Tokens made; 0 in a test of prompts.
        n_depth: Tokens of each sequence before the test.
        n_parallel: Sequences at a time.
        samples_ns: Nanoseconds of each repetition.
        bytes_read: Bytes of weights and KV cache that one repetition reads.
        integer_operations: Multiplications and additions that one repetition does in quantized weights.
        float_operations: Those in weights that are stored as floats.
    """

    n_prompt: int
    n_gen: int
    n_depth: int
    n_parallel: int
    samples_ns: tuple[int, ...]
    bytes_read: int
    integer_operations: int
    float_operations: int

    @property
    def name(self) -> str:
        """As llama-bench writes it, such as "pp512" or "tg128 @ d4096"."""
        test = f"pp{self.n_prompt}" if self.n_prompt else f"tg{self.n_gen}"
        parallel = f" x{self.n_parallel}" if self.n_parallel > 1 else ""
        return test + parallel + (f" @ d{self.n_depth}" if self.n_depth else "")

    @property
    def tokens(self) -> int:
        """Tokens of one repetition."""
        return (self.n_prompt + self.n_gen) * self.n_parallel

    @property
    def samples_ts(self) -> tuple[float, ...]:
        """Tokens per second of each repetition."""
        return tuple(self.tokens * 1e9 / ns for ns in self.samples_ns)

    @property
    def operations(self) -> int:
        """Multiplications and additions in the weights that one repetition does."""
        return self.integer_operations + self.float_operations

    @property
    def avg_ns(self) -> float:
        """Mean of the nanoseconds."""
        return statistics.fmean(self.samples_ns)

    @property
    def stddev_ns(self) -> float:
        """Their standard deviation."""
        return statistics.stdev(self.samples_ns) if len(self.samples_ns) > 1 else 0.0

    @property
    def avg_ts(self) -> float:
        """Mean of the tokens per second."""
        return statistics.fmean(self.samples_ts)

    @property
    def stddev_ts(self) -> float:
        """Their standard deviation."""
        return statistics.stdev(self.samples_ts) if len(self.samples_ts) > 1 else 0.0

    @property
    def gigabytes_per_second(self) -> float:
        """10^9 bytes of weights and KV cache read per second."""
        return self.bytes_read / self.avg_ns

    @property
    def gigaops_per_second(self) -> float:
        """10^9 multiplications and additions in the weights per second."""
        return self.operations / self.avg_ns


def bench(
    model: Model, *, n_prompt: int = 0, n_gen: int = 0, n_depth: int = 0, n_parallel: int = 1, repetitions: int = 5
) -> BenchResult:
    """Measures prompts of random tokens (`n_prompt`) or decoding (`n_gen`), after one run to warm up.

    Raises:
        ParameterError: Not exactly one of `n_prompt` and `n_gen` is above 0, or a number is out of range.
    """
    if (n_prompt > 0) == (n_gen > 0) or min(n_prompt, n_gen, n_depth) < 0:
        raise ParameterError("either n_prompt or n_gen must be above 0")
    decoder = _native.Decoder(model._open())  # noqa: SLF001 - one package
    if not 1 <= n_parallel <= decoder.max_rows or repetitions < 1:
        raise ParameterError(f"n_parallel must be 1 to {decoder.max_rows}, repetitions at least 1")
    samples = []
    bytes_read = 0
    for repetition in range(repetitions + 1):
        sequences = [decoder.open() for _ in range(n_parallel)]
        tokens = random.Random(repetition)  # noqa: S311 - nothing is secret
        before = [(s, at) for s in sequences for at in range(n_depth)]
        decoder.run(list(_prompts(before, n_depth, model.vocab_size, tokens, decoder.max_rows)))
        if n_prompt:
            rows = [(s, n_depth + at) for s in sequences for at in range(n_prompt)]
            passes = list(_prompts(rows, n_depth + n_prompt, model.vocab_size, tokens, decoder.max_rows))
        else:
            passes = [
                [(s, n_depth + at, tokens.randrange(model.vocab_size), True) for s in sequences] for at in range(n_gen)
            ]
        seconds, bytes_read = decoder.run(passes)
        for sequence in sequences:
            decoder.close(sequence)
        if repetition > 0:
            samples.append(max(round(seconds * 1e9), 1))
    cost = token_cost(model._file)  # noqa: SLF001
    # Logits are wanted after the last token of a prompt, and after every token that is made.
    integer, floating = cost.prompt(n_prompt) if n_prompt else (n_gen * x for x in cost.prompt(1))
    operations = (integer * n_parallel, floating * n_parallel)
    return BenchResult(n_prompt, n_gen, n_depth, n_parallel, tuple(samples), bytes_read, *operations)


def _prompts(
    rows: list[tuple[int, int]], end: int, vocab_size: int, tokens: random.Random, most: int
) -> Iterator[list[_Row]]:
    """Random tokens for rows (sequence, position), in full passes; logits after the last position of a sequence."""
    for first in range(0, len(rows), most):
        yield [(s, at, tokens.randrange(vocab_size), at + 1 == end) for s, at in rows[first : first + most]]
