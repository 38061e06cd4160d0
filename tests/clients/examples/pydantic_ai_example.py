"""Text, and an object in the default mode, which is a tool call."""

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.settings import ModelSettings


class City(BaseModel):
    """Where something is."""

    city: str
    country: str


model = OpenAIChatModel("smol")
settings = ModelSettings(max_tokens=200, temperature=0)
assert Agent(model, instructions="Be concise.", model_settings=settings).run_sync("Say hello.").output
agent = Agent(model, output_type=City, model_settings=settings, retries=3)
result = agent.run_sync("Where were the olympics held in 2012?")
assert isinstance(result.output, City)
