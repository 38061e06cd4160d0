"""The programs in examples/, on the embedded model."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from .conftest import ROOT

EXAMPLES = ROOT / "examples"
if not EXAMPLES.is_dir():
    pytest.skip("examples/ is not here", allow_module_level=True)


def run(name, *arguments, stdin=""):
    result = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)],
        input=stdin, capture_output=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_every_example_is_listed_and_tested():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tested = (ROOT / "tests/test_examples.py").read_text(encoding="utf-8")
    for name in names:
        assert f"]({name})" in listed
        assert f'"{name}"' in tested


def test_chatbot(demo_path):
    lines = "What is the capital of France?\n\nMy name is Ravi.\nWhat is my name?\n"
    expected = ["The capital of France is Paris.", "Nice to meet you, Ravi!", "Your name is Ravi."]
    assert run("chatbot.py", stdin=lines) == expected
    assert run("chatbot.py", demo_path, stdin=lines) == expected


def test_chatbot_forgets_the_oldest():
    """Far more than the context of 512 tokens; the last answer is right all the same."""
    lines = ["My name is Ravi.", *["Count from 1 to 10 in Hindi."] * 12, "What is the capital of India?"]
    assert run("chatbot.py", stdin="\n".join(lines))[-1] == "The capital of India is New Delhi."


def test_tool_agent():
    assert run("tool_agent.py") == [
        "What is the weather in Paris and in Oslo?",
        '  get_weather({"city": "Paris"}) -> {"temp": 21, "sky": "sunny"}',
        '  get_weather({"city": "Oslo"}) -> {"temp": 4, "sky": "snowy"}',
        "It is 21 degrees and sunny in Paris. It is 4 degrees and snowy in Oslo.",
        "Add 21 and 34.",
        '  add({"a": 21, "b": 34}) -> 55',
        "21 plus 34 is 55.",
    ]


def test_tool_agent_says_what_went_wrong():
    """To the model, that is: an agent does not fall over a wrong call."""
    agent = load("tool_agent")
    assert agent.call("add", {"a": 1, "b": 2}) == "3"
    for name, arguments in (("add", {"a": 1}), ("none", {}), ("get_weather", {"city": "Atlantis"})):
        assert set(json.loads(agent.call(name, arguments))) == {"error"}


def test_json_extraction():
    rows = [line.split() for line in run("json_extraction.py")]
    assert rows == [["lamp", "40"], ["kite", "7"], ["clock", "95"]]


def test_code_completion(model, tmp_path):
    example = load("code_completion")
    before, _, after = example.CODE.partition(example.CURSOR)
    text = "\n".join(run("code_completion.py")).rstrip()
    made = model.generate(before.rstrip(" "), max_tokens=64, temperature=0, stop=example.STOP).text
    assert text == (before + made.removeprefix("    ") + after).rstrip()
    story = tmp_path / "story.txt"
    story.write_text("Once upon a time<cursor> The end.", encoding="utf-8")
    (line,) = run("code_completion.py", model.path, story)
    assert line.startswith("Once upon a time, there was a ")
    assert line.endswith(" The end.")


def test_code_completion_fills_in_the_middle(model):
    example = load("code_completion")
    encode = model.tokenizer.encode
    tokens = dict(zip(example.FILL_IN, (7, 8, 9), strict=True))
    coder = SimpleNamespace(metadata=tokens, tokenizer=model.tokenizer)
    assert example.prompt(coder, "ab", "cd") == [7, *encode("ab", add_special=False), 8, *encode("cd", add_special=False), 9]  # fmt: skip  # noqa: E501
    del tokens[example.FILL_IN[1]]
    assert example.prompt(coder, "ab", "cd") == encode("ab")


def test_hindi_support_bot():
    questions = "Asha\nमेरा ऑर्डर कब आएगा?\nmera refund kab milega\ndukan ka time kya hai\n\nक्या आप चाँद पर जाते हैं?\n"
    assert run("hindi_support_bot.py", stdin=questions) == [
        "नमस्ते, Asha!",
        "डिलीवरी 3 से 5 दिन में होती है।  [list]",
        "रिफंड 7 दिन में आपके खाते में आता है।  [list]",
        "दुकान सुबह 9 बजे खुलती है और रात 8 बजे बंद होती है।  [list]",
        "मुझे यह नहीं पता। मैं आपको हमारे साथी से जोड़ता हूँ।  [person]",
        "अलविदा",
    ]


def test_hindi_support_bot_checks_what_a_model_says():
    bot = load("hindi_support_bot")
    checked = "रिफंड 7 दिन में आपके खाते में आता है।"
    for good in (checked, "आपका रिफंड 7 दिन में आपके खाते में आता है।", "रिफंड ७ दिन में खाते में आता है"):
        assert bot.agrees(good, checked), good
    for bad in ("रिफंड 9 दिन में आपके खाते में आता है।", "रिफंड 7 दिन में आपके खाते में नहीं आता है।", "नमस्ते", "", "7"):
        assert not bot.agrees(bad, checked), bad
    for entry in bot.FAQ:
        assert all(bot.find(question) is entry for question in entry.questions)
    assert bot.find("") is None

    def asked(said):
        reply = SimpleNamespace(content=f" {said}\n")
        return bot.answer(SimpleNamespace(chat=lambda *_, **__: reply), "refund kab milega")

    assert asked("रिफंड 7 दिन में खाते में आता है") == ("रिफंड 7 दिन में खाते में आता है", "model")
    assert asked("आज ही") == (checked, "list")
