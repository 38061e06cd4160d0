"""What one caller computed is of no use to another, and cannot be noticed: the prefix cache has a part for each key."""

import pytest

from .conftest import serve

IDS = [5, 9, 7, 30] * 40
ANTHROPIC = {"messages": [{"role": "user", "content": "Tell me about the sea. " * 20}], "max_tokens": 1}


def cached(server, key=None, **fields):
    """How many tokens of a prompt the server says it did not compute."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    body = {"prompt": IDS, "max_tokens": 1, "temperature": 0, **fields}
    status, reply = server.post("/v1/completions", body, headers)
    assert status == 200, reply
    return reply["usage"]["prompt_tokens_details"]["cached_tokens"]


def computed(server, key, **fields):
    headers = {"Authorization": f"Bearer {key}"}
    before = server.metric("fastllm_computed_tokens_total", headers)
    cached(server, key, **fields)
    return server.metric("fastllm_computed_tokens_total", headers) - before


@pytest.fixture(scope="module")
def keyed():
    with serve("--api-key", "alice", "--api-key", "mallory") as server:
        yield server


def test_a_key_learns_nothing_of_the_prompts_of_another(keyed):
    assert cached(keyed, "alice") == 0
    assert cached(keyed, "alice") == len(IDS) - 1
    # Whatever is guessed of it, what counts is what the guesses have in common with each other.
    guesses = [[*IDS[:length], 100] for length in (20, 80, 159)]
    assert [cached(keyed, "mallory", prompt=guess) for guess in guesses] == [0, 20, 80]


def test_the_work_is_the_same_too(keyed):
    prompt = [*[11, 12, 13] * 50, 14]
    first = computed(keyed, "alice", prompt=prompt)
    assert computed(keyed, "mallory", prompt=prompt) == first == len(prompt)
    assert computed(keyed, "alice", prompt=prompt) == 1


def test_a_salt_separates_the_requests_of_one_key(keyed):
    prompt = [21, 22, 23] * 50
    assert cached(keyed, "alice", prompt=prompt, cache_salt="one") == 0
    assert cached(keyed, "alice", prompt=prompt, cache_salt="one") == len(prompt) - 1
    assert cached(keyed, "alice", prompt=prompt, cache_salt="two") == 0
    assert cached(keyed, "alice", prompt=prompt) == 0
    # Nobody comes by the prompts of another key with a salt.
    assert cached(keyed, "mallory", prompt=prompt, cache_salt="one") == 0
    for wrong in ("", "x" * 1000, 5):
        status, reply = keyed.post("/v1/completions", {"prompt": "a", "cache_salt": wrong}, {"X-Api-Key": "alice"})
        assert (status, reply["error"]["param"]) == (400, "cache_salt")


def test_every_interface_keeps_keys_apart():
    with serve("--api-key", "alice", "--api-key", "mallory") as server:

        def ask(key):
            headers = {"X-Api-Key": key}
            _, anthropic = server.post("/v1/messages", ANTHROPIC, headers)
            _, chat = server.post("/v1/chat/completions", ANTHROPIC, headers)
            body = {"input": "Tell me about the hills. " * 20, "max_output_tokens": 1}
            _, responses = server.post("/v1/responses", body, headers)
            return [
                anthropic["usage"]["cache_read_input_tokens"],
                chat["usage"]["prompt_tokens_details"]["cached_tokens"],
                responses["usage"]["input_tokens_details"]["cached_tokens"],
            ]

        first = ask("alice")
        assert ask("mallory") == first
        assert ask("alice") > first, "its own prompts are reused"


def test_keys_may_share():
    with serve("--api-key", "alice", "--api-key", "bob", "--share-prefix-cache") as server:
        assert cached(server, "alice") == 0
        assert cached(server, "bob") == len(IDS) - 1
        assert cached(server, "alice", cache_salt="own", prompt=IDS) == 0


def test_without_keys_all_requests_share(server):
    prompt = [31, 32, 33] * 50
    assert cached(server, prompt=prompt) == 0
    assert cached(server, prompt=prompt) == len(prompt) - 1
    assert cached(server, prompt=prompt, cache_salt="own") == 0
