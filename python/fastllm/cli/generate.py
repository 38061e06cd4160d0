"""`fastllm generate`: continues a text."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from fastllm.cli import arguments, record
from fastllm.cli.progress import Bar
from fastllm.options import SamplingParams

if TYPE_CHECKING:
    from fastllm.results import ChatReply, Generation


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "generate",
        help="continue a text",
        usage="fastllm generate [options] [MODEL] [PROMPT ...]",
        description="Continues a text. Without MODEL, the embedded demo model; without PROMPT, standard input.",
        epilog="The first argument is the model if it ends in .gguf or is a file; with --model, all are the prompt. A "
        "first argument that looks like a model but is no file is refused.",
    )
    arguments.add_text(parser, "PROMPT")
    arguments.add_prompt(parser)
    parser.add_argument("--stats", action="store_true", help="report counts and speed on standard error")
    record.add_to(parser)
    arguments.add_loading(parser)
    arguments.add_sampling(parser)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    try:
        path, prompt = arguments.model_and_text(options)
    except arguments.UsageError as error:
        return arguments.usage_error(options.parser, str(error))
    chosen = arguments.given_sampling(options)
    model = arguments.load(path, options)
    params = SamplingParams(**{**model.default_sampling, **chosen})
    with (
        Bar("reading the prompt", "tokens") as bar,
        model.stream(prompt, params, progress=bar, parse_special=options.parse_special) as stream,
    ):
        for chunk in stream:
            bar.close()
            sys.stdout.write(chunk.text)
            sys.stdout.flush()
        result = stream.result()
    sys.stdout.write("\n")
    record.request(options, "generate", model, result)
    if options.stats:
        report(result)
    return 0


def report(result: Generation | ChatReply) -> None:
    """Writes counts and speed to standard error."""
    usage, timings = result.usage, result.timings
    print(
        f"{usage.prompt_tokens} tokens read at {timings.prompt_tokens_per_second:.1f}/s, "
        f"{usage.completion_tokens} written at {timings.decode_tokens_per_second:.1f}/s "
        f"({timings.gigabytes_per_second:.1f} GB/s), {result.finish_reason}",
        file=sys.stderr,
    )
