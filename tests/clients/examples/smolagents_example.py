"""An agent that calls tools until it has an answer."""

import os

from smolagents import OpenAIServerModel, ToolCallingAgent, tool


@tool
def get_weather(city: str) -> str:
    """Gets the weather in a city.

    Args:
        city: The city.
    """
    return f"It is sunny in {city}."


model = OpenAIServerModel(
    "smol", api_base=os.environ["OPENAI_BASE_URL"], api_key="none", max_tokens=200, temperature=0.0
)
agent = ToolCallingAgent(tools=[get_weather], model=model, max_steps=2)
assert agent.run("What is the weather in Paris?")
calls = [call for step in agent.memory.steps for call in getattr(step, "tool_calls", None) or ()]
assert calls, agent.memory.steps
