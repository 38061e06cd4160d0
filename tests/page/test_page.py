"""The chat page: what its user can do, what it sends, and how it looks."""

import re
import subprocess
import sys
import threading

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys

from .conftest import Page
from .fake_openai import answer, end


def test_it_asks_and_streams(page, server):
    assert page.one("#welcome").is_displayed()
    assert not page.one("#send").is_enabled()
    server.script = [
        {"role": "assistant", "content": ""},
        {"content": "Paris is "},
        0.6,
        {"content": "the capital. 🙂"},
    ]
    server.script += end(9)
    page.send("What is the capital of France?")
    page.until(lambda: page.one("[data-role=assistant] .parts").text == "Paris is")
    assert page.one("[data-role=assistant]").get_attribute("aria-busy") == "true"
    assert page.one("#stop").is_displayed()
    assert not page.one("#welcome").is_displayed()
    page.until(lambda: "the capital. 🙂" in page.one("[data-role=assistant] .parts").text)
    page.until(lambda: page.one("#send").is_displayed())
    assert page.one("[data-role=user] .content").text == "What is the capital of France?"
    stats = page.one("[data-role=assistant] .stats").text
    assert re.fullmatch(r"9 tokens · [0-9.]+ tokens/s · first after [0-9.]+ s", stats), stats
    assert 10 < float(stats.split()[3]) < 15, "eight tokens after the first, in 0.6 s"
    assert "Paris is the capital" in page.one("#status").get_attribute("textContent")
    request = server.requests[0]
    assert request == {
        "model": "small-model",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0.7,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_settings_and_the_conversation_are_sent(page, server):
    page.settings(system="Be brief. संक्षेप में।", temperature="0.3", **{"max-tokens": "50"})
    page.script("const m = document.getElementById('model'); m.selectedIndex = 1; m.dispatchEvent(new Event('change'))")
    page.ask("One", answer("First."))
    page.ask("Two", answer("Second.", size=1))
    request = server.requests[1]
    assert (request["model"], request["temperature"], request["max_tokens"]) == ("large-model-instruct-q4_k_m", 0.3, 50)
    assert [(m["role"], m["content"]) for m in request["messages"]] == [
        ("system", "Be brief. संक्षेप में।"),
        ("user", "One"),
        ("assistant", "First."),
        ("user", "Two"),
    ]
    page.open()
    assert [m.text for m in page.all(".message .content")] == ["One", "First.", "Two", "Second."], "kept"
    assert page.script("return document.getElementById('model').value") == "large-model-instruct-q4_k_m"
    assert page.script("return document.getElementById('temperature').value") == "0.3"


def test_reasoning_and_tool_calls_are_folded(page):
    script = [
        {"role": "assistant"},
        {"reasoning_content": "The user asks about "},
        0.3,
        {"reasoning_content": "the **weather**."},
        {
            "tool_calls": [
                {"index": 0, "id": "a", "type": "function", "function": {"name": "get_weather", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]},
        {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "add", "arguments": '{"a": 1'}}]},
        *end(20, "tool_calls"),
    ]
    message = page.ask("What is the weather in Paris?", script)
    reasoning, first, second = message.find_elements("css selector", "details")
    assert [d.get_attribute("open") for d in (reasoning, first, second)] == [None] * 3
    assert reasoning.text == "Thought for 0.3 s"
    assert (first.text, second.text) == ("Calls get_weather", "Calls add")
    for details in (reasoning, first, second):
        details.find_element("css selector", "summary").click()
    assert reasoning.find_element("css selector", "strong").text == "weather"
    assert first.find_element("css selector", "pre").text == '{\n  "city": "Paris"\n}'
    assert second.find_element("css selector", "pre").text == '{"a": 1', "as it came, where it is no JSON"
    page.picture("tools")


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop(page, server, how):
    server.script = [{"content": "word "}, *[0.05, {"content": "word "}] * 200, *end(200)]
    page.send("Go on")
    page.until(lambda: "word word" in page.one("[data-role=assistant] .parts").text)
    if how == "button":
        page.one("#stop").click()
    else:
        page.one("#input").send_keys(Keys.ESCAPE)
    page.until(lambda: page.one("#send").is_displayed())
    assert server.left.wait(5), "the connection was closed, so that the server stops too"
    assert re.match(r"about \d+ tokens · .* · stopped", page.one("[data-role=assistant] .stats").text)
    assert page.ask("And now?", answer("Fine.")).text.startswith("Fine.")
    assert server.requests[1]["messages"][1]["content"].startswith("word word"), "what was there stays"


