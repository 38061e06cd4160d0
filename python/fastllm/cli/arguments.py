"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from fastllm import _native
from fastllm.cli import names, texts
from fastllm.cli.progress import Bar
from fastllm.errors import ModelFileNotFoundError
from fastllm.model import DEMO, Model
from fastllm.options import SamplingParams

# What the embedded model is called.
DEMO_NAME = "fastllm-tiny"

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
    ("seed", int, "seed of the random numbers (default, or negative: a different one each time)"),
    ("ignore_eos", None, "go on after the end of the text"),
    ("timeout", float, "seconds after which to stop"),
)
# The types of the options; None: a flag.
SAMPLING_TYPES: dict[str, type | None] = {name: kind for name, kind, _ in _SAMPLING}
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


def given_sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The sampling options that were given, checked."""
    given: dict[str, Any] = {name: getattr(options, name) for name, _, _ in _SAMPLING if hasattr(options, name)}
    if hasattr(options, "stop"):
        given["stop"] = [texts.argument(text, "--stop") for text in options.stop]
    forms: dict[str, Any] = {name: _text(name, getattr(options, name)) for name, _ in _FORMS if hasattr(options, name)}
    given |= forms
    SamplingParams(**given)
    return given


def _text(name: str, argument: str) -> str:
    if argument.startswith("@"):
        return texts.read_file(argument[1:])
    return texts.argument(argument, "--" + name.replace("_", "-"))


def add_prompt(parser: argparse.ArgumentParser) -> None:
    """Adds the option that says how text prompts are read."""
    parser.add_argument(
        "--no-parse-special",
        dest="parse_special",
        action="store_false",
        help="texts of control tokens in the prompt, such as <|im_end|>, stay text (for untrusted prompts)",
    )


def announce_demo() -> None:
    """Says that the embedded model runs, where the user has named none."""
    print(f"fastllm: no MODEL is given: using the embedded demo model, {DEMO_NAME}", file=sys.stderr, flush=True)


def model_file(path: str) -> str:
    """The path, if it is there.

    Raises:
        ModelFileNotFoundError: It is not; the message says what to do.
    """
    if not Path(path).exists() and names.looks_like_model([path]) and not path.endswith(".gguf"):
        raise ModelFileNotFoundError(f"there is no model file {path!r}: {names.WHAT_TO_DO}")
    return path


def load(path: str | None, options: argparse.Namespace, threads: int | None = None, *, announce: bool = True) -> Model:
    """Loads a model with a progress bar on a terminal; without a path the embedded one, which is announced."""
    if path is not None:
        model_file(path)
    elif announce:
        announce_demo()
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
    if draft is not None:
        model_file(draft)
    with Bar("loading", "bytes") as bar:
        if path is None and draft is None:
            return Model.demo(progress=bar, **loading)
        return Model(path or DEMO, cache=not options.no_cache, draft=draft, progress=bar, **loading)


def add_text(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `[MODEL] [TEXT ...]`, and the options that say which is which."""
    parser.add_argument("words", nargs="*", metavar=f"MODEL {what}", help="a GGUF file, and the text")
    parser.add_argument("-m", "--model", metavar="FILE", help="a GGUF file; all words are then the text")
    parser.add_argument(
        "-p", "--prompt", metavar="TEXT", help="the text, whatever it looks like; @FILE: that of a file"
    )


def model_and_text(options: argparse.Namespace) -> tuple[str | None, str]:
    """Splits `[MODEL] [TEXT ...]`. Without a text: standard input, unless that is a terminal.

    Raises:
        UsageError: There is no text, or its first word was meant as a model.
    """
    words, path = list(options.words), options.model
    if path is None and words and names.is_file(words[0]):
        path = words.pop(0)
    if options.prompt is not None:
        if words:
            raise UsageError(f"--prompt is the text, so that {words[0]!r} should be a model file, and there is none")
        return path, _text("prompt", options.prompt)
    if words:
        if path is None and names.looks_like_model(words):
            raise UsageError(
                f"there is no model file {words[0]!r}: {names.WHAT_TO_DO}; if it begins the text, write --prompt TEXT"
            )
        return path, texts.argument(" ".join(words), "the text")
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("there is no text: give it as an argument, or on standard input")
    return path, texts.read_stdin()


class UsageError(Exception):
    """The arguments contradict each other, or one is missing."""


def usage_error(parser: argparse.ArgumentParser, message: str) -> int:
    """Says what is wrong with the arguments; the exit code for it."""
    parser.print_usage(sys.stderr)
    print(f"{parser.prog}: error: {message}", file=sys.stderr)
    return 2
