"""Text, and an object that follows a schema."""

import openai
import outlines
from pydantic import BaseModel


class Character(BaseModel):
    """A character of a game."""

    name: str
    age: int


model = outlines.from_openai(openai.OpenAI(max_retries=0), "smol")
assert model("Say hello.", max_tokens=20)
text = model("Make a character, as JSON.", Character, max_tokens=200, temperature=0)
assert Character.model_validate_json(text)