@pytest.mark.parametrize(
    ("failure", "text"),
    [
        ((429, {"error": {"message": "queue"}}, [("Retry-After", "7")]), "The server is busy. Try again in 7 s."),
        ((503, {}, []), "The server is busy. Try again in a moment."),
        ((400, {"error": {"message": "the prompt has 900 tokens, the context holds 512"}}, []),
         "The prompt has 900 tokens, the context holds 512."),
        ((500, {}, []), "The server answered with an error (500)."),
    ],
)  # fmt: skip
def test_errors_in_words(page, server, failure, text):
    page.expected = ("status of",)
    server.failure = failure
    assert page.ask("Hello", []).text.startswith(text)
    server.failure = None
    server.script = answer("Hello!")
    page.one("[data-role=assistant] .actions .link").click()  # try again
    page.until(lambda: "Hello!" in page.one("[data-role=assistant] .parts").text)
    assert [m["role"] for m in server.requests[1]["messages"]] == ["user"]


def test_a_question_that_failed_is_not_sent_again(page, server):
    page.expected = ("status of",)
    page.ask("Hello", answer("Hi."))
    server.failure = (400, {"error": {"message": "too long"}}, [])
    page.ask("Long", [])
    server.failure = None
    page.ask("Short", answer("Yes."))
    assert [m["content"] for m in server.requests[2]["messages"]] == ["Hello", "Hi.", "Short"]


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ([{"content": "Half"}], "The connection ended before the answer did."),
        ([{"content": "Half"}, {"data": '{"error": {"message": "out of memory"}}'}], "Out of memory."),
        ([{"content": "Half"}, {"data": "{"}], "The server sent something that is no JSON."),
    ],
)
def test_answers_that_break_off(page, script, text):
    message = page.ask("Hello", script)
    assert message.find_element("css selector", ".content").text == "Half"
    assert message.find_element("css selector", "[role=alert]").text == text


def test_other_ends(page):
    page.ask("x", [{"content": "a"}, *end(1, "length")])
    assert page.one("[data-role=assistant] .stats").text.endswith(" · cut off at the longest length")
    assert page.ask("x", end(0)).text == "The model answered with nothing."


def test_a_server_that_is_gone(page, server):
    page.expected = ("ERR_CONNECTION_REFUSED",)
    server.shutdown()
    server.socket.close()
    assert page.ask("Hello", []).text.startswith("The server cannot be reached. Is it still running?")


def test_the_api_key(page, server):
    page.expected = ("status of 401",)
    server.key = "secret-key"
    message = page.ask("Hello", [])
    assert message.text.startswith("The server asks for an API key. Enter it in the settings.")
    assert page.script("return document.activeElement.id") == "key", "the settings are open"
    page.one("#key").send_keys("secret-key", Keys.TAB)
    page.one("#settings .title button").click()
    assert page.ask("Again", answer("Welcome.")).text.startswith("Welcome.")
    assert "secret-key" not in page.script("return JSON.stringify({...localStorage})")
    assert page.script("return JSON.stringify({...sessionStorage})").count("secret-key") == 1
    assert "secret" not in page.driver.current_url


def test_clear_and_undo(page):
    page.ask("One", answer("First."))
    page.one("#clear").click()
    assert page.all(".message") == []
    assert page.one("#welcome").is_displayed()
    assert page.script("return localStorage.getItem('fastllm.messages')") == "[]"
    page.one("#toast .link").click()
    assert [m.text for m in page.all(".message .content")] == ["One", "First."]
    page.one("#clear").click()
    page.open()
    assert page.all(".message") == []


