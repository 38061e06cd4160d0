"""`fastllm bench`: the speed of a model, reported as llama-bench does."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import fastllm
from fastllm import _native, roofline, system
from fastllm.bench import BenchResult, bench
from fastllm.cli import arguments, record
from fastllm.cli.files import gibibytes
from fastllm.gguf import GGUFFile
from fastllm.model import DEMO
from fastllm.roofline import ComputeRoof, Rate, ReadRoof, Roofs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastllm.model import Model


# Seconds after which the machine is measured again, and for each of the three measurements.
_FRESH = 15.0
_MEASURE = 0.2


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers such as 128,512") from None
    if min(numbers) < 0:
        raise argparse.ArgumentTypeError("numbers must not be negative")
    return numbers


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "bench",
        help="measure speed",
        description="Measures prompts (pp) and decoding (tg) with random tokens. Lists (-p 128,512) give a test each. "
        "The last column is the share of what this machine can do at most with as many threads, measured in the same "
        "minute: reading memory when decoding, arithmetic for prompts.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a GGUF file (default: the embedded demo model)")
    parser.add_argument(
        "-p", "--n-prompt", type=_numbers, default=[512], metavar="N", help="tokens of a prompt; 0: none (default: 512)"
    )
    parser.add_argument(
        "-n", "--n-gen", type=_numbers, default=[128], metavar="N", help="tokens to make; 0: none (default: 128)"
    )
    parser.add_argument(
        "-d", "--n-depth", type=_numbers, default=[0], metavar="N", help="tokens before the test (default: 0)"
    )
    parser.add_argument(
        "-b", "--batch", type=_numbers, default=[1], metavar="N", help="sequences at a time (default: 1)"
    )
    parser.add_argument(
        "-t", "--threads", type=_numbers, default=None, metavar="N", help="threads (default: one for each core)"
    )
    parser.add_argument("-r", "--repetitions", type=int, default=5, metavar="N", help="repetitions (default: 5)")
    parser.add_argument("-o", "--output", default="table", choices=["table", "json", "csv"], help="(default: table)")
    arguments.add_loading(parser, threads=False)
    record.add_to(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    if options.model is not None:
        arguments.model_file(options.model)
    rows = _measure(options)
    if options.output == "json":
        print(json.dumps([_fields(row) for row in rows], indent=2))
    elif options.output == "csv":
        writer: Any = None
        for row in rows:
            fields = {name: value for name, value in _fields(row).items() if not isinstance(value, list)}
            if writer is None:
                writer = csv.DictWriter(sys.stdout, list(fields), quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
                writer.writeheader()
            writer.writerow(fields)
            sys.stdout.flush()
    else:
        _table(rows)
    return 0


@dataclass(frozen=True)
class _Row:
    """A test, with the model and the roofs of the same minute."""

    model: Model
    result: BenchResult
    roofs: Roofs

    @property
    def threads(self) -> int:
        return self.model.prefill_threads if self.result.n_prompt else self.model.threads

    @property
    def share(self) -> float | None:
        """Of the roof that bounds the test; None where memory does not: the weights stay in the caches."""
        seconds, result = self.result.avg_ns / 1e9, self.result
        if result.n_prompt:
            return self.roofs.prompt_share(result.integer_operations / seconds, result.float_operations / seconds)
        cache = system.last_level_cache()
        if cache is not None and self.model.weight_bytes <= cache:
            return None
        return self.roofs.decode_share(result.bytes_read / seconds)


class _Machine:
    """Roofs by instruction set and number of threads, measured again when they are old: neighbours come and go."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[float, Roofs]] = {}

    def roofs(self, isa: str, threads: int) -> Roofs:
        when, roofs = self._known.get((isa, threads), (-_FRESH, None))
        if roofs is None or time.monotonic() - when > _FRESH:
            size, [read] = roofline.measure_read(isa, [threads], _MEASURE)
            integer, floating = (Rate(*rate) for rate in _native.measure_compute(isa, threads, _MEASURE))
            roofs = Roofs(isa, size, (ReadRoof(threads, read),), (ComputeRoof(isa, threads, integer, floating),))
            self._known[isa, threads] = (time.monotonic(), roofs)
        return roofs


