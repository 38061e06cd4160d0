"""The rule about skipped tests, which holds in CI."""

import re

import pytest

from . import conftest

pytest_plugins = ("pytester",)

TESTS = """
import pytest

def test_that_runs():
    pass

@pytest.mark.skip(reason={reason!r})
def test_that_does_not():
    pass
"""
ALLOWED = "/x/golden is missing (FASTLLM_SHARED names the folder)"
REFUSED = "this version has no such feature"


@pytest.mark.parametrize(
    ("reason", "ci", "status"), [(ALLOWED, "true", 0), (REFUSED, "true", 1), (REFUSED, "1", 1), (REFUSED, "", 0)]
)
def test_a_skip_that_is_not_on_the_list_fails_the_run(pytester, monkeypatch, reason, ci, status):
    monkeypatch.setenv("CI", ci)
    pytester.makeconftest(f"from {conftest.__name__} import pytest_configure")
    pytester.makepyfile(TESTS.format(reason=reason))
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio")
    assert result.ret == status
    shown = any(re.search(r"test_that_does_not: ", line) for line in result.outlines)
    assert shown == bool(ci)
    assert any("must not be skipped in CI" in line for line in result.outlines) == bool(status)
