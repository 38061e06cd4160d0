"""An agent that answers."""

import asyncio

from openai import AsyncOpenAI
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion


async def main():
    """One question."""
    service = OpenAIChatCompletion(ai_model_id="smol", async_client=AsyncOpenAI(max_retries=0))
    agent = ChatCompletionAgent(service=service, name="SK", instructions="You are brief.")
    response = await agent.get_response(messages="Write a haiku about recursion.")
    assert response.content.content


asyncio.run(main())
