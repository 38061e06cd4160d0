"""`fastllm bench`: the speed of a model, reported as llama-bench does."""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import fastllm
from fastllm import system
from fastllm.bench import BenchResult, bench
from fastllm.cli import arguments
from fastllm.cli.files import gibibytes
from fastllm.gguf import GGUFFile
from fastllm.model import DEMO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastllm.model import Model


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
        description="Measures prompts (pp) and decoding (tg) with random tokens. Lists (-p 128,512) give a test each.",
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    rows = _measure(options)
    if options.output == "json":
        print(json.dumps([_fields(model, result) for model, result in rows], indent=2))
    elif options.output == "csv":
        writer: Any = None
        for model, result in rows:
            fields = {name: value for name, value in _fields(model, result).items() if not isinstance(value, list)}
            if writer is None:
                writer = csv.DictWriter(sys.stdout, list(fields), quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
                writer.writeheader()
            writer.writerow(fields)
            sys.stdout.flush()
    else:
        _table(rows)
    return 0


def _measure(options: argparse.Namespace) -> Iterator[tuple[Model, BenchResult]]:
    tests = [{"n_prompt": n} for n in options.n_prompt if n] + [{"n_gen": n} for n in options.n_gen if n]
    longest = max(options.n_depth) + max(*options.n_prompt, *options.n_gen)
    if options.context_length is None:
        # As in llama-bench, tests may be longer than what the model was trained for.
        options.context_length = max(longest, _trained_length(options.model))
    for threads in options.threads or [None]:
        model = arguments.load(options.model, options, threads)
        for depth, batch, test in itertools.product(options.n_depth, options.batch, tests):
            yield model, bench(model, n_depth=depth, n_parallel=batch, repetitions=options.repetitions, **test)


def _trained_length(path: str | None) -> int:
    file = GGUFFile(DEMO if path is None else path)
    length = file.metadata.get(f"{file.architecture}.context_length")
    return length if isinstance(length, int) else 1


def _fields(model: Model, result: BenchResult) -> dict[str, Any]:
    """Under the names of llama-bench, and some of our own."""
    return {
        "build_commit": fastllm.__version__,
        "cpu_info": system.cpu_name(),
        "backends": model.isa,
        "model_filename": model.path,
        "model_type": _type(model),
        "model_size": sum(tensor.bytes for tensor in model.tensors),
        "model_n_params": model.parameters,
        "n_threads": model.prefill_threads if result.n_prompt else model.threads,
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
        "samples_ns": list(result.samples_ns),
        "samples_ts": list(result.samples_ts),
    }


def _type(model: Model) -> str:
    return f"{model.architecture} {next(iter(model._file.dtypes), '')}"  # noqa: SLF001 - one package


def _table(rows: Iterator[tuple[Model, BenchResult]]) -> None:
    head = ("model", "size", "params", "isa", "threads", "test", "t/s", "GB/s", "GOP/s")
    widths = (20, 10, 9, 12, 7, 16, 20, 7, 8)
    for cells in (head, ["-" * (width - 1) + ":" for width in widths]):
        print("| " + " | ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)) + " |")
    for model, result in rows:
        fields = _fields(model, result)
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
        )
        print(
            "| " + " | ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)) + " |", flush=True
        )
