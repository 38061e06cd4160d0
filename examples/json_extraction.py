"""Facts out of sentences, as objects: the answer is held to a JSON schema while it is made, so it always parses.

    python examples/json_extraction.py [MODEL.gguf]

The schema says what an answer may look like; whether it is true is up to the model.
"""

from __future__ import annotations

import json
import sys
from typing import TypedDict

from fastllm import Model

SENTENCES = ["The lamp costs 40 dollars.", "I paid 7 dollars for a kite.", "A clock is 95 dollars."]


class Offer(TypedDict):
    """What something costs."""

    item: str
    price: int


SCHEMA = {
    "type": "object",
    "properties": {"item": {"type": "string"}, "price": {"type": "integer", "minimum": 0}},
    "required": ["item", "price"],
    "additionalProperties": False,
}


def extract(model: Model, sentence: str) -> Offer:
    """The item and the price in a sentence."""
    reply = model.chat(
        [{"role": "user", "content": f"Extract item and price as JSON: {sentence}"}],
        response_format={"type": "json_schema", "json_schema": {"name": "offer", "schema": SCHEMA}},
        temperature=0,
        max_tokens=100,
    )
    if reply.finish_reason != "stop":  # the schema holds for what is there, but the end is missing
        raise ValueError(f"the answer was cut off: {reply.content!r}")
    offer: Offer = json.loads(reply.content)
    return offer


def main(model: Model) -> None:
    """Prints what each sentence says."""
    for sentence in SENTENCES:
        offer = extract(model, sentence)
        print(f"{offer['item']:>10}  {offer['price']:>4}")


if __name__ == "__main__":
    main(Model(sys.argv[1]) if len(sys.argv) > 1 else Model.demo())
