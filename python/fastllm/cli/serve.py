"""`fastllm serve`: models over HTTP."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastllm import server
from fastllm.cli import arguments

if TYPE_CHECKING:
    from fastllm.model import Model
    from fastllm.server.options import ServerOptions


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "serve",
        help="serve models over HTTP",
        description="Serves models with the interfaces of OpenAI and Anthropic. Without MODEL, the embedded one. "
        "Needs the extra: pip install 'fastllm[server]'.",
        epilog="Keys may also come from FASTLLM_API_KEY, separated by commas. SIGTERM and Ctrl-C let running requests "
        "end; a second one ends at once.",
    )
    parser.add_argument(
        "models",
        nargs="*",
        metavar="[NAME=]MODEL",
        help="a GGUF file; NAME is what requests call it (default: its stem)",
    )
    parser.add_argument(
        "--alias",
        action="append",
        metavar="NAME[=MODEL]",
        default=[],
        help="a further name of a model (default: of the first one), for clients that ask for a fixed name",
    )
    parser.add_argument(
        "--any-model-name",
        action="store_true",
        help="answer requests for a model that is not served with the first one, instead of 404",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on; 0: a free one (default: 8000)")
    access = parser.add_argument_group("access")
    access.add_argument("--api-key", action="append", metavar="KEY", default=[], help="a key that requests must carry")
    access.add_argument(
        "--cors-origin", action="append", metavar="ORIGIN", default=[], help="an origin whose pages may call; *: all"
    )
    access.add_argument(
        "--allowed-host", action="append", metavar="NAME", default=[], help="a name that Host headers may have; *: any"
    )
    access.add_argument(
        "--share-prefix-cache",
        action="store_true",
        help="holders of different keys reuse each other's prompt prefixes (faster, but times and counts tell of them)",
    )
    limits = parser.add_argument_group("limits")
    for flag, default, kind, text in _LIMITS:
        shown = "" if default is None else f" (default: {default})"
        limits.add_argument(flag, type=kind, default=default, metavar="N", help=text + shown)
    parser.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="form of the log (default: text)"
    )
    arguments.add_loading(parser)
    parser.set_defaults(run=run, parser=parser)


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:  # noqa: PLR2004
        raise argparse.ArgumentTypeError("0 to 65535")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1e6:  # noqa: PLR2004
        raise argparse.ArgumentTypeError("more than 0 and at most 1000000 seconds")
    return number


def _count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 2**40:
        raise argparse.ArgumentTypeError("at least 1")
    return number


_LIMITS = (
    ("--max-queue", 240, _count, "most sequences of a model that wait; more get 429"),
    ("--max-tokens", None, _count, "most tokens of an answer (default: until the context is full)"),
    ("--max-body", 8 << 20, _count, "longest body in bytes"),
    ("--header-timeout", 20.0, _seconds, "seconds for the headers of a request"),
    ("--body-timeout", 30.0, _seconds, "seconds for its body"),
    ("--write-timeout", 30.0, _seconds, "seconds that a client may not read"),
    ("--keep-alive", 30.0, _seconds, "seconds that an idle connection stays open"),
    ("--drain-timeout", 30.0, _seconds, "seconds that running requests get at the end"),
)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    server.require()
    from fastllm.server import log  # noqa: PLC0415 - needs the extra
    from fastllm.server.run import bind, serve  # noqa: PLC0415

    names: dict[str, str | None] = {}
    for argument in options.models or [None]:
        name, path = (arguments.DEMO_NAME, None) if argument is None else _named(argument)
        if not name or name in names:
            return arguments.usage_error(options.parser, f"each model needs a name of its own: {name!r}")
        names[name] = path
    aliases = dict(_alias(argument, next(iter(names))) for argument in options.alias)
    wrong = next((alias for alias, name in aliases.items() if not alias or alias in names or name not in names), None)
    if wrong is not None or len(aliases) < len(options.alias):
        known = ", ".join(names)
        message = f"--alias {wrong or options.alias}: each is a new name of one of the models {known}"
        return arguments.usage_error(options.parser, message)
    settings = _settings(options, aliases)
    with bind(options.host, options.port) as socket:
        models = {name: arguments.load(path, options, announce=False) for name, path in names.items()}
        log.configure(options.log_format)
        serve(models, settings, socket, started=lambda host, port: _say(host, port, models))
    return 0


def _named(argument: str) -> tuple[str, str]:
    """`NAME=PATH`, or a path that names its model."""
    name, sign, path = argument.partition("=")
    if sign and "/" not in name and not Path(argument).exists():
        return name, path
    return Path(argument).stem, argument


def _alias(argument: str, first: str) -> tuple[str, str]:
    """`NAME=MODEL`, or a name of the first model."""
    alias, sign, name = argument.partition("=")
    return alias, name if sign else first


def _settings(options: argparse.Namespace, aliases: dict[str, str]) -> ServerOptions:
    from fastllm.server.guard import is_loopback  # noqa: PLC0415 - needs the extra
    from fastllm.server.options import ServerOptions  # noqa: PLC0415

    environment = [key.strip() for key in os.environ.get("FASTLLM_API_KEY", "").split(",")]
    hosts: tuple[str, ...] | None = tuple(name.lower() for name in options.allowed_host)
    if "*" in options.allowed_host or not (hosts or is_loopback(options.host)):
        hosts = None
    elif hosts is not None and is_loopback(options.host):
        # A page of another site that makes its name point to this machine sends that name.
        hosts = (*hosts, "localhost", "127.0.0.1", "::1", options.host.lower())
    limits = {flag[2:].replace("-", "_"): getattr(options, flag[2:].replace("-", "_")) for flag, *_ in _LIMITS}
    return ServerOptions(
        api_keys=tuple(key for key in [*options.api_key, *environment] if key),
        cors_origins=tuple(options.cors_origin),
        allowed_hosts=hosts,
        aliases=aliases,
        any_model_name=options.any_model_name,
        share_prefix_cache=options.share_prefix_cache,
        **limits,
    )


def _say(host: str, port: int, models: dict[str, Model]) -> None:
    shown = f"[{host}]" if ":" in host else host
    with contextlib.suppress(OSError):  # a full disk under the log is no reason to stop
        print(f"fastllm serves {', '.join(models)} on http://{shown}:{port}", file=sys.stderr, flush=True)
