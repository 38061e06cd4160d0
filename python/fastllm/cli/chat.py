"""`fastllm chat`: a conversation in the terminal."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastllm.cli import arguments, record, texts
from fastllm.cli.conversation import Conversation
from fastllm.cli.terminal import Leave, open_reader
from fastllm.errors import FastLLMError
from fastllm.model import DEMO

if TYPE_CHECKING:
    from fastllm.model import Model

INTERRUPTED = 130


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "chat",
        help="talk with a model",
        description="A conversation, with the chat template of the file. Without MODEL, the embedded demo model. "
        "Sampling is what the file recommends (general.sampling.*), or else temperature 0.7 and top-p 0.95.",
        epilog="Lines that come through a pipe are answered one by one. On a terminal, /help lists the commands; with "
        "the extra chat (pip install 'fastllm[chat]') Tab completes them, and pasted lines stay one message.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a GGUF file")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told first")
    parser.add_argument("--stats", action="store_true", help="report counts and speed on standard error")
    record.add_to(parser)
    arguments.add_loading(parser)
    arguments.add_sampling(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    if options.system is not None:
        options.system = texts.argument(options.system, "--system")
    chosen = arguments.given_sampling(options)
    interactive = sys.stdin is not None and sys.stdin.isatty()
    model = arguments.load(options.model, options, announce=not interactive)
    conversation = Conversation(model, chosen, options, interactive=interactive)
    if not interactive:
        return _answer_lines(conversation)
    print(_greeting(model))
    return _talk(conversation)


def _greeting(model: Model) -> str:
    name = Path(model.path).stem if model.path != str(DEMO) else f"{arguments.DEMO_NAME}, the demo model"
    size = f"{model.parameters / 1e9:.1f}B" if model.parameters >= 10**9 else f"{model.parameters / 1e6:.0f}M"
    dtype = next(iter(model._file.dtypes), "")  # noqa: SLF001 - one package
    return f"{name} ({size}, {dtype}, {model.isa}, {model.threads} threads). /help lists the commands, Ctrl-D leaves."


def _answer_lines(conversation: Conversation) -> int:
    """Answers the lines of a pipe. What is wrong ends it."""
    for line in texts.lines():
        if not conversation.take(line.strip()):
            break
    return 0


def _talk(conversation: Conversation) -> int:
    """Talks with a person on a terminal. Ctrl-C clears what is being typed, and leaves where there is nothing."""
    reader = open_reader(conversation.completions)
    interrupted = False
    while True:
        try:
            text = texts.argument(reader.read(), "the message").strip()
            interrupted = False
            if not conversation.take(text):
                return 0
        except EOFError:  # noqa: PERF203 - a person types
            return 0
        except Leave:
            return INTERRUPTED
        except KeyboardInterrupt:
            if interrupted:
                print()
                return INTERRUPTED
            print("\n(Ctrl-C again, Ctrl-D or /quit leaves)")
            interrupted = True
        except (FastLLMError, OSError) as error:
            print(str(error).partition("\n")[0], file=sys.stderr)
