"""A completion, the bridge from Anthropic's interface, and the error about the context."""

import asyncio

import litellm

messages = [{"role": "user", "content": "Say hello."}]
options = {"model": "openai/smol", "num_retries": 0}
assert litellm.completion(**options, messages=messages, max_tokens=20).choices[0].message.content
parts = litellm.completion(**options, messages=messages, max_tokens=20, stream=True)
assert "".join(part.choices[0].delta.content or "" for part in parts)


async def bridge():
    """Anthropic's messages, sent to a model with OpenAI's interface."""
    return await litellm.anthropic.messages.acreate(
        model="openai/smol",
        max_tokens=20,
        system=[{"type": "text", "text": "You are brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Hello.", "cache_control": {"type": "ephemeral"}}]}
        ],
    )


assert asyncio.run(bridge())["content"][0]["text"]
try:
    litellm.completion(**options, messages=[{"role": "user", "content": "word " * 20_000}])
except litellm.ContextWindowExceededError:
    pass
else:
    raise AssertionError("a prompt that is too long must be an error of its own")
