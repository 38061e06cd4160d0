"""A completion, a chat and a stream."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

llm = OpenAILike(
    model="smol",
    api_base=os.environ["OPENAI_BASE_URL"],
    api_key="none",
    is_chat_model=True,
    context_window=2048,
    max_tokens=20,
    max_retries=0,
)
assert llm.complete("Paul Graham is ").text
assert llm.chat([ChatMessage(role="user", content="Say hello.")]).message.content
assert "".join(part.delta or "" for part in llm.stream_complete("Once upon a time"))
