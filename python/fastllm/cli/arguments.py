"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastllm import _native
from fastllm.cli.progress import Bar
from fastllm.model import DEMO, Model
from fastllm.options import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Iterable

# Option, type, what it means. A flag has no type.
_SAMPLING: tuple[tuple[str, type | None, str], ...] = (
    ("max_tokens", int, "most tokens to make (default: until the model ends its text)"),
    ("temperature", float, "0: always the most likely token (default: 1)"),
    ("top_k", int, "keep this many tokens"),
    ("top_p", float, "keep the most likely tokens up to this probability"),
    ("min_p", float, "keep tokens at least this likely relative to the best"),
    ("typical_p", float, "keep the most typical tokens up to this probability"),
    ("repetition_penalty", float, "make tokens of prompt and output less likely (1: off)"),
    ("presence_penalty", float, "subtracted from the logits of tokens of the output"),
    ("frequency_penalty", float, "the same, times their number"),
    ("dry_multiplier", float, "scale of the DRY penalty on repeated sequences"),
    ("dry_base", float, "its growth with every token"),
    ("dry_allowed_length", int, "repetitions shorter than this are free"),
    ("dry_penalty_last_n", int, "tokens in which repetitions are looked for"),
    ("xtc_probability", float, "how often XTC removes the top choices"),
    ("xtc_threshold", float, "least probability of a top choice"),
    ("mirostat", int, "2: mirostat version 2"),
    ("mirostat_tau", float, "the surprise, in bits, that it aims at"),
    ("mirostat_eta", float, "how fast it adapts"),
    ("seed", int, "seed of the random numbers"),
    ("ignore_eos", None, "go on after the end of the text"),
    ("timeout", float, "seconds after which to stop"),
)
# What the output must be.
_FORMS = (
    ("json_schema", "a JSON schema that the output follows"),
    ("regex", "a regex that the output matches"),
    ("grammar", "a grammar, in GBNF or Lark, that the output follows"),
)


def add_loading(parser: argparse.ArgumentParser, *, threads: bool = True) -> None:
    """Adds the options of `Model`."""
    group = parser.add_argument_group("loading")
    if threads:
        group.add_argument("-t", "--threads", type=int, metavar="N", help="threads (default: one for each core)")
        group.add_argument(
            "--prefill-threads", type=int, metavar="N", help="threads for prompts (default: as --threads)"
        )
    group.add_argument("-c", "--context-length", type=int, metavar="N", help="most tokens (default: as trained)")
    group.add_argument(
        "--kv-dtype", default="f16", choices=_native.cache_types(), help="keys and values (default: f16)"
    )
    group.add_argument("--isa", default="auto", help="instruction set: auto, " + ", ".join(_native.available_isas()))
    group.add_argument("--no-cache", action="store_true", help="neither use nor write the cache of packed weights")
    if threads:
        group.add_argument(
            "--prefix-cache", type=int, metavar="N", help="bytes kept for requests that begin alike; 0: none"
        )
        group.add_argument("--no-speculate", action="store_true", help="do not guess tokens from the text before")
        group.add_argument("--draft", metavar="MODEL", help="a smaller model with the same vocabulary that guesses too")


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `SamplingParams`."""
    group = parser.add_argument_group("sampling")
    for name, kind, text in _SAMPLING:
        flags = ["-n"] if name == "max_tokens" else []
        flags.append("--" + name.replace("_", "-"))
        if kind is None:
            group.add_argument(*flags, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            group.add_argument(*flags, type=kind, metavar="X", default=argparse.SUPPRESS, help=text)
    group.add_argument(
        "--stop", action="append", metavar="TEXT", default=argparse.SUPPRESS, help="a text that ends the output"
    )
    for name, text in _FORMS:
        help_ = f"{text}; @FILE: what the file holds"
        group.add_argument("--" + name.replace("_", "-"), metavar="TEXT", default=argparse.SUPPRESS, help=help_)


def sampling(options: argparse.Namespace) -> SamplingParams:
    """The sampling options that were given."""
    names = [*(name for name, _, _ in _SAMPLING), "stop"]
    given: dict[str, Any] = {name: getattr(options, name) for name in names if hasattr(options, name)}
    forms: dict[str, Any] = {name: _text(getattr(options, name)) for name, _ in _FORMS if hasattr(options, name)}
    return SamplingParams(**given, **forms)


def _text(argument: str) -> str:
    return Path(argument[1:]).read_text(encoding="utf-8") if argument.startswith("@") else argument


def load(path: str | None, options: argparse.Namespace, threads: int | None = None) -> Model:
    """Loads a model, the embedded one where there is no path, with a progress bar on a terminal."""
    loading: dict[str, Any] = {
        "context_length": options.context_length,
        "threads": getattr(options, "threads", None) if threads is None else threads,
        "prefill_threads": getattr(options, "prefill_threads", None),
        "kv_dtype": options.kv_dtype,
        "isa": options.isa,
    }
    if hasattr(options, "prefix_cache"):
        loading |= {"prefix_cache": options.prefix_cache, "speculate": not options.no_speculate}
    draft = getattr(options, "draft", None)
    with Bar("loading", "bytes") as bar:
        if path is None and draft is None:
            return Model.demo(progress=bar, **loading)
        return Model(path or DEMO, cache=not options.no_cache, draft=draft, progress=bar, **loading)


def is_model(argument: str) -> bool:
    """Whether an argument that may be a model or a text is a model: it ends in .gguf, or is a file."""
    try:
        return argument.endswith(".gguf") or Path(argument).is_file()
    except (OSError, ValueError):  # too long or too odd for a path
        return False


def model_and_text(arguments: Iterable[str], path: str | None = None) -> tuple[str | None, str | None]:
    """Splits `[MODEL] TEXT…`; with a `path`, all is text. Without text: standard input, but None on a terminal."""
    words = list(arguments)
    if path is None and words and is_model(words[0]):
        path = words.pop(0)
    if words:
        return path, " ".join(words)
    return path, None if sys.stdin.isatty() else sys.stdin.read()


def usage_error(parser: argparse.ArgumentParser, message: str) -> int:
    """Says what is wrong with the arguments; the exit code for it."""
    parser.print_usage(sys.stderr)
    print(f"{parser.prog}: error: {message}", file=sys.stderr)
    return 2
