"""The Python blocks of README.md, and of guides, run in order, each page as one program."""

import re
import subprocess
import sys

import pytest

from .conftest import ROOT


@pytest.mark.parametrize("page", ["README.md", "docs/reuse-and-guesses.md"])
def test_the_examples_run(tmp_path, page):
    readme = ROOT / page
    if not readme.exists():
        pytest.skip(f"there is no {page}")
    blocks = re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert "Model.demo()" in blocks[0]
    program = tmp_path / "readme.py"
    program.write_text("\n".join(blocks), encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-W", "error", program], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert result.stdout
