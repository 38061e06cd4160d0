"""A model of which tests say what it answers: for what the embedded one rarely does."""

from types import MappingProxyType, SimpleNamespace

from fastllm.results import EngineStats, Timings, TopLogprob, Usage

USAGE = Usage(10, 4, 6)


def chunk(content="", reasoning=None, calls=(), ids=(1,)):
    deltas = tuple(
        SimpleNamespace(index=index, id=id_, name=name, arguments=arguments) for index, id_, name, arguments in calls
    )
    return SimpleNamespace(
        content=content, reasoning_content=reasoning, tool_calls=deltas, token_ids=ids, logprobs=None
    )


def reply(content="", reasoning=None, calls=(), reason="stop", stop=None):
    found = tuple(SimpleNamespace(id=id_, name=name, arguments=arguments) for id_, name, arguments in calls)
    return SimpleNamespace(
        content=content,
        reasoning_content=reasoning,
        tool_calls=found,
        finish_reason=reason,
        stop_reason=stop,
        usage=USAGE,
        timings=Timings(0, 0, 0, 0, 0, 0),
        logprobs=None,
    )


class Stream:
    prompt_tokens = 10

    def __init__(self, items, result):
        self._items = iter(items)
        self._result = result

    async def start(self):
        pass

    async def __anext__(self):
        item = next(self._items, None)
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item

    async def result(self):
        return self._result

    def close(self):
        pass


class Model:
    """Gives these chunks and this reply, and notes what it was asked."""

    architecture, isa, context_length, vocab_size = "fake", "none", 512, 16
    default_sampling = default_chat_sampling = MappingProxyType({})
    chat_template = SimpleNamespace(variables=frozenset({"messages", "enable_thinking"}), reasons=True)

    def __init__(self, chunks, result):
        self.chunks = chunks
        self.reply = result
        self.asked = None
        self.tokenizer = SimpleNamespace(decode_bytes=lambda *_, **__: b"x", display=TopLogprob)

    def stats(self):
        return EngineStats(0, 0, 0, 0, 0, 0, 0)

    def achat_stream(self, messages, params, **keywords):
        self.asked = SimpleNamespace(messages=messages, params=params, **keywords)
        return Stream(self.chunks, self.reply)


CALLS = Model(
    [
        chunk(reasoning="Hm", ids=(1, 2)),
        chunk(reasoning="m."),
        chunk("Let me see."),
        chunk(calls=[(0, "call_1", "get_weather", "")]),
        chunk(calls=[(0, None, None, '{"city": ')]),
        chunk(calls=[(0, None, None, '"Paris"}')]),
        chunk(calls=[(1, "call_2", "add", '{"a": 1, "b": 2}')]),
    ],
    reply(
        "Let me see.",
        "Hmm.",
        [("call_1", "get_weather", '{"city": "Paris"}'), ("call_2", "add", '{"a": 1, "b": 2}')],
        "tool_calls",
    ),
)