def test_damaged_storage_is_no_trouble(page):
    for kept in ("{", "5", "null", '[1, {"role": "x"}, {"role": "user", "content": "kept"}, {"role": "assistant", "content": 5}]'):  # fmt: skip  # noqa: E501
        page.script("localStorage.setItem('fastllm.messages', arguments[0])", kept)
        page.script("localStorage.setItem('fastllm.settings', arguments[0])", kept)
        page.script("window.onpagehide = null; addEventListener('pagehide', (e) => e.stopImmediatePropagation(), true)")
        page.open()
    assert page.ask("Hello", answer("Hi.")).text.startswith("Hi.")


def test_the_keyboard(page, server):
    field = page.one("#input")
    low = field.size["height"]
    field.send_keys("one", Keys.SHIFT, Keys.ENTER, Keys.NULL, "two", Keys.SHIFT, Keys.ENTER, Keys.NULL, "three")
    assert field.get_attribute("value") == "one\ntwo\nthree"
    assert field.size["height"] > low, "it grows"
    page.script(
        "document.getElementById('input').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))"
    )
    assert server.requests == [], "Enter that belongs to an input method sends nothing"
    page.ask("", answer("Yes."))
    assert server.requests[0]["messages"][0]["content"] == "one\ntwo\nthree"
    assert page.one("#input").size["height"] == low
    page.one("#suggestions")
    page.send("   ")
    assert len(server.requests) == 1, "nothing to say, nothing sent"


def test_suggestions_and_copying(page, server):
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    )
    server.script = answer("Text\n```js\nlet x = 1;\n```")
    page.all("#suggestions button")[0].click()
    page.until(lambda: page.all("[data-role=assistant] .below .link"))
    assert server.requests[0]["messages"][0]["content"] == "What is the capital of France?"
    button = page.one("figcaption .link")
    button.click()
    page.until(lambda: button.text == "Copied")
    page.one("#input").send_keys(Keys.CONTROL, "v")
    assert page.one("#input").get_attribute("value") == "let x = 1;"


def test_the_newest_text_stays_in_sight_unless_one_reads(page, server):
    page.ask("x", answer("line\n\n" * 80, size=60))
    bottom = "const m = document.getElementById('scroller'); return m.scrollHeight - m.scrollTop - m.clientHeight < 48"
    page.until(lambda: page.script(bottom))
    server.script = answer("line\n\n" * 80, pause=0.02, size=60)
    page.send("y")
    page.until(lambda: page.all("[aria-busy=true] .content p"))
    page.script("document.getElementById('scroller').scrollTop = 0")
    page.until(lambda: page.one("#newest").is_displayed())
    page.until(lambda: not page.all("[aria-busy=true]"))
    assert page.script("return document.getElementById('scroller').scrollTop") == 0
    page.one("#newest").click()
    page.until(lambda: page.script(bottom))
    assert not page.one("#newest").is_displayed()


def test_everything_has_a_name(page):
    """What a screen reader needs: each control its name, each picture its text or none, a language, one heading."""
    page.ask("x", answer("`a`\n```\nb\n```"))
    nameless = page.script("""
        return [...document.querySelectorAll('button, input, select, textarea')].filter((e) =>
            !(e.textContent.trim() && e.localName === 'button') && !e.getAttribute('aria-label') && !e.labels?.length
        ).map((e) => e.outerHTML)""")
    assert nameless == []
    assert page.script("return [...document.images].every((i) => i.hasAttribute('alt'))")
    assert page.one("html").get_attribute("lang") == "en"
    assert len(page.all("h1")) == 1
    assert page.one("[role=log]").get_attribute("aria-label")
    assert page.one("[role=status]").get_attribute("aria-live") == "polite"


def luminance(colour):
    parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
    r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 375])
