"""What the coordinator and the workers say to each other: one JSON object a line.

A worker is a program of its own, started with one argument, the JSON of its settings. It answers `{"ready": ...}` once the model is
loaded, then one `{"seconds": ...}` to each request `{"n_prompt", "n_gen", "n_depth", "seed"}`, or `{"error": text}` to either.
Runs under the interpreter of the engine, so it uses nothing but the standard library.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Protocol


class Engine(Protocol):
    """A loaded model."""

    def describe(self) -> dict[str, Any]:
        """`version` and what else identifies the build."""

    def run(self, n_prompt: int, n_gen: int, n_depth: int, seed: int) -> float:
        """Seconds for `n_prompt` tokens at once, or for `n_gen` one by one, behind `n_depth` others, which are not timed."""


def serve(load: Callable[[dict[str, Any]], Engine]) -> None:
    """Loads the model and answers requests until standard input ends."""
    # The engines print to standard output as they like: the answers get a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        engine = load(json.loads(sys.argv[1]))
        answer({"ready": engine.describe()})
    except Exception as e:
        answer({"error": f"{type(e).__name__}: {e}"})
        return
    for line in sys.stdin:
        try:
            answer({"seconds": engine.run(**json.loads(line))})
        except Exception as e:
            answer({"error": f"{type(e).__name__}: {e}"})
