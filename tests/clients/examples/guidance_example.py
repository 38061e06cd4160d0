"""A chat with a generated part."""

import os

from guidance import assistant, gen, models, system, user

lm = models.OpenAI("smol", api_key="none", base_url=os.environ["OPENAI_BASE_URL"], echo=False)
with system():
    lm += "You are brief."
with user():
    lm += "Say hello."
with assistant():
    lm += gen(name="answer", max_tokens=20)
assert lm["answer"]
