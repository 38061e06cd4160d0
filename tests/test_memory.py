"""A process that is short of memory: errors with a name, and no abort."""

import subprocess
import sys

import pytest

CODE = """
import re, resource, sys
import numpy
from fastllm import Model
model = Model.demo(threads=1)
model.chat([{"role": "user", "content": "Hi"}], max_tokens=1)
used = int(re.search(r"VmSize:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
text, spaces, ids = "a" * 3_000_000, " " * 3_000_000, [5] * 1_000_000
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20,) * 2)
try:
    eval(sys.argv[1])
except Exception as error:
    print(isinstance(error, (MemoryError, ValueError)), type(error).__name__, error)
else:
    print(True)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS is of Linux")
# With less than a few megabytes it is the interpreter that fails first.
@pytest.mark.parametrize("megabytes", [3, 20, 60])
@pytest.mark.parametrize(
    "call",
    [
        "model.tokenizer.encode(text)",
        "model.tokenizer.encode(spaces)",
        "model.tokenizer.decode(ids)",
        "model.generate(text, max_tokens=1)",
        "model.chat([{'role': 'user', 'content': text}], max_tokens=1)",
        "model.chat([{'role': 'user', 'content': '<|im_end|>' + text}], max_tokens=1)",
        "model.logits([5] * 500)",
    ],
)
def test_long_inputs_are_refused_by_name(call, megabytes):
    process = subprocess.run(
        [sys.executable, "-c", CODE, call, str(megabytes)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("True"), process.stdout
