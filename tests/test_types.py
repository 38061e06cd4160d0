"""The types are what they say: stubs match the extension, and users see them."""

import subprocess
import sys

import pytest

from .conftest import ROOT


def run(*command):
    result = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_stubs_match_the_extension():
    pytest.importorskip("mypy")
    run("mypy.stubtest", "fastllm._native")


def test_users_see_the_types(tmp_path):
    pytest.importorskip("mypy")
    program = tmp_path / "user.py"
    program.write_text(
        "from typing_extensions import assert_type\n"
        "from fastllm import ChatReply, Generation, Model\n"
        "model = Model.demo()\n"
        "assert_type(model.generate('x', temperature=0.5), Generation)\n"
        "assert_type(model.generate([1, 2]), Generation)\n"
        "assert_type(model.generate(['x', 'y']), list[Generation])\n"
        "assert_type(next(iter(model.stream('x'))).text, str)\n"
        "model.generate('x', temprature=1)  # type: ignore[call-overload]\n"
        "assert_type(model.chat([], tools=[], reasoning_budget=3, top_k=1), ChatReply)\n"
        "model.chat([], reasoning_budget='3')  # type: ignore[arg-type]\n"
        "model.chat([], reasoning_budgets=3)  # type: ignore[call-arg]\n",
        encoding="utf-8",
    )
    run("mypy", "--strict", "--warn-unused-ignores", str(program))
