"""An object by a tool call, and by JSON."""

import instructor
from openai import OpenAI
from pydantic import BaseModel


# No docstring: it would be a part of the schema, which a small model repeats instead of the user.
class User(BaseModel):
    name: str
    age: int


for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON):
    client = instructor.from_openai(OpenAI(max_retries=0), mode=mode)
    user = client.chat.completions.create(
        model="smol",
        response_model=User,
        max_tokens=200,
        temperature=0,
        max_retries=2,
        messages=[{"role": "user", "content": "Extract: Jason is 25 years old."}],
    )
    assert isinstance(user, User), mode
