"""An agent on the responses interface, and one with a tool on the chat interface."""

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_default_openai_client,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

set_tracing_disabled(True)
client = AsyncOpenAI(max_retries=0)
set_default_openai_client(client)
settings = ModelSettings(max_tokens=500, temperature=0)
agent = Agent(name="Assistant", instructions="You are brief.", model="smol", model_settings=settings)
assert Runner.run_sync(agent, "Say hello.").final_output
asked = []


@function_tool
def get_weather(city: str) -> str:
    """Gets the weather in a city."""
    asked.append(city)
    return "sunny"


for model in ("smol", OpenAIChatCompletionsModel("smol", client)):
    agent = Agent(
        name="Weather",
        model=model,
        tools=[get_weather],
        tool_use_behavior="stop_on_first_tool",
        model_settings=ModelSettings(max_tokens=500, temperature=0, tool_choice="required"),
    )
    assert Runner.run_sync(agent, "What is the weather in Tokyo?", max_turns=4).final_output
assert len(asked) > 1
