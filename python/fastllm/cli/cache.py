"""`fastllm cache`: the packed weights that are kept for the next load."""

from __future__ import annotations

import argparse

from fastllm import cache
from fastllm.cli.files import gibibytes, print_columns
from fastllm.cli.progress import Bar

FAILED = 1


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "cache",
        help="list, check or clear the cache of packed weights",
        description="Large models are kept packed in the user's cache folder: the next load is instant.",
        epilog="FASTLLM_CACHE=0 turns it off, FASTLLM_CACHE_DIR moves it, FASTLLM_CACHE_LIMIT bounds its bytes.",
    )
    parser.add_argument(
        "action",
        nargs="?",
        default="list",
        choices=["list", "clear", "verify"],
        help="verify compares every byte with its checksum and deletes what is damaged (default: list)",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    if options.action == "clear":
        models = cache.clear()
        print(f"{len(models)} deleted, {gibibytes(sum(model.bytes for model in models))}")
        return 0
    if options.action == "verify":
        with Bar("checking", "bytes") as bar:
            models = cache.verify(bar)
    else:
        models = cache.cached_models()
    print_columns([("folder", str(cache.folder() or "none: there is no place for a cache"))])
    for model in models:
        used = model.used.strftime("%Y-%m-%d %H:%M")
        condition = "" if model.condition == "ok" else f" ({model.condition})"
        print(f"{gibibytes(model.bytes):>10}  {used}  {model.model or model.path}{condition}")
    print(f"{gibibytes(sum(model.bytes for model in models)):>10}  in all")
    damaged = options.action == "verify" and any(model.condition == "damaged" for model in models)
    return FAILED if damaged else 0
