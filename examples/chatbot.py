"""A chatbot for the terminal: it streams its answers, remembers the conversation, and forgets when it gets too long.

    python examples/chatbot.py [MODEL.gguf]

Without a model, the embedded one answers; ask it for capitals, small sums, or a story.
"""

from __future__ import annotations

import sys

from fastllm import ContextOverflowError, Model

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}


def answer(model: Model, history: list[dict[str, str]]) -> dict[str, str]:
    """Prints the answer to the last message while it is made, and returns it as a message."""
    while True:
        try:
            with model.chat_stream([SYSTEM, *history], temperature=0, max_tokens=400) as stream:
                for chunk in stream:
                    print(chunk.content, end="", flush=True)
                print()
                return stream.result().message
        except ContextOverflowError:  # noqa: PERF203 - raised before anything is made
            if len(history) == 1:
                raise  # this one message is too long by itself
            del history[:2]  # the oldest question and its answer


def main(model: Model) -> None:
    """Answers the lines of standard input."""
    history: list[dict[str, str]] = []
    for line in sys.stdin:
        if not line.strip():
            continue
        history.append({"role": "user", "content": line.strip()})
        history.append(answer(model, history))


if __name__ == "__main__":
    main(Model(sys.argv[1]) if len(sys.argv) > 1 else Model.demo())
