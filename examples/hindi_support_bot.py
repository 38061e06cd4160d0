"""Customer service in Hindi and Hinglish: finds the answer in a list of questions, and lets the model say it.

    python examples/hindi_support_bot.py [MODEL.gguf]

Customers must not be told what is not true. So the model gets one checked answer to work from, and what it says is
compared with it: if a number, a negation or most of the words differ, the checked answer is given as it is. That is a
safeguard and no proof. A question that is not in the list goes to a person. The embedded model can greet in Hindi but
not answer, so there the list speaks.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass

from fastllm import ContextOverflowError, Model


@dataclass(frozen=True)
class Entry:
    """Ways to ask for something, in both scripts, and the checked answer."""

    questions: tuple[str, ...]
    answer: str


FAQ = (
    Entry(
        ("मेरा ऑर्डर कब आएगा?", "डिलीवरी में कितने दिन लगते हैं?", "mera order kab aayega", "delivery kitne din me hogi"),
        "डिलीवरी 3 से 5 दिन में होती है।",
    ),
    Entry(
        ("पैसे वापस कैसे मिलेंगे?", "रिफंड कब आएगा?", "refund kab milega", "paise wapas kaise milenge"),
        "रिफंड 7 दिन में आपके खाते में आता है।",
    ),
    Entry(
        ("सामान कैसे लौटाएँ?", "वापसी की शर्त क्या है?", "saman return kaise kare", "return policy kya hai"),
        "आप 10 दिन में सामान लौटा सकते हैं।",
    ),
    Entry(
        ("दुकान कब खुलती है?", "आपका समय क्या है?", "dukan kab khulti hai", "shop timing kya hai"),
        "दुकान सुबह 9 बजे खुलती है और रात 8 बजे बंद होती है।",
    ),
)
UNKNOWN = "मुझे यह नहीं पता। मैं आपको हमारे साथी से जोड़ता हूँ।"
SYSTEM = "आप दुकान के सहायक हैं। केवल इस जानकारी से, एक वाक्य में, हिंदी में उत्तर दें: {}"
# Words that say nothing about what is asked.
COMMON = frozenset(
    {"क्या", "है", "हैं", "कब", "कैसे", "में", "की", "के", "का", "मेरा", "kya", "hai", "kab", "kaise", "me", "ki", "ka"}
)
# Words that turn an answer around.
NEGATIONS = frozenset({"नहीं", "न", "मत", "बिना", "nahi", "nahin", "mat", "bina", "not", "no", "never"})
# Least share of a question's weight that its entry must have, and of words common to an answer and the checked one.
FOUND, SAID = 0.4, 0.6


def words(text: str) -> set[str]:
    """The words of a text in either script, without the common ones."""
    # Vowel signs of Devanagari are no letters to `\w`.
    return set(re.findall(r"[\w\u0900-\u0963]+", text.lower())) - COMMON


def find(question: str) -> Entry | None:
    """The entry that shares the most with a question; words that few entries have count more."""
    entries = {entry: words(" ".join(entry.questions)) for entry in FAQ}

    def weight(word: str) -> float:
        return math.log(1 + len(FAQ) / (1 + sum(word in known for known in entries.values())))

    asked = words(question)
    total = sum(map(weight, asked))
    scores = {entry: sum(map(weight, asked & known)) for entry, known in entries.items()}
    best = max(FAQ, key=lambda entry: scores[entry])
    return best if total and scores[best] / total >= FOUND else None


def agrees(said: str, checked: str) -> bool:
    """Whether an answer says what the checked one says: the same numbers and negations, and mostly its words."""
    mine, theirs = words(said), words(checked)
    same_numbers = numbers(said) == numbers(checked) and mine & NEGATIONS == theirs & NEGATIONS
    return same_numbers and len(mine & theirs) >= SAID * max(len(mine), len(theirs))


def numbers(text: str) -> list[int]:
    """The numbers in a text, in the digits of either script."""
    return sorted(int(digits) for digits in re.findall(r"\d+", text))


def say(model: Model, *messages: tuple[str, str]) -> str:
    """What the model answers."""
    conversation = [{"role": role, "content": content} for role, content in messages]
    return model.chat(conversation, temperature=0, max_tokens=120).content.strip()


def answer(model: Model, question: str) -> tuple[str, str]:
    """The answer to a customer, and who gives it: the model, the list, or a person."""
    entry = find(question)
    if entry is None:
        return UNKNOWN, "person"
    try:
        said = say(model, ("system", SYSTEM.format(entry.answer)), ("user", question))
    except ContextOverflowError:  # a long question, a small model
        return entry.answer, "list"
    return (said, "model") if agrees(said, entry.answer) else (entry.answer, "list")


def main(model: Model) -> None:
    """Serves a customer whose name is the first line of standard input, and whose questions are the others."""
    name = sys.stdin.readline().strip() or "Asha"
    print(say(model, ("user", f"Greet {name} in Hindi.")))
    for line in sys.stdin:
        if line.strip():
            text, source = answer(model, line.strip())
            print(f"{text}  [{source}]")
    print(say(model, ("user", "Say goodbye in Hindi.")))


if __name__ == "__main__":
    main(Model(sys.argv[1]) if len(sys.argv) > 1 else Model.demo())
