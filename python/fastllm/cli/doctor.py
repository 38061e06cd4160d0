"""`fastllm doctor`: what this machine offers."""

from __future__ import annotations

import argparse
import os
import platform
import sys

import fastllm
from fastllm import _native, system
from fastllm.cli.files import gibibytes, print_columns
from fastllm.model import Model


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "doctor",
        help="show what this machine offers",
        description="Shows what fastllm finds on this machine, and tries the embedded model.",
    )
    parser.set_defaults(run=run)


def run(_options: argparse.Namespace) -> int:
    """Runs the command."""
    asked = os.environ.get("FASTLLM_ISA")
    isas = fastllm.available_isas()
    quota = system.cgroup_cpus()
    limit = system.cgroup_memory()
    total, available = system.total_memory(), system.available_memory()
    pages = system.huge_pages()
    known = "unknown"
    print_columns(
        [
            ("fastllm", fastllm.__version__),
            ("python", f"{platform.python_version()} ({sys.executable})"),
            ("system", platform.platform()),
            ("cpu", system.cpu_name()),
            ("isas", f"{', '.join(isas)}; FASTLLM_ISA {f'asks for {asked}' if asked else 'is not set: the last one'}"),
            ("cores", str(system.physical_cores() or known)),
            ("cpus allowed", str(system.allowed_cpus())),
            ("cpu quota", "none" if quota is None else f"{quota:g} CPUs"),
            ("threads", f"{_native.default_threads()}, the least of these"),
            ("memory", known if total is None else gibibytes(total)),
            ("available", known if available is None else gibibytes(available)),
            ("memory quota", "none" if limit is None else f"{gibibytes(limit)} left"),
            ("huge pages", (pages or known) + ("" if pages != "never" else ": reading weights is slower without")),
        ]
    )
    with Model.demo() as model:
        out = model.generate("Once upon a time", max_tokens=64, temperature=0)
        print_columns(
            [("demo model", f"{out.usage.completion_tokens} tokens with {model.isa}, {model.threads} threads")]
        )
    return 0
