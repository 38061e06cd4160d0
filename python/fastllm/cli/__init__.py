"""The command line.

Exit codes: 0 done; 1 failure, with one line on standard error; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import fastllm
from fastllm.cli import batch, bench, cache, chat, doctor, files, generate, serve
from fastllm.errors import FastLLMError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

FAILED = 1
INTERRUPTED = 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastllm", description="Run open-weight language models (GGUF files) on the CPU."
    )
    parser.add_argument("--version", action="version", version=f"fastllm {fastllm.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (generate, chat, serve, batch, bench, files, cache, doctor):
        module.add_to(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns the exit code.

    Args:
        arguments: What follows the name of the program; None: those of this process.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        code = run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has left; nothing more can be written, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (FastLLMError, OSError, MemoryError) as error:
        # Further lines show the place in a grammar.
        print(f"fastllm: {str(error).partition(chr(10))[0] or 'out of memory'}", file=sys.stderr)
        return FAILED
    return code
