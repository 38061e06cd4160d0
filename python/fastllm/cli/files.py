"""`fastllm inspect`, `plan` and `tokenize`: what is in a file."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from fastllm import _native
from fastllm.cli import arguments
from fastllm.gguf import GGUFFile, MetadataValue
from fastllm.model import DEMO
from fastllm.plan import plan
from fastllm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable

# Characters of a value, elements of an array, before it is cut.
_SHOWN = 60
_ELEMENTS = 6


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands."""
    parser = commands.add_parser(
        "inspect",
        help="show what a file holds",
        description="Shows metadata and tensors of a GGUF file of any architecture.",
    )
    parser.add_argument("model", metavar="MODEL", help="a GGUF file")
    parser.add_argument("--tensors", action="store_true", help="list the tensors too")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.set_defaults(run=run_inspect)

    parser = commands.add_parser(
        "plan", help="show how much memory a model needs", description="Plans memory from the header of a file alone."
    )
    parser.add_argument("model", metavar="MODEL", help="a GGUF file")
    parser.add_argument(
        "-c", "--context-length", type=int, metavar="N", help="tokens of a sequence (default: as trained)"
    )
    parser.add_argument(
        "--kv-dtype", default="f16", choices=_native.cache_types(), help="keys and values (default: f16)"
    )
    parser.add_argument("-b", "--batch", type=int, default=1, metavar="N", help="sequences at a time (default: 1)")
    parser.add_argument("--json", action="store_true", help="as JSON, in bytes")
    parser.set_defaults(run=run_plan)

    parser = commands.add_parser(
        "tokenize",
        help="show the tokens of a text",
        usage="fastllm tokenize [options] [MODEL] [TEXT ...]",
        description="Shows the tokens of a text. Without MODEL, the embedded demo model; without TEXT, standard input.",
    )
    arguments.add_text(parser, "TEXT")
    parser.add_argument("--ids", action="store_true", help="ids only, on one line")
    parser.add_argument("--no-special", action="store_true", help="without the tokens that begin and end a text")
    parser.add_argument("--parse-special", action="store_true", help="texts of control tokens become these tokens")
    parser.set_defaults(run=run_tokenize, parser=parser)


def run_inspect(options: argparse.Namespace) -> int:
    """Runs the command."""
    file = GGUFFile(arguments.model_file(options.model))
    if options.json:
        tensors = [{"name": t.name, "shape": t.shape, "dtype": t.dtype, "bytes": t.bytes} for t in file.tensors]
        everything = {"path": file.path, "version": file.version, "bytes": file.bytes, "parameters": file.parameters}
        print(json.dumps({**everything, "metadata": dict(file.metadata), "tensors": tensors}, default=_jsonable))
        return 0
    types = ", ".join(f"{dtype} x {count}" for dtype, count in file.dtypes.items())
    facts: list[tuple[str, str]] = [
        ("file", f"{file.path} (GGUF {file.version}, {gibibytes(file.bytes)})"),
        ("architecture", str(file.architecture)),
        ("parameters", f"{file.parameters:,}"),
        ("tensors", f"{len(file.tensors)} ({types})"),
    ]
    print_columns(facts)
    print()
    print_columns((key, _short(value)) for key, value in file.metadata.items())
    if options.tensors:
        print()
        print_columns((t.name, f"{t.dtype:8} {' x '.join(map(str, t.shape))}") for t in file.tensors)
    return 0


def run_plan(options: argparse.Namespace) -> int:
    """Runs the command."""
    memory = plan(
        arguments.model_file(options.model),
        context_length=options.context_length,
        kv_dtype=options.kv_dtype,
        batch=options.batch,
    )
    parts = {
        "weights": memory.weights,
        "kv_cache": memory.kv_cache,
        "scratch": memory.scratch,
        "other": memory.other,
        "total": memory.total,
    }
    if options.json:
        settings = {"context_length": memory.context_length, "kv_dtype": memory.kv_dtype, "batch": memory.batch}
        print(json.dumps({**parts, **settings, "available": memory.available, "fits": memory.fits}))
        return 0
    print_columns((name, gibibytes(size)) for name, size in parts.items())
    print_columns([("for", f"{memory.batch} x {memory.context_length} tokens, keys and values as {memory.kv_dtype}")])
    if memory.available is not None:
        print_columns([("available", f"{gibibytes(memory.available)}: it {'fits' if memory.fits else 'does not fit'}")])
    return 0


def run_tokenize(options: argparse.Namespace) -> int:
    """Runs the command."""
    try:
        path, text = arguments.model_and_text(options)
    except arguments.UsageError as error:
        return arguments.usage_error(options.parser, str(error))
    if path is None:
        arguments.announce_demo()
    tokenizer = Tokenizer.from_gguf(DEMO if path is None else path)
    ids = tokenizer.encode(text, add_special=not options.no_special, parse_special=options.parse_special)
    if options.ids:
        print(*ids)
    else:
        for id_ in ids:
            print(f"{id_:>8}  {_shown(tokenizer.token_bytes(id_))}")
        print(f"{len(ids)} tokens")
    return 0


def _shown(piece: bytes) -> str:
    """The text of a token in quotes; where it is a part of a character, its bytes."""
    try:
        return repr(piece.decode("utf-8"))
    except UnicodeDecodeError:
        return repr(piece)


def print_columns(rows: Iterable[tuple[str, str]]) -> None:
    """Prints names and values."""
    rows = list(rows)
    width = max([14, *(len(name) for name, _ in rows)])
    for name, value in rows:
        print(f"{name:{width}}  {value}")


def gibibytes(size: int) -> str:
    """A size to read."""
    for unit, letter in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size >= unit:
            return f"{size / unit:.2f} {letter}"
    return f"{size} B"


def _short(value: MetadataValue) -> str:
    if isinstance(value, list):
        shown = ", ".join(_short(element) for element in value[:_ELEMENTS])
        return f"[{shown}]" if len(value) <= _ELEMENTS else f"[{shown}, ...] ({len(value)})"
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text)} characters)"


def _jsonable(value: Any) -> str:
    """Bytes that are not UTF-8."""
    return bytes(value).decode("utf-8", errors="replace")
