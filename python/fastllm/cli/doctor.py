"""`fastllm doctor`: what this machine offers, what limits it, and how close the last run came."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from typing import TYPE_CHECKING, Any

import fastllm
from fastllm import _native, diagnosis, last_run, roofline, system
from fastllm.cli import arguments
from fastllm.cli.files import gibibytes, print_columns
from fastllm.cli.tables import print_table
from fastllm.gguf import GGUFFile
from fastllm.model import Model
from fastllm.plan import plan

if TYPE_CHECKING:
    from fastllm.roofline import Roofs

# The examples of limits: bytes of a file, parameters of a model.
_FILE, _PARAMETERS = 0.8e9, 1e9
# Tokens from which on speed says something: a prompt of few tokens is bound by memory, and a few tokens by chance.
_LEAST = {"prompt": 64, "decode": 16}
# Share of the roof that a run which has nothing to mend reaches.
_CLOSE = 0.75
# Positions before a token, for the part of the KV cache.
_DEPTH = 4096


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "doctor",
        help="measure this machine: what limits it, what to change",
        description="Measures for a few seconds what this machine can do at most, says what limits it, what to change, "
        "and how close the last run of bench, generate or chat came. With MODEL, says what that leaves for it.",
        epilog="The last run is a small file without any text: FASTLLM_STATE_DIR moves it, FASTLLM_LAST_RUN=0 turns it "
        "off.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a GGUF file; only its header is read")
    parser.add_argument("-c", "--context-length", type=int, metavar="N", help="most tokens (default: as trained)")
    parser.add_argument(
        "--kv-dtype", default="f16", choices=_native.cache_types(), help="keys and values (default: f16)"
    )
    parser.add_argument("-o", "--output", default="text", choices=["text", "json"], help="(default: text)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Runs the command."""
    # What is wrong with a file is said before anything is measured.
    fits = None if options.model is None else _plan(options)
    # So is what makes the measurements worth less.
    busy = diagnosis.load()
    facts = _facts()
    text = options.output == "text"
    if text:
        if busy is not None:
            print(f"This machine is busy: {busy.problem}.\n- {busy.remedy}\n")
        _print_facts(facts)
    demo = _demo()
    if text:
        print_columns([("demo model", f"{demo['tokens']} tokens with {demo['isa']}, {demo['threads']} threads")])
    roofs = roofline.measure()
    report = {
        "busy": None if busy is None else dataclasses.asdict(busy),
        **facts,
        "demo": demo,
        "roofs": _roofs(roofs),
        "limits": _limits(roofs),
        "model": None if fits is None else {**fits, **_model(options, roofs)},
        "findings": [dataclasses.asdict(finding) for finding in diagnosis.findings(roofs)],
        "last_run": _last_run(roofs),
    }
    if text:
        _print_report(report)
    else:
        print(json.dumps(report, indent=2))
    return 0


def _facts() -> dict[str, Any]:
    return {
        "fastllm": fastllm.__version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "system": platform.platform(),
        "cpu": system.cpu_name(),
        "isas": fastllm.available_isas(),
        "isa_asked": os.environ.get("FASTLLM_ISA") or None,
        "cores": system.physical_cores(),
        "cpus_allowed": system.allowed_cpus(),
        "cpu_quota": system.cgroup_cpus(),
        "threads": _native.default_threads(),
        "memory": system.total_memory(),
        "available": system.available_memory(),
        "memory_quota": system.cgroup_memory(),
        "huge_pages": system.huge_pages(),
    }


def _demo() -> dict[str, Any]:
    with Model.demo() as model:
        out = model.generate("Once upon a time", max_tokens=64, temperature=0)
        return {"tokens": out.usage.completion_tokens, "isa": model.isa, "threads": model.threads}


def _roofs(roofs: Roofs) -> dict[str, Any]:
    return {
        **dataclasses.asdict(roofs),
        "decode_threads": roofs.decode_threads,
        "prompt_threads": roofs.prompt_threads,
    }


def _limits(roofs: Roofs) -> dict[str, float]:
    return {
        "bytes_per_second": roofs.bandwidth,
        "integer_per_second": roofs.integer,
        "float_per_second": roofs.floating,
        "example_bytes": _FILE,
        "example_decode_tokens_per_second": roofs.bandwidth / _FILE,
        "example_parameters": _PARAMETERS,
        "example_prompt_tokens_per_second": roofs.integer / (2 * _PARAMETERS),
    }


