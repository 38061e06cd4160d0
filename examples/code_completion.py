"""Completes code at the cursor, as an editor would ask for it.

    python examples/code_completion.py [MODEL.gguf [FILE]]

`<cursor>` in the file says where. Models for code are trained to fill in the middle and have tokens for it: they see
what follows too. Any other model continues what is before the cursor. The embedded model knows no code: it shows how
the calls look, and writes nonsense.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastllm import Model

CURSOR = "<cursor>"
CODE = f'''def mean(numbers: list[float]) -> float:
    """The arithmetic mean."""
    {CURSOR}


def median(numbers: list[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
'''
# Where a completion has gone too far: an empty line, or the next definition.
STOP = ["\n\n", "\ndef ", "\nclass "]
# The metadata of a file names the tokens before the prefix, the suffix and the middle.
FILL_IN = [f"tokenizer.ggml.fim_{part}_token_id" for part in ("pre", "suf", "mid")]


def prompt(model: Model, before: str, after: str) -> list[int]:
    """The tokens that ask for what belongs between two texts."""
    encode = model.tokenizer.encode
    tokens = [model.metadata.get(name) for name in FILL_IN]
    if not all(isinstance(token, int) for token in tokens):
        return encode(before)
    prefix, suffix, middle = (int(str(token)) for token in tokens)
    return [prefix, *encode(before, add_special=False), suffix, *encode(after, add_special=False), middle]


def complete(model: Model, code: str, max_tokens: int = 64) -> str:
    """What belongs at the cursor."""
    before, _, after = code.partition(CURSOR)
    # Space before the cursor is left to the model: tokens of code begin with it.
    ids = prompt(model, before.rstrip(" "), after)
    indentation = before[len(before.rstrip(" ")) :]
    text = model.generate(ids, max_tokens=max_tokens, temperature=0, stop=STOP).text
    return text.removeprefix(indentation)


def main(model: Model, code: str) -> None:
    """Prints the code with what was missing."""
    print(code.replace(CURSOR, complete(model, code), 1))


if __name__ == "__main__":
    main(
        Model(sys.argv[1]) if len(sys.argv) > 1 else Model.demo(),
        Path(sys.argv[2]).read_text(encoding="utf-8") if len(sys.argv) > 2 else CODE,  # noqa: PLR2004
    )
