"""Grammars in a process that is short of address space: an answer or OutOfMemoryError, never the end of the process."""

import subprocess
import sys

import pytest

PROGRAM = """
import re, resource, sys
from fastllm import Model, OutOfMemoryError
step, megabytes = sys.argv[1], int(sys.argv[2])
model = Model.demo(threads=1)
model.generate("a", max_tokens=1)
size = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read()).group(1)) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (megabytes << 20),) * 2)
properties = {f"p{i}": {"type": "string"} for i in range(500)}
options = {
    "schema": {"json_schema": {"type": "object", "properties": properties}},
    "regex": {"regex": r"(\\w{1000}){1000}"},
    "choices": {"choices": [f"a{i}" for i in range(4000)]},
}[step]
try:
    model.generate("a", max_tokens=4, **options)
    print("ok")
except OutOfMemoryError:
    print("memory")
except ValueError as error:
    print("refused", error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of the address space are Linux's")
@pytest.mark.parametrize("step", ["schema", "regex", "choices"])
@pytest.mark.parametrize("megabytes", [2, 20, 60, 150, 300, 420, 500, 600, 1000])
def test_little_memory(step, megabytes):
    command = [sys.executable, "-c", PROGRAM, step, str(megabytes)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    word = result.stdout.split()[0]
    assert word in ("ok", "memory", "refused"), result.stdout
    if megabytes < 200:
        assert word == "memory"
    if megabytes == 1000:
        assert word == "ok", result.stdout
