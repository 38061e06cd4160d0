"""An agent: the model asks for functions of this program, gets their results, and answers with what it learned.

    python examples/tool_agent.py [MODEL.gguf [QUESTION]]

A function's name, parameters, types and docstring are what the model sees of it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from fastllm import Model

# What a weather service would say.
WEATHER = {"Paris": {"temp": 21, "sky": "sunny"}, "Oslo": {"temp": 4, "sky": "snowy"}}
# Rounds of calls before the agent gives up: a model may ask for ever.
ROUNDS = 5


def get_weather(city: str) -> dict[str, Any]:
    """Get the weather in a city."""
    return WEATHER[city]


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOLS = {function.__name__: function for function in (get_weather, add)}


def call(name: str, arguments: dict[str, Any]) -> str:
    """The result of a function as JSON. What goes wrong is a result too: the model may mend it."""
    try:
        return json.dumps(TOOLS[name](**arguments), ensure_ascii=False)
    except (LookupError, TypeError, ValueError) as error:
        return json.dumps({"error": f"{type(error).__name__}: {error}"})


def ask(model: Model, question: str) -> str:
    """The answer to a question, after as many calls as it takes."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    for _ in range(ROUNDS):
        reply = model.chat(messages, tools=list(TOOLS.values()), tool_choice="auto", temperature=0, max_tokens=300)
        messages.append(reply.message)
        if not reply.tool_calls:
            return reply.content
        for tool_call in reply.tool_calls:
            result = call(tool_call.name, tool_call.parse())
            print(f"  {tool_call.name}({tool_call.arguments}) -> {result}")
            messages.append({"role": "tool", "tool_call_id": tool_call.id, "content": result})
    raise RuntimeError(f"no answer after {ROUNDS} rounds of calls")


def main(model: Model, questions: list[str]) -> None:
    """Answers questions."""
    for question in questions or ["What is the weather in Paris and in Oslo?", "Add 21 and 34."]:
        print(question)
        print(ask(model, question))


if __name__ == "__main__":
    main(Model(sys.argv[1]) if len(sys.argv) > 1 else Model.demo(), sys.argv[2:])
