"""Chat, a stream, and the responses interface."""

from openai import OpenAI

client = OpenAI(max_retries=0)
messages = [{"role": "user", "content": "Say hello."}]
reply = client.chat.completions.create(model="smol", messages=messages, max_tokens=20)
assert reply.choices[0].message.content
stream = client.chat.completions.create(model="smol", messages=messages, max_tokens=20, stream=True)
assert "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
response = client.responses.create(
    model="smol", instructions="You are brief.", input="Say hello.", max_output_tokens=20, truncation="auto"
)
assert response.output_text
assert [model.id for model in client.models.list()] == ["smol"]
