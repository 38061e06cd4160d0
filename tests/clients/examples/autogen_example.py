"""An assistant with a tool."""

import asyncio

from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient


async def get_weather(city: str) -> str:
    """Gets the weather in a city."""
    return f"The weather in {city} is 20 degrees."


async def main():
    """One task."""
    info = {
        "vision": False,
        "function_calling": True,
        "json_output": True,
        "family": "unknown",
        "structured_output": True,
    }
    client = OpenAIChatCompletionClient(model="smol", model_info=info, max_tokens=100, max_retries=0)
    agent = AssistantAgent("assistant", model_client=client, tools=[get_weather], system_message="Use tools.")
    result = await agent.run(task="What is the weather in New York?")
    assert result.messages[-1].content
    await client.close()


asyncio.run(main())
