"""What keeps this machine below what it could do, and what to do about it."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastllm import _native, system

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastllm.roofline import Roofs

__all__ = ["Finding", "busy", "findings", "load"]

# Share of the CPUs that others may use, and bytes in swap, before they are worth a word.
_BUSY = 0.25
_SWAPPED = 64 << 20
# Gain from which on other numbers of threads are worth a word.
_GAIN = 1.05


@dataclass(frozen=True)
class Finding:
    """Something that costs speed, or makes measurements worth less.

    Attributes:
        name: What it is about.
        problem: What was found.
        remedy: What to do.
    """

    name: str
    problem: str
    remedy: str


def findings(roofs: Roofs | None = None) -> list[Finding]:
    """Everything that was found; what needs measurements only where there are some."""
    found = [*_cpus(), *_memory(), *_scheduling(), *_environment()]
    # Beside other work, which threads are faster is chance.
    return found if roofs is None or busy() else [*found, *_threads(roofs)]


def busy() -> bool:
    """Whether other work took so much of the CPUs in the last minute that measurements suffer."""
    load = system.load_average()
    return load is not None and load > max(_BUSY * system.allowed_cpus(), 0.5)


def _cpus() -> Iterator[Finding]:
    cpus, allowed, cores = system.logical_cpus(), system.allowed_cpus(), system.physical_cores()
    quota = system.cgroup_cpus()
    threads = _native.default_threads()
    if quota is not None and quota < min(allowed, cores or allowed):
        yield Finding(
            "cpu quota",
            f"the container may use {quota:g} CPUs at a time, of {allowed}: threads beyond that are stopped in turn, "
            "which slows all of them",
            f"raise the quota (docker run --cpus, a CPU limit of the pod), or stay at {threads} threads",
        )
    if cpus is not None and allowed < cpus:
        yield Finding(
            "affinity",
            f"this process may run on {allowed} of {cpus} CPUs",
            "start it without taskset, numactl or a cpuset (docker run --cpuset-cpus) that is narrower than needed",
        )
    if cores is not None and cpus is not None and cores < cpus:
        yield Finding(
            "smt",
            f"{cpus} CPUs are {cores} cores: two threads of one core share its arithmetic and its caches",
            f"leave threads at {threads}, at most one for each core; let --threads differ only if bench says so",
        )


def _memory() -> Iterator[Finding]:
    if system.huge_pages() == "never":
        yield Finding(
            "huge pages",
            "transparent huge pages are off: reading weights is slower by about a tenth",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )
    swapped = system.swap_used()
    if swapped is not None and swapped > _SWAPPED:
        yield Finding(
            "swap",
            f"{swapped / 1e9:.1f} GB lie in swap: memory has been short, and weights in swap are read from disk",
            "close what uses much memory, or use a smaller model, a shorter context or --kv-dtype q8_0",
        )


def load() -> Finding | None:
    """Other work that makes measurements worth less; None on a quiet machine."""
    average = system.load_average()
    if average is None or not busy():
        return None
    return Finding(
        "load",
        f"about {average:.1f} threads ran or waited in the last minute, on "
        f"{system.logical_cpus() or system.allowed_cpus()} CPUs: what is measured now is lower than what a quiet "
        "machine gives, and does not say which threads are best",
        "stop other work before measuring, or run it with nice",
    )


def _scheduling() -> Iterator[Finding]:
    found = load()
    if found is not None:
        yield found
    if system.autogroup() and busy():
        yield Finding(
            "autogroup",
            "the kernel shares CPUs among sessions first: nice values do not count between them",
            "sudo sysctl kernel.sched_autogroup_enabled=0",
        )
    # The two drivers that choose the clock in hardware call their usual mode so.
    governor, driver = system.governor(), system.clock_driver() or ""
    if governor == "powersave" and not driver.startswith(("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")):
        yield Finding(
            "governor",
            "the clock stays at its lowest (powersave)",
            "sudo cpupower frequency-set -g performance",
        )


def _environment() -> Iterator[Finding]:
    asked, isas = os.environ.get("FASTLLM_ISA", ""), _native.available_isas()
    if asked not in {"", "auto", isas[-1]}:
        yield Finding(
            "isa",
            f"FASTLLM_ISA asks for {asked}, and this CPU has {isas[-1]}",
            "unset FASTLLM_ISA",
        )


def _threads(roofs: Roofs) -> Iterator[Finding]:
    default = _native.default_threads()
    rates = {read.threads: read.rate.best for read in roofs.reads}
    used = rates.get(default, math.inf)
    if roofs.bandwidth > _GAIN * used:
        best = roofs.decode_threads
        yield Finding(
            "threads",
            f"{default} threads, the default, read {used / 1e9:.1f} GB/s, and {best} read {rates[best] / 1e9:.1f}: "
            f"decoding may be faster with {best}",
            f"compare with fastllm bench MODEL -p 0 -t {default},{best}; then --threads {best}, "
            f"and --prefill-threads {roofs.prompt_threads} for prompts",
        )
