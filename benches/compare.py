#!/usr/bin/env python3
"""fastllm against llama.cpp and mistral.rs: the same file, the same threads, alternating runs.

    python benches/compare.py model.gguf -p 512 -n 128 -d 0 4096 -t 2 -r 5 --json out.json --plot out.png

Every engine runs in a process of its own, and in an interpreter of its own if need be:

    --python-llama-cpp ~/peers/bin/python      where `pip install llama-cpp-python` was run
    --python-mistralrs ~/peers/bin/python      where `pip install mistralrs` was run

An engine that is not installed is left out with a note; one that crashes or hangs is a row that says so. llama.cpp runs with and without
weight repacking, and with and without flash attention: the best of its rows counts. All models stay loaded unless `--reload` is given.
Medians count, and ratios are taken inside a round, where the engines had nearly the same machine.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parent / "comparison"))
from report import OURS, Report, Row, Test, environment
from worker import Variant, WorkerError

MODULES = {OURS: "fastllm", "llama.cpp": "llama_cpp", "mistral.rs": "mistralrs"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a GGUF file")
    parser.add_argument("-p", "--n-prompt", type=int, nargs="*", default=[512], help="prompt lengths (default: 512)")
    parser.add_argument(
        "-n", "--n-gen", type=int, nargs="*", default=[128], help="numbers of tokens to write (default: 128)"
    )
    parser.add_argument("-d", "--n-depth", type=int, nargs="*", default=[0], help="tokens before the test (default: 0)")
    parser.add_argument(
        "-t", "--threads", type=int, default=default_threads(), help="threads of every engine (default: %(default)s)"
    )
    parser.add_argument("-r", "--repetitions", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--kv-dtype", choices=["f32", "f16", "q8_0"], default="f16", help="KV cache (default: f16)")
    parser.add_argument("--isa", default="auto", help="instruction set of fastllm (default: auto)")
    parser.add_argument(
        "--engines", nargs="+", choices=MODULES, default=list(MODULES), help="which engines (default: all)"
    )
    parser.add_argument(
        "--repack",
        type=int,
        nargs="+",
        choices=[0, 1],
        default=[1, 0],
        help="llama.cpp: weight repacking (default: 1 0)",
    )
    parser.add_argument(
        "--fa", type=int, nargs="+", choices=[0, 1], default=[1, 0], help="llama.cpp: flash attention (default: 1 0)"
    )
    parser.add_argument("--python-fastllm", default=sys.executable, help="interpreter (default: this one)")
    parser.add_argument("--python-llama-cpp", default=sys.executable, help="interpreter (default: this one)")
    parser.add_argument("--python-mistralrs", default=sys.executable, help="interpreter (default: this one)")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one answer (default: 900)")
    parser.add_argument(
        "--reload", action="store_true", help="load the model for every run: needs memory for one engine at a time"
    )
    parser.add_argument("--json", type=Path, help="write the records here, named as in llama-bench")
    parser.add_argument("--plot", type=Path, help="write a plot here (.png, .svg); needs matplotlib")
    parser.add_argument("--log", type=Path, help="what the engines print (default: nowhere)")
    a = parser.parse_args()
    if not a.model.is_file():
        parser.error(f"{a.model} is not a file")
    if (
        a.threads < 1
        or a.repetitions < 1
        or min([*a.n_prompt, *a.n_gen], default=0) < 1
        or min(a.n_depth, default=-1) < 0
    ):
        parser.error("threads, repetitions and lengths are 1 or more, depths 0 or more")
    return a


def default_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def variants(a: argparse.Namespace, tests: list[Test], log: TextIO) -> list[Variant]:
    """The rows of each test: what is installed, in every setting."""
    n_ctx = max(test.n_depth + test.tokens for test in tests) + 64
    base = {"model": str(a.model.resolve()), "threads": a.threads, "kv_dtype": a.kv_dtype, "n_ctx": n_ctx}
    pythons = {OURS: a.python_fastllm, "llama.cpp": a.python_llama_cpp, "mistral.rs": a.python_mistralrs}
    scripts = {OURS: "worker_fastllm.py", "llama.cpp": "worker_llama_cpp.py", "mistral.rs": "worker_mistralrs.py"}
    settings = {
        OURS: {"" if a.isa == "auto" else a.isa: {"isa": a.isa}},
        "llama.cpp": {f"repack={r} fa={f}": {"repack": r, "fa": f} for r in a.repack for f in a.fa},
        "mistral.rs": {"": {}},
    }
    found = []
    for engine in a.engines:
        if not installed(pythons[engine], MODULES[engine]):
            note(f"{engine} is left out: {pythons[engine]} has no module {MODULES[engine]}")
            continue
        for label, more in settings[engine].items():
            found.append(Variant(engine, pythons[engine], scripts[engine], {**base, **more}, label, a.timeout, log))
    return found


def installed(python: str, module: str) -> bool:
    probe = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    try:
        return subprocess.run([python, "-c", probe], capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def note(text: str) -> None:
    print(f"compare: {text}", file=sys.stderr, flush=True)


def load_average() -> float:
    """Of the last minute. Our own runs are part of it, once they have begun."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def run_test(test: Test, all_variants: list[Variant], repetitions: int, reload: bool) -> list[Row]:
    """All rounds of one test. Round 0 warms caches and clocks up and does not count."""
    rows = [Row(test, v.engine, v.name, v.settings) for v in all_variants]
    for turn in range(repetitions + 1):
        for row, variant in zip(rows, all_variants, strict=True):
            if row.failure is not None:
                continue
            request = {"n_prompt": test.n_prompt, "n_gen": test.n_gen, "n_depth": test.n_depth, "seed": 1000 + turn}
            try:
                seconds = variant.run(request)
            except WorkerError as e:
                row.failure = str(e)
                note(f"{test.name}: {row.name}: {e}")
                continue
            finally:
                row.info = variant.info
                if reload:
                    variant.stop()
            if turn:
                row.seconds.append(seconds)
                row.load.append(round(load_average(), 2))
                note(f"{test.name}: round {turn}/{repetitions}: {row.name}: {test.tokens / seconds:.2f} tokens/s")
    return rows


def main() -> int:
    a = arguments()
    tests = [t for d in a.n_depth for t in (*(Test(p, 0, d) for p in a.n_prompt), *(Test(0, n, d) for n in a.n_gen))]
    if not tests:
        note("no test: give -p or -n")
        return 2
    busy, cpus = load_average(), os.cpu_count() or 1
    if busy > 0.25 * cpus:
        note(
            f"warning: the load average is {busy:.1f} on {cpus} CPUs: wait until it is quiet; even ratios are unfair now"
        )
    with open(a.log or os.devnull, "w") as log:
        all_variants = variants(a, tests, log)
        if not all_variants:
            note("no engine is installed")
            return 1
        report = Report([], environment(a.model))
        try:
            for test in tests:
                report.rows += run_test(test, all_variants, a.repetitions, a.reload)
        except KeyboardInterrupt:
            note("interrupted: what was measured follows")
        finally:
            for variant in all_variants:
                variant.stop()
    print(
        f"{a.model.name}, {report.environment['cpu_info']}, {a.threads} threads, KV {a.kv_dtype}, {report.environment['test_time']}\n"
    )
    print(report.table())
    if a.json:
        a.json.write_text(report.json() + "\n")
    if a.plot:
        try:
            report.plot(a.plot)
        except ImportError:
            note("no plot: matplotlib is not installed")
    return 0 if any(row.median is not None for row in report.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
