"""A message, a stream, the tool runner and the list of models."""

from anthropic import Anthropic, beta_tool

client = Anthropic(max_retries=0)
messages = [{"role": "user", "content": "Say hello."}]
message = client.messages.create(model="smol", max_tokens=20, messages=messages)
assert message.content[0].text
with client.messages.stream(model="smol", max_tokens=20, messages=messages) as stream:
    assert "".join(stream.text_stream)
assert client.messages.count_tokens(model="smol", messages=messages).input_tokens > 5
assert [model.id for model in client.models.list()] == ["smol"]

asked = []


@beta_tool
def get_weather(location: str) -> str:
    """Gets the weather in a place.

    Args:
        location: The place, such as Paris.
    """
    asked.append(location)
    return "20 degrees"


runner = client.beta.messages.tool_runner(
    model="smol",
    max_tokens=200,
    max_iterations=2,
    tools=[get_weather],
    tool_choice={"type": "any"},
    messages=[{"role": "user", "content": "What is the weather in Paris?"}],
)
turns = list(runner)
assert turns[0].stop_reason == "tool_use", turns[0]
assert asked