def _plan(options: argparse.Namespace) -> dict[str, Any]:
    memory = plan(arguments.model_file(options.model), context_length=options.context_length, kv_dtype=options.kv_dtype)
    return {
        "path": options.model,
        "context_length": memory.context_length,
        "kv_dtype": memory.kv_dtype,
        "memory": memory.total,
        "available": memory.available,
        "fits": memory.fits,
    }


def _model(options: argparse.Namespace, roofs: Roofs) -> dict[str, Any]:
    file = GGUFFile(options.model)
    depth = min(_DEPTH, plan(options.model, context_length=options.context_length).context_length) - 1
    first = roofline.token_cost(file, kv_dtype=options.kv_dtype)
    deep = roofline.token_cost(file, kv_dtype=options.kv_dtype, position=depth)
    cache = system.last_level_cache()
    return {
        "bytes_per_token": first.weights,
        "depth": depth + 1,
        "kv_bytes_at_depth": deep.kv_cache,
        "operations_per_prompt_token": sum(first.layers),
        # Weights that stay in the caches are not read from memory.
        "bound_by_memory": cache is None or first.weights > cache,
        "decode_tokens_per_second": first.most_decoded(roofs),
        "decode_tokens_per_second_at_depth": deep.most_decoded(roofs),
        "prompt_tokens_per_second": first.most_read(roofs),
    }


def _last_run(roofs: Roofs) -> dict[str, Any] | None:
    last = last_run.load()
    if last is None:
        return None
    cache = system.last_level_cache()
    in_cache = cache is not None and last.weight_bytes <= cache
    speeds = []
    for speed in last.speeds:
        share, why = None, None
        if speed.tokens < _LEAST.get(speed.kind, 0):
            why = f"{speed.tokens} tokens are too few to say"
        elif speed.kind == "decode" and in_cache:
            why = "its weights stay in the caches: memory does not bound it"
        elif speed.kind == "decode":
            share = roofs.decode_share(speed.bytes_per_second)
        else:
            share = roofs.prompt_share(speed.integer_per_second, speed.float_per_second)
        advice = None if share is None else _advice(last.isa, speed, share, roofs)
        speeds.append({**dataclasses.asdict(speed), "share": share, "not_compared": why, "advice": advice})
    return {**dataclasses.asdict(last), "speeds": speeds}


def _advice(isa: str, speed: last_run.Speed, share: float, roofs: Roofs) -> str:
    """What would bring a run closer to its limit."""
    threads = roofs.decode_threads if speed.kind == "decode" else roofs.prompt_threads
    if share > 1:
        return "more than was measured now: the machine had more to give then"
    if share >= _CLOSE:
        return "close to the limit"
    if speed.threads < threads:
        return f"it had {speed.threads} of the {threads} threads that this machine can use"
    if speed.kind == "prompt" and isa != roofs.isa:
        return f"it ran with {isa}, and {roofs.isa} is there"
    return "other work on the machine, or a long context, may have taken the rest"


def _print_facts(facts: dict[str, Any]) -> None:
    asked, pages, limit = facts["isa_asked"], facts["huge_pages"], facts["memory_quota"]
    chosen = f"asks for {asked}" if asked else "is not set: the last one"
    known = "unknown"
    print_columns(
        [
            ("fastllm", facts["fastllm"]),
            ("python", f"{facts['python']} ({facts['executable']})"),
            ("system", facts["system"]),
            ("cpu", facts["cpu"]),
            ("isas", f"{', '.join(facts['isas'])}; FASTLLM_ISA {chosen}"),
            ("cores", str(facts["cores"] or known)),
            ("cpus allowed", str(facts["cpus_allowed"])),
            ("cpu quota", "none" if facts["cpu_quota"] is None else f"{facts['cpu_quota']:g} CPUs"),
            ("threads", f"{facts['threads']}, the least of these"),
            ("memory", known if facts["memory"] is None else gibibytes(facts["memory"])),
            ("available", known if facts["available"] is None else gibibytes(facts["available"])),
            ("memory quota", "none" if limit is None else f"{gibibytes(limit)} left"),
            ("huge pages", (pages or known) + ("" if pages != "never" else ": reading weights is slower without")),
        ]
    )


def _print_report(report: dict[str, Any]) -> None:
    _print_roofs(report["roofs"])
    _print_limits(report["limits"])
    if report["model"] is not None:
        _print_model(report["model"])
    print("\nWhat to change")
    for finding in report["findings"]:
        print(f"- {finding['name']}: {finding['problem']}\n  {finding['remedy']}")
    if not report["findings"]:
        print("- nothing was found")
    _print_last_run(report["last_run"])


