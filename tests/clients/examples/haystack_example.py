"""A generator of chat messages, whole and streamed."""

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.dataclasses import ChatMessage

generator = OpenAIChatGenerator(model="smol", generation_kwargs={"max_tokens": 20}, max_retries=0)
messages = [ChatMessage.from_system("You are brief."), ChatMessage.from_user("Say hello.")]
assert generator.run(messages)["replies"][0].text
parts = []
generator.run(messages, streaming_callback=lambda chunk: parts.append(chunk.content))
assert "".join(parts)