def _measure(options: argparse.Namespace) -> Iterator[_Row]:
    tests = [{"n_prompt": n} for n in options.n_prompt if n] + [{"n_gen": n} for n in options.n_gen if n]
    longest = max(options.n_depth) + max(*options.n_prompt, *options.n_gen)
    if options.context_length is None:
        # As in llama-bench, tests may be longer than what the model was trained for.
        options.context_length = max(longest, _trained_length(options.model))
    machine = _Machine()
    for threads in options.threads or [None]:
        model = arguments.load(options.model, options, threads)
        results = []
        for depth, batch, test in itertools.product(options.n_depth, options.batch, tests):
            roofs = machine.roofs(model.isa, model.prefill_threads if "n_prompt" in test else model.threads)
            result = bench(model, n_depth=depth, n_parallel=batch, repetitions=options.repetitions, **test)
            results.append(result)
            yield _Row(model, result, roofs)
        if not options.no_record:
            record.tests(model, results)


def _trained_length(path: str | None) -> int:
    file = GGUFFile(DEMO if path is None else path)
    length = file.metadata.get(f"{file.architecture}.context_length")
    return length if isinstance(length, int) else 1


def _fields(row: _Row) -> dict[str, Any]:
    """Under the names of llama-bench, and some of our own."""
    model, result, roofs = row.model, row.result, row.roofs
    return {
        "build_commit": fastllm.__version__,
        "cpu_info": system.cpu_name(),
        "backends": model.isa,
        "model_filename": model.path,
        "model_type": _type(model),
        "model_size": sum(tensor.bytes for tensor in model.tensors),
        "model_n_params": model.parameters,
        "n_threads": row.threads,
        "type_k": model.kv_dtype,
        "type_v": model.kv_dtype,
        "n_prompt": result.n_prompt,
        "n_gen": result.n_gen,
        "n_depth": result.n_depth,
        "n_parallel": result.n_parallel,
        "test_time": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "avg_ns": round(result.avg_ns),
        "stddev_ns": round(result.stddev_ns),
        "avg_ts": result.avg_ts,
        "stddev_ts": result.stddev_ts,
        "gigabytes_per_second": result.gigabytes_per_second,
        "gigaops_per_second": result.gigaops_per_second,
        "roof_gigabytes_per_second": roofs.bandwidth / 1e9,
        "roof_gigaops_per_second": roofs.integer / 1e9,
        "roof_float_gigaops_per_second": roofs.floating / 1e9,
        "share_of_roof": row.share,
        "samples_ns": list(result.samples_ns),
        "samples_ts": list(result.samples_ts),
    }


def _type(model: Model) -> str:
    return f"{model.architecture} {next(iter(model._file.dtypes), '')}"  # noqa: SLF001 - one package


def _table(rows: Iterator[_Row]) -> None:
    head = ("model", "size", "params", "isa", "threads", "test", "t/s", "GB/s", "GOP/s", "of roof")
    widths = (20, 10, 9, 12, 7, 16, 20, 7, 8, 7)
    for cells in (head, ["-" * (width - 1) + ":" for width in widths]):
        print("| " + " | ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)) + " |")
    for row in rows:
        model, result, fields, share = row.model, row.result, _fields(row), row.share
        cells = (
            fields["model_type"],
            gibibytes(fields["model_size"]),
            f"{model.parameters / 1e9:.2f} B" if model.parameters >= 10**9 else f"{model.parameters / 1e6:.2f} M",
            model.isa,
            str(fields["n_threads"]),
            result.name,
            f"{result.avg_ts:.2f} ± {result.stddev_ts:.2f}",
            f"{result.gigabytes_per_second:.1f}",
            f"{result.gigaops_per_second:.1f}",
            "-" if share is None else f"{100 * share:.0f} %",
        )
        print(
            "| " + " | ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)) + " |", flush=True
        )