def test_looks(page, server, scheme, width):
    """Both colour schemes have enough contrast (WCAG 2.2, 4.5 to 1); nothing is wider than a phone."""
    devtools = page.driver.execute_cdp_cmd
    devtools("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    size = {"width": width, "height": 760, "deviceScaleFactor": 2 if width < 500 else 1, "mobile": width < 500}
    devtools("Emulation.setDeviceMetricsOverride", size)
    try:
        page.open()
        page.picture(f"{scheme}-{width}-empty")
        page.ask("नमस्ते! Explain the train from Paris to Lyon in a table 🙂", SHOWN)
        page.script("document.getElementById('scroller').scrollTop = 0")
        page.picture(f"{scheme}-{width}")
        page.script("document.getElementById('scroller').scrollTop = 1e6")
        page.picture(f"{scheme}-{width}-end")
        assert page.script("return document.documentElement.scrollWidth") == width, "no scrolling sideways"
        assert page.script("return document.documentElement.scrollHeight") == 760, (
            "the conversation scrolls, not the page"
        )
        for selector in (
            ".content p",
            "[data-role=assistant] .stats",
            ".link",
            "#keys",
            "#model",
            ".content a",
            "#clear",
            ".content code",
        ):
            colours = page.script(COLOURS, selector)
            light, dark = sorted(map(luminance, colours), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (selector, colours)
        server.script = [{"content": "It leaves at eight and"}, 1]
        page.send("And then?")
        page.until(lambda: page.all("[aria-busy=true] .content"))
        page.picture(f"{scheme}-{width}-streaming")
        page.until(lambda: page.one("#send").is_displayed())
        page.one("#open-settings").click()
        page.picture(f"{scheme}-{width}-settings")
        page.one("#settings .title button").click()
        server.failure = (400, {"error": {"message": "the prompt has 900 tokens, the context holds 512"}}, [])
        page.expected = ("status of 400",)
        page.ask("Something much too long", [])
        page.picture(f"{scheme}-{width}-error")
    finally:
        devtools("Emulation.clearDeviceMetricsOverride", {})
        devtools("Emulation.setEmulatedMedia", {"features": []})


COLOURS = """
    const element = document.querySelector(arguments[0]);
    let behind = element;
    while (getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
    return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]"""

SHOWN = [
    {"reasoning_content": "The user greets in Hindi and asks about a train."},
    0.2,
    *answer("""नमस्ते! The **TGV** from Paris to Lyon takes about *two hours*. See [the railway](https://example.org/trains).

| train | leaves | arrives | price |
|:------|-------:|--------:|------:|
| TGV 6607 | 08:00 | 09:56 | 42 € |
| TGV 6611 | 10:00 | 11:58 | 56 € |

### How to book

1. Choose a day, `2026-11-26` for example.
2. Take a seat:
   - by the window, or
   - on the *upper* deck.

```python
def price(day: str, seats: int = 1) -> float:
    \"\"\"What the tickets cost, in euros.\"\"\"
    return sum(fare(day) for _ in range(seats))  # a long line that has to be scrolled on a phone
```

> Prices change often. यात्रा शुभ हो! 🚄
""")[:-3],
    {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "search_trains", "arguments": '{"from": "Paris"}'}}]},
    *end(180),
]


def test_the_real_server(driver):
    """The page on `fastllm serve`, with the embedded model."""
    command = [sys.executable, "-m", "fastllm", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            page = None
            for line in process.stdout:
                if found := re.search(r"http://[^\s/]+:\d+", line):
                    page = Page(driver, type("Server", (), {"url": found[0] + "/"}))
                    break
            assert page, "it says where it listens"
            threading.Thread(target=process.stdout.read, daemon=True).start()
            page.open()
            message = page.ask("What is the capital of France?", None)
            assert message.find_element("css selector", ".content").text == "The capital of France is Paris."
            assert re.match(r"1[01] tokens · ", page.one("[data-role=assistant] .stats").text)
        finally:
            process.terminate()
