"""Requests made from the server's own description: none is a mistake of the server, all answers are described."""

import pytest

from .conftest import serve

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: pip install 'fastllm[dev]'")
from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.specs.openapi.checks import positive_data_acceptance  # noqa: E402

# Few, the same every time, and without looking for the smallest failure, which takes minutes.
QUICK = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("key", [None, "secret"])
def test_requests_from_the_description(key, mode):
    keys = [] if key is None else ["--api-key", key]
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    with serve("--max-tokens", 4, *keys) as server:
        schema = schemathesis.openapi.from_url(server.url + "/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) >= 12
        for operation in operations:
            if mode is GenerationMode.NEGATIVE and operation.method == "get":
                continue  # nothing can be wrong with it

            @QUICK
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case):
                # Some of what the description allows is refused for its meaning: a token that is not there.
                case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

            ask()
        assert server.metric("fastllm_requests_total", headers, status="500") == 0
        assert server.metric("fastllm_requests_total", headers, status="400") > 0
