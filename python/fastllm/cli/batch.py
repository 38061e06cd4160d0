"""`fastllm batch`: answers a file of requests."""

from __future__ import annotations

import argparse
import sys

from fastllm.batch import run_batch
from fastllm.batch.run import WINDOW
from fastllm.cli import arguments
from fastllm.cli.files import print_columns
from fastllm.cli.progress import Bar

FAILED = 1


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "batch",
        help="answer a file of requests",
        description="Answers a file of requests: OpenAI's batch format, or objects with a prompt or messages and "
        "options, as JSON lines or Parquet. The same command again goes on where an earlier one was stopped.",
        epilog="Sampling options hold for requests that do not set them. The exit code is 1 if a request failed.",
    )
    parser.add_argument("input", metavar="IN", help="requests: .parquet, or else JSON lines")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="answers: .jsonl or .parquet")
    parser.add_argument("-m", "--model", metavar="FILE", help="a GGUF file (default: the embedded demo model)")
    parser.add_argument("--model-name", metavar="NAME", help="the `model` of the requests (default: the file's name)")
    parser.add_argument(
        "--window", type=int, default=WINDOW, metavar="N", help=f"requests in flight (default: {WINDOW})"
    )
    arguments.add_prompt(parser)
    arguments.add_loading(parser)
    arguments.add_sampling(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    chosen = arguments.given_sampling(options)
    model = arguments.load(options.model, options)
    with Bar("answering", "requests") as bar:
        report = run_batch(
            model,
            options.input,
            options.output,
            window=options.window,
            model_name=options.model_name,
            parse_special=options.parse_special,
            progress=bar,
            **chosen,
        )
    print_columns(
        [
            ("requests", f"{report.requests}, {report.resumed} answered before"),
            ("failed", str(report.failed)),
            ("read", f"{report.prompt_tokens} tokens, {report.prompt_tokens_per_second:.1f}/s"),
            ("written", f"{report.completion_tokens} tokens, {report.completion_tokens_per_second:.1f}/s"),
            ("seconds", f"{report.seconds:.1f}"),
        ]
    )
    if report.failed:
        print(f"fastllm: {report.failed} requests failed; see their errors in {options.output}", file=sys.stderr)
        return FAILED
    return 0
