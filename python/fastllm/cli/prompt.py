"""Reading messages with prompt_toolkit, which the extra `chat` installs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import Completer, Completion
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from fastllm.cli.terminal import Leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

__all__ = ["ToolkitReader"]


class ToolkitReader:
    """A line editor: pasted line ends stay in the message, Alt-Enter adds one, arrows recall earlier messages.

    The history is kept in memory only: what is said to a model is not written to the disk.
    """

    def __init__(self, prompt: str, completions: Callable[[str], tuple[Sequence[str], int]]) -> None:
        self._session: PromptSession[str] = PromptSession(
            prompt,
            history=InMemoryHistory(),
            completer=_Commands(completions),
            complete_while_typing=False,
            key_bindings=_keys(),
            prompt_continuation="  ",
        )

    def read(self) -> str:
        """The next message."""
        return self._session.prompt()


class _Commands(Completer):
    def __init__(self, completions: Callable[[str], tuple[Sequence[str], int]]) -> None:
        self._completions = completions

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:  # noqa: ARG002
        words, length = self._completions(document.text_before_cursor)
        return [Completion(word, start_position=-length) for word in words]


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    def _(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=Leave(), style="class:aborting")

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
