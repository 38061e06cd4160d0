"""The conversation of `fastllm chat`: its messages, and the commands that change it."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import glob
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastllm.cli import arguments, generate, record
from fastllm.cli.progress import Bar
from fastllm.cli.terminal import Wrapper
from fastllm.cli.texts import InputError
from fastllm.errors import ContextOverflowError, TemplateError
from fastllm.options import SamplingParams

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastllm.model import Model
    from fastllm.results import ChatChunk

__all__ = ["Conversation"]

_HELP = """/retry              answer the last message again
/reset              forget the conversation
/system [TEXT]      set what the model is told first, and forget the conversation; without TEXT: nothing
/set [NAME VALUE]   change a sampling option, such as temperature or max_tokens; without NAME: show them
/model [FILE]       show the model, or load a different one and keep the conversation
/save FILE          write the messages to a new file, as JSON
/quit               leave (also Ctrl-D)
//TEXT              a message that begins with a slash
Ctrl-C stops an answer, or clears the line that is being typed."""

_FAINT, _NORMAL = "\x1b[2m", "\x1b[0m"


class Conversation:
    """The messages so far, and the model that answers them.

    Args:
        model: The model.
        chosen: Sampling options that the user has chosen; the others are the model's `default_chat_sampling`.
        options: Of the command line.
        interactive: Whether a person types the messages.
    """

    def __init__(
        self, model: Model, chosen: Mapping[str, Any], options: argparse.Namespace, *, interactive: bool
    ) -> None:
        self.model = model
        self._chosen = dict(chosen)
        self._params = SamplingParams(**{**model.default_chat_sampling, **self._chosen})
        self._system: str | None = options.system
        self._options = options
        self._interactive = interactive
        self._messages: list[dict[str, Any]] = []
        self._retries = 0
        self._reasoning = False
        self._out = Wrapper()
        self._commands: dict[str, Callable[[str], None]] = {
            "/retry": self._retry,
            "/reset": self._reset,
            "/system": self._set_system,
            "/set": self._set,
            "/model": self._load,
            "/save": self._save,
            "/help": self._help,
        }

    def take(self, text: str) -> bool:
        """Answers a message or does what a command says; False where it says to leave.

        Raises:
            InputError: There is no such command, or it cannot be done.
            FastLLMError: The model cannot answer.
        """
        if not text.startswith("/") or text.startswith("//"):
            if text:
                self._retries = 0
                self._ask(text[1:] if text.startswith("//") else text)
            return True
        name, _, rest = text.partition(" ")
        if name in {"/quit", "/exit"}:
            return False
        command = self._commands.get(name)
        if command is None:
            close = difflib.get_close_matches(name, [*self._commands, "/quit"], n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise InputError(f"unknown command {name}: {hint}/help lists the commands, //TEXT sends a slash")
        command(rest.strip())
        return True

    def completions(self, text: str) -> tuple[Sequence[str], int]:
        """What may stand in place of the end of a text, and how long that end is."""
        name, space, rest = text.partition(" ")
        if not space:
            known = sorted([*self._commands, "/quit"])
            return ([word for word in known if name and word.startswith(name)], len(name))
        if name == "/set" and " " not in rest:
            return ([option for option in arguments.SAMPLING_TYPES if option.startswith(rest)], len(rest))
        if name in {"/model", "/save"}:
            found = sorted(glob.glob(glob.escape(os.path.expanduser(rest)) + "*"))  # noqa: PTH111, PTH207 - as it is typed
            if name == "/model":
                found = [path for path in found if path.endswith(".gguf") or Path(path).is_dir()]
            return ([path + os.sep if Path(path).is_dir() else path for path in found], len(rest))
        return [], 0

    # Commands

    def _help(self, _: str) -> None:
        print(_HELP, file=sys.stdout if self._interactive else sys.stderr)

    def _reset(self, _: str) -> None:
        self._messages.clear()

    def _set_system(self, text: str) -> None:
        self._system = text or None
        self._messages.clear()

    def _retry(self, _: str) -> None:
        last = next((i for i in reversed(range(len(self._messages))) if self._messages[i]["role"] == "user"), None)
        if last is None:
            raise InputError("there is no message to answer again")
        self._retries += 1
        kept, text = self._messages, self._messages[last]["content"]
        self._messages = kept[:last]
        try:
            self._ask(text)
        except BaseException:
            self._messages = kept
            raise

    def _set(self, text: str) -> None:
        if not text:
            shown = {name: getattr(self._params, name) for name in arguments.SAMPLING_TYPES}
            changed = {name: value for name, value in shown.items() if value != getattr(SamplingParams(), name)}
            self._say(", ".join(f"{name} = {value}" for name, value in changed.items()) or "no option is set")
            return
        name, _, value = text.replace("=", " ", 1).partition(" ")
        name, value = name.lstrip("-").replace("-", "_"), value.strip()
        if name not in arguments.SAMPLING_TYPES:
            close = difflib.get_close_matches(name, arguments.SAMPLING_TYPES, n=1)
            raise InputError(f"there is no option {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        if not value:
            self._say(f"{name} = {getattr(self._params, name)}")
            return
        parsed = _value(name, value)
        self._params = dataclasses.replace(self._params, **{name: parsed})
        self._chosen[name] = parsed
        self._retries = 0

    def _load(self, path: str) -> None:
        if not path:
            self._say(repr(self.model))
            return
        model = arguments.load(str(Path(path).expanduser()), self._options)
        params = SamplingParams(**{**model.default_chat_sampling, **self._chosen})
        self.model.close()
        self.model, self._params = model, params
        self._say(repr(model))

    def _save(self, path: str) -> None:
        if not path:
            raise InputError("/save needs the name of a new file")
        system = [{"role": "system", "content": self._system}] if self._system is not None else []
        try:
            with Path(path).expanduser().open("x", encoding="utf-8") as file:
                json.dump([*system, *self._messages], file, ensure_ascii=False, indent=2)
                file.write("\n")
        except FileExistsError:
            raise InputError(f"{path} exists already: choose a different name") from None
        self._say(f"{len(self._messages)} messages are in {path}")

    def _say(self, text: str) -> None:
        """Standard output holds answers only, where it is not a terminal."""
        print(text, file=sys.stdout if self._interactive else sys.stderr)

    # Answers

    def _ask(self, text: str) -> None:
        """Writes the answer to a message. Ctrl-C stops it; what was written until then stays in the conversation."""
        system = [{"role": "system", "content": self._system}] if self._system is not None else []
        messages = [*self._messages, {"role": "user", "content": text}]
        params = self._params
        if self._retries and params.seed is not None:
            # The same seed would give the same answer.
            params = dataclasses.replace(params, seed=(params.seed + self._retries) % 2**64)
        try:
            with (
                Bar("reading", "tokens") as bar,
                self.model.chat_stream([*system, *messages], params, progress=bar) as stream,
            ):
                try:
                    for chunk in stream:
                        bar.close()
                        self._write(chunk)
                except KeyboardInterrupt:
                    if not self._interactive:
                        raise
                reply = stream.result()
        except (ContextOverflowError, TemplateError) as error:
            if not self._interactive:
                raise
            raise InputError(f"{error} (/reset forgets the conversation)") from error
        self._out.flush()
        sys.stdout.write(f"{self._end_reasoning()}\n")
        self._out.end()
        sys.stdout.flush()
        self._messages = [*messages, reply.message]
        record.request(self._options, "chat", self.model, reply)
        if self._options.stats:
            generate.report(reply)

    def _write(self, chunk: ChatChunk) -> None:
        """Writes a part of the answer; on a terminal also the reasoning before it, faintly."""
        if chunk.reasoning_content and sys.stdout.isatty():
            if not self._reasoning:
                sys.stdout.write(_FAINT)
            self._out.feed(chunk.reasoning_content)
            self._reasoning = True
        if chunk.content:
            if self._reasoning:
                self._out.end()
            sys.stdout.write(self._end_reasoning())
            self._out.feed(chunk.content)
        sys.stdout.flush()

    def _end_reasoning(self) -> str:
        was, self._reasoning = self._reasoning, False
        return f"{_NORMAL}\n\n" if was else ""


def _value(name: str, text: str) -> Any:
    """The value of an option, as text."""
    kind = arguments.SAMPLING_TYPES[name]
    if text.lower() in {"none", "off", "default"}:
        return getattr(SamplingParams(), name)
    if kind is None:
        if text.lower() not in {"true", "false", "on"}:
            raise InputError(f"{name} = {text} is not allowed: true or false")
        return text.lower() != "false"
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{name} = {text} is not {'an integer' if kind is int else 'a number'}") from None
