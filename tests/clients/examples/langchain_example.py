"""A chat, structured output, and an agent of LangGraph."""

from langchain.agents import create_agent
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(city: str) -> str:
    """Gets the weather in a city."""
    return f"It is sunny in {city}."


llm = ChatOpenAI(model="smol", max_tokens=200, temperature=0, max_retries=0)
assert llm.invoke("Say hello.").content
assert "".join(chunk.content for chunk in llm.stream("Say hello."))
person = llm.with_structured_output(Person).invoke("Anna is 35 years old.")
assert isinstance(person, Person)
call = llm.bind_tools([get_weather], tool_choice="get_weather").invoke("What is the weather in Paris?").tool_calls[0]
assert call["name"] == "get_weather"
agent = create_agent(llm, tools=[get_weather])
question = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}]}
# A small model may call the tool again and again: what counts is that its result comes back to the model.
steps = [next(iter(step)) for step, _ in zip(agent.stream(question, stream_mode="updates"), range(3), strict=False)]
assert steps in (["model"], ["model", "tools", "model"]), steps
