"""Leaves the record of a run that `fastllm doctor` compares with the machine: numbers only, see `fastllm.last_run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastllm import last_run, roofline
from fastllm.last_run import LastRun, Speed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from fastllm.bench import BenchResult
    from fastllm.model import Model
    from fastllm.results import ChatReply, Generation


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds the option that turns it off."""
    parser.add_argument("--no-record", action="store_true", help="leave no record of the speed for fastllm doctor")


def request(options: argparse.Namespace, command: str, model: Model, result: Generation | ChatReply) -> None:
    """Of a request."""
    if options.no_record:
        return
    usage, timings = result.usage, result.timings
    read, written = usage.prompt_tokens - usage.cached_tokens, max(usage.completion_tokens - 1, 0)
    integer, floating = roofline.token_cost(model._file).prompt(read)  # noqa: SLF001 - one package
    seconds = timings.prompt_seconds
    speeds = []
    if read > 0 < seconds:
        rate, operations = timings.prompt_tokens_per_second, (integer / seconds, floating / seconds)
        speeds.append(Speed(f"prompt of {read}", "prompt", read, model.prefill_threads, rate, 0.0, *operations))
    if written > 0:
        rate, read_rate = timings.decode_tokens_per_second, timings.gigabytes_per_second * 1e9
        speeds.append(Speed(f"{written} written", "decode", written, model.threads, rate, read_rate))
    _save(command, model, speeds)


def tests(model: Model, results: Iterable[BenchResult]) -> None:
    """Of tests of one model."""
    speeds = []
    for result in results:
        kind, threads = ("prompt", model.prefill_threads) if result.n_prompt else ("decode", model.threads)
        seconds = result.avg_ns / 1e9
        rates = (result.integer_operations / seconds, result.float_operations / seconds)
        speeds.append(
            Speed(result.name, kind, result.tokens, threads, result.avg_ts, result.bytes_read / seconds, *rates)
        )
    _save("bench", model, speeds)


def _save(command: str, model: Model, speeds: list[Speed]) -> None:
    last_run.save(LastRun(command, Path(model.path).name, model.isa, model.weight_bytes, tuple(speeds)))
