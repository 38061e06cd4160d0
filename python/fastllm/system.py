"""Facts about this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = [
    "allowed_cpus",
    "autogroup",
    "available_memory",
    "cgroup_cpus",
    "cgroup_memory",
    "clock_driver",
    "cpu_name",
    "governor",
    "huge_pages",
    "last_level_cache",
    "load_average",
    "logical_cpus",
    "physical_cores",
    "swap_used",
    "total_memory",
]

_CGROUP = Path("/sys/fs/cgroup")


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _own_cgroups() -> list[Path]:
    """The cgroup (version 2) of this process and those above it."""
    line = next((x for x in (_read("/proc/self/cgroup") or "").splitlines() if x.startswith("0::")), "0::/")
    path = _CGROUP / line[3:].lstrip("/")
    return [path, *(parent for parent in path.parents if parent == _CGROUP or _CGROUP in parent.parents)]


def _meminfo(key: str) -> int | None:
    for line in (_read("/proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        if name == key:
            return int(rest.split()[0]) * 1024
    return None


def total_memory() -> int | None:
    """Bytes of memory of the machine; None where it is not known."""
    return _meminfo("MemTotal")


def cgroup_memory() -> int | None:
    """Bytes of memory that the container leaves to this process; None: no limit."""
    left = []
    for group in _own_cgroups():
        limit, used = _read(group / "memory.max"), _read(group / "memory.current")
        if limit is not None and limit.isdigit() and used is not None and used.isdigit():
            left.append(max(int(limit) - int(used), 0))
    limit, used = _read(_CGROUP / "memory/memory.limit_in_bytes"), _read(_CGROUP / "memory/memory.usage_in_bytes")
    if limit is not None and used is not None and int(limit) < 2**60:
        left.append(max(int(limit) - int(used), 0))
    return min(left, default=None)


def available_memory() -> int | None:
    """Bytes of memory that a new process could use; None where it is not known."""
    known = [x for x in (_meminfo("MemAvailable"), cgroup_memory()) if x is not None]
    return min(known, default=None)


def cgroup_cpus() -> float | None:
    """CPUs that the container may use at a time; None: no limit."""
    quotas = []
    for group in _own_cgroups():
        quota, _, period = (_read(group / "cpu.max") or "").partition(" ")
        if quota.isdigit() and period.isdigit():
            quotas.append(int(quota) / int(period))
    quota = _read(_CGROUP / "cpu/cpu.cfs_quota_us") or ""
    period = _read(_CGROUP / "cpu/cpu.cfs_period_us") or ""
    if quota.isdigit() and period.isdigit():
        quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def allowed_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def physical_cores() -> int | None:
    """Cores of the machine, hyper-threads counted once; None where it is not known."""
    cores = set()
    for cpu in Path("/sys/devices/system/cpu").glob("cpu[0-9]*"):
        siblings = _read(cpu / "topology/thread_siblings_list")
        if siblings is not None:
            cores.add(siblings)
    return len(cores) or None


def cpu_name() -> str:
    """What the maker calls the CPU."""
    for line in (_read("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def huge_pages() -> str | None:
    """Whether the kernel gives huge pages: "always", "madvise" or "never"; None where it is not known."""
    setting = _read("/sys/kernel/mm/transparent_hugepage/enabled")
    return setting.partition("[")[2].partition("]")[0] if setting is not None else None


def logical_cpus() -> int | None:
    """CPUs of the machine, hyper-threads counted each; None where it is not known."""
    return os.cpu_count()


def last_level_cache() -> int | None:
    """Bytes of the last caches of all CPUs together; None where it is not known."""
    caches: dict[tuple[int, str], int] = {}
    for index in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cache/index[0-9]*"):
        level, size, shared = (_read(index / name) or "" for name in ("level", "size", "shared_cpu_list"))
        unit = {"K": 2**10, "M": 2**20, "G": 2**30}.get(size[-1:], 0)
        if level.isdigit() and size[:-1].isdigit() and unit:
            caches[int(level), shared] = int(size[:-1]) * unit
    last = max((level for level, _ in caches), default=0)
    return sum(size for (level, _), size in caches.items() if level == last) or None


def load_average() -> float | None:
    """Processes that ran or waited for a CPU, averaged over the last minute; None where it is not known."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def swap_used() -> int | None:
    """Bytes that lie in swap; None where it is not known."""
    total, free = _meminfo("SwapTotal"), _meminfo("SwapFree")
    return None if total is None or free is None else total - free


def governor() -> str | None:
    """How the kernel chooses the clock of the first CPU, such as "powersave"; None where it is not known."""
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def clock_driver() -> str | None:
    """What sets the clock of the first CPU, such as "intel_pstate"; None where it is not known."""
    return _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver")


def autogroup() -> bool | None:
    """Whether the kernel shares CPUs among sessions before nice values count; None where it is not known."""
    setting = _read("/proc/sys/kernel/sched_autogroup_enabled")
    return None if setting is None else setting == "1"
