"""`fastllm chat`: a conversation in the terminal."""

from __future__ import annotations

import argparse
import contextlib
import sys
from typing import TYPE_CHECKING, Any

from fastllm.cli import arguments, generate, record
from fastllm.cli.progress import Bar
from fastllm.errors import ContextOverflowError, TemplateError

if TYPE_CHECKING:
    from fastllm.model import Model
    from fastllm.options import SamplingParams
    from fastllm.results import ChatChunk

_HELP = """/reset         forget the conversation
/system TEXT   set what the model is told first, and forget the conversation; without TEXT: nothing
/quit          leave (also Ctrl-D)
Ctrl-C         stop an answer"""

_FAINT, _NORMAL = "\x1b[2m", "\x1b[0m"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "chat",
        help="talk with a model",
        description="A conversation, with the chat template of the file. Without MODEL, the embedded demo model.",
        epilog="Lines that come through a pipe are answered one by one. On a terminal, /help lists the commands.",
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
    params = arguments.sampling(options)
    conversation = Conversation(arguments.load(options.model, options), params, options)
    interactive = sys.stdin.isatty()
    if interactive:
        with contextlib.suppress(ImportError):  # not everywhere
            import readline  # noqa: F401, PLC0415 - gives input() its history
        print(f"{conversation.model!r}\n/help lists the commands")
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            return 0
        if line in {"/quit", "/exit"}:
            return 0
        if not line:
            continue
        if line.startswith("/"):
            conversation.command(line)
            continue
        try:
            conversation.ask(line)
        except (ContextOverflowError, TemplateError) as error:
            if not interactive:
                raise
            print(f"{error}\n/reset forgets the conversation", file=sys.stderr)


class Conversation:
    """The messages so far, and the model that answers them."""

    def __init__(self, model: Model, params: SamplingParams, options: argparse.Namespace) -> None:
        self.model = model
        self._params = params
        self._system: str | None = options.system
        self._options = options
        self._messages: list[dict[str, Any]] = []
        self._reasoning = False

    def command(self, line: str) -> None:
        """Does what a line with a slash says."""
        name, _, text = line.partition(" ")
        if name == "/reset":
            self._messages.clear()
        elif name == "/system":
            self._system = text.strip() or None
            self._messages.clear()
        else:
            print(_HELP)

    def ask(self, text: str) -> None:
        """Writes the answer to a message. Ctrl-C stops it; what was written until then stays in the conversation."""
        system = [{"role": "system", "content": self._system}] if self._system is not None else []
        messages = [*self._messages, {"role": "user", "content": text}]
        with (
            Bar("reading", "tokens") as bar,
            self.model.chat_stream([*system, *messages], self._params, progress=bar) as stream,
        ):
            try:
                for chunk in stream:
                    bar.close()
                    self._write(chunk)
            except KeyboardInterrupt:
                if not sys.stdin.isatty():
                    raise
            reply = stream.result()
        sys.stdout.write(f"{self._end_reasoning()}\n")
        self._messages = [*messages, reply.message]
        record.request(self._options, "chat", self.model, reply)
        if self._options.stats:
            generate.report(reply)

    def _write(self, chunk: ChatChunk) -> None:
        """Writes a part of the answer; on a terminal also the reasoning before it, faintly."""
        if chunk.reasoning_content and sys.stdout.isatty():
            sys.stdout.write(("" if self._reasoning else _FAINT) + chunk.reasoning_content)
            self._reasoning = True
        if chunk.content:
            sys.stdout.write(self._end_reasoning() + chunk.content)
        sys.stdout.flush()

    def _end_reasoning(self) -> str:
        was, self._reasoning = self._reasoning, False
        return f"{_NORMAL}\n\n" if was else ""