def _print_roofs(roofs: dict[str, Any]) -> None:
    reads = [(str(x["threads"]), x["rate"]["best"], x["rate"]["median"]) for x in roofs["reads"]]
    print()
    print_table(
        f"Reading memory ({gibibytes(roofs['bytes'])}), GB/s",
        ("threads", "best", "median"),
        [(threads, f"{best / 1e9:.1f}", f"{median / 1e9:.1f}") for threads, best, median in reads],
        [best for _, best, _ in reads],
    )
    print()
    compute = roofs["compute"]
    print_table(
        "Arithmetic, GOP/s (a multiply-add counts two)",
        ("isa", "threads", "int8", "median", "float", "median"),
        [
            (x["isa"], str(x["threads"]), *(f"{x[k][m] / 1e9:.0f}" for k in ("integer", "floating") for m in x[k]))
            for x in compute
        ],
        [x["integer"]["best"] for x in compute],
    )
    print()
    print_columns(
        [
            ("for decoding", f"{_threads(roofs['decode_threads'])} within 3 % of the best rate of memory"),
            ("for prompts", f"{_threads(roofs['prompt_threads'])} within 3 % of the best rate of arithmetic"),
        ]
    )


def _threads(count: int) -> str:
    return "1 thread comes" if count == 1 else f"{count} threads come"


def _print_limits(limits: dict[str, float]) -> None:
    print(
        "\nWhat limits this machine\n"
        "- Writing: every token reads all weights, and memory gives "
        f"{limits['bytes_per_second'] / 1e9:.1f} GB/s: a model of {limits['example_bytes'] / 1e9:g} GB cannot exceed "
        f"{limits['example_decode_tokens_per_second']:.1f} tokens/s.\n"
        "- Reading a prompt: every token takes two operations for each weight, and the CPU does "
        f"{limits['integer_per_second'] / 1e9:.0f} GOP/s: a quantized model of {limits['example_parameters'] / 1e9:g} "
        f"billion parameters cannot exceed {limits['example_prompt_tokens_per_second']:.0f} tokens/s."
    )


def _print_model(model: dict[str, Any]) -> None:
    print(f"\nWhat that leaves for {model['path']}")
    read = model["bytes_per_token"]
    if model["bound_by_memory"]:
        print(
            f"- Writing: a token reads {read / 1e9:.2f} GB of weights: at most "
            f"{model['decode_tokens_per_second']:.1f} tokens/s; after {model['depth']} tokens "
            f"{model['kv_bytes_at_depth'] / 1e9:.2f} GB of keys and values ({model['kv_dtype']}) more: at most "
            f"{model['decode_tokens_per_second_at_depth']:.1f}."
        )
    else:
        print(f"- Writing: a token reads {read / 1e6:.1f} MB of weights, which stay in the caches: memory is no limit.")
    print(
        f"- Reading a prompt: a token takes {model['operations_per_prompt_token'] / 1e9:.3g} GOP, and attention: "
        f"at most {model['prompt_tokens_per_second']:.0f} tokens/s."
    )
    needs = f"- Memory: {gibibytes(model['memory'])} with a context of {model['context_length']} tokens"
    if model["available"] is None:
        print(f"{needs}.")
        return
    fits = "it fits" if model["fits"] else "it does not fit: give a shorter --context-length, or --kv-dtype q8_0"
    print(f"{needs}, of {gibibytes(model['available'])}: {fits}.")


def _print_last_run(last: dict[str, Any] | None) -> None:
    print("\nHow close the last run came")
    if last is None:
        print("- no record of one: fastllm bench, generate and chat leave it")
        return
    print(f"- {last['command']} of {last['model']} with {last['isa']}, {last['time']}")
    for speed in last["speeds"]:
        decode = speed["kind"] == "decode"
        rate = speed["bytes_per_second"] if decode else speed["integer_per_second"] + speed["float_per_second"]
        what = f"{rate / 1e9:.1f} {'GB/s' if decode else 'GOP/s'}"
        share = speed["not_compared"]
        if speed["share"] is not None:
            share = f"{100 * speed['share']:.0f} % of what was measured now; {speed['advice']}"
        print(
            f"  {speed['name']}: {speed['tokens_per_second']:.1f} tokens/s, {speed['threads']} threads, {what}: {share}"
        )
