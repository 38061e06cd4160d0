"""Clients that install quickly, each with its own first example against `fastllm serve`; run.py runs all of them."""

import pytest

from . import run

pytest.importorskip("fastapi", reason="needs the extra: pip install 'fastllm[server]'")
QUICK = ("openai", "anthropic", "instructor", "llm", "pydantic-ai", "lm-eval")


@pytest.fixture(scope="module")
def url(smollm2_path):
    with run.serve(str(smollm2_path)) as url:
        yield url


@pytest.mark.clients
@pytest.mark.parametrize("name", QUICK)
def test_the_first_example_of_a_client(name, url):
    python = run.install(name)
    if python is None:
        pytest.skip(f"{name} cannot be installed")
    row = run.run(name, python, url, timeout=600)
    assert row[3] == "ok", row


def test_every_client_has_an_example():
    names = {f"{name.replace('-', '_')}_example.py" for name in run.CLIENTS}
    assert {path.name for path in (run.HERE / "examples").glob("*.py")} == names
