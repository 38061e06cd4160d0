"""The chat page: Markdown, hostile text, and text that is hard to parse."""

import re
import time

import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
from .fake_openai import PAGE, answer, end

MARKDOWN = """# Title
Some **bold**, *italic*, ***both***, `code <b>`, ~~gone~~ and snake_case_name.
A [link](https://example.org/a_(b)?x=1&y=2) and https://example.org/plain.

- one
- two
  1. inner **bold**
  2. inner
     ```python
     if x < 1 and "**no bold**":
         print("नमस्ते")
     ```
- three

3. third
4. fourth

| name | number |
|:-----|-------:|
| a \\| b | **1** |
| नमस्ते 🙂 | 2 |

> quoted
> *text*

---

```
unfinished
"""


def test_markdown(page):
    message = page.ask("x", answer(MARKDOWN))
    html = page.script("return arguments[0].querySelector('.content').innerHTML", message)
    link = 'target="_blank" rel="noopener noreferrer nofollow" title='
    for part in (
        "<h3>Title</h3>",
        "<strong>bold</strong>, <em>italic</em>, <strong><em>both</em></strong>",
        "<code>code &lt;b&gt;</code>",
        "<s>gone</s> and snake_case_name.<br>",
        f'<a href="https://example.org/a_(b)?x=1&amp;y=2" {link}',
        ">https://example.org/plain</a>.",
        "<li>two<ol><li>inner <strong>bold</strong></li><li>inner<figure",
        "<span>python</span>",
        'if x &lt; 1 and "**no bold**":\n    print("नमस्ते")</code>',
        "<li>three</li>",
        '<ol start="3"><li>third</li><li>fourth</li></ol>',
        '<th class="left">name</th><th class="right">number</th>',
        '<td class="left">a | b</td><td class="right"><strong>1</strong></td>',
        '<td class="left">नमस्ते 🙂</td>',
        "<blockquote><p>quoted<br><em>text</em></p></blockquote>",
        "<hr>",
        "unfinished",
    ):
        assert part in html, f"{part}\nis not in\n{html}"
    page.picture("markdown")


HOSTILE = """<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2"> <b onclick=x>bold</b>
[a](javascript:window.hacked=3) [b](JaVaScRiPt:alert(1)) [c](data:text/html,<script>window.hacked=4</script>)
[d](https://example.org/" onmouseover="window.hacked=5) ![picture](https://example.org/track.png) <https://example.org/e>
[f](//example.org) [g](https://example.org "title\\" onclick=\\"x")

| <script>window.hacked=6</script> | b |
|---|---|
| <iframe src="https://example.org"></iframe> | <svg/onload=window.hacked=7> |

```html"><script>window.hacked=8</script>
</code></pre><script>window.hacked=9</script>
```
# <style>*{display:none}</style>
- <form action="https://example.org"><input name=a></form>
"""


def test_hostile_text_is_text(page):
    calls = [{"index": 0, "id": "1", "function": {"name": "<img src=x onerror=window.hacked=10>", "arguments": "<b>"}}]
    script = [{"reasoning_content": HOSTILE}, *answer(HOSTILE)[:-3], {"tool_calls": calls}, *end(99)]
    message = page.ask(HOSTILE.replace("\n", " "), script)
    time.sleep(0.2)
    assert page.script("return window.hacked") is None
    allowed = "a,article,blockquote,br,button,code,details,div,em,figure,figcaption,h3,h4,h5,h6,hr,li,ol,p,pre,s,span,strong,summary,table,td,th,tr,ul"  # noqa: E501
    tags = page.script("return [...document.querySelectorAll('#log *')].map((e) => e.localName)")
    assert set(tags) <= set(allowed.split(","))
    attributes = page.script(
        "return [...document.querySelectorAll('#log .content *')].flatMap((e) => [...e.attributes]).map((a) => a.name)"
    )
    assert set(attributes) <= {"class", "dir", "href", "rel", "start", "tabindex", "target", "title", "type"}
    links = page.script("return [...document.querySelectorAll('#log a')].map((a) => a.href)")
    assert links
    assert all(link.startswith("https://example.org") for link in links), links
    assert '<script>window.hacked = 1</script><img src=x onerror="window.hacked = 2">' in message.text
    page.open()
    assert page.script("return window.hacked") is None, "also when it comes from the storage"


def test_no_html_is_ever_parsed(page):
    """The page's own policy forbids it."""
    page.expected = ("TrustedHTML", "TrustedScript", "Content Security Policy")
    for code in (
        "document.body.innerHTML = '<b>x</b>'",
        "document.write('x')",
        "document.createElement('script').text = '1'",
        "document.body.setAttribute('onclick', 'x')",
    ):
        error = page.script(f"try {{ {code}; return null }} catch (e) {{ return e.name }}")
        assert error is not None, code
    source = "".join(file.read_text() for file in PAGE.glob("*.js"))
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|DOMParser", source)
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"\son\w+=|<style|\sstyle=|<script(?![^>]*src=)", html)


@pytest.mark.parametrize(
    "text",
    ["*" * 100_000, "**a " * 30_000, "[a](http://" * 10_000, "`" * 50_000 + "a", "> " * 30_000, "- " * 30_000 + "x",
     "_a*b~~c`d" * 10_000, "|" * 100_000 + "\n" + "|-" * 50_000,
     "x|\n" + " " * 100_000 + "y", "```" + " " * 100_000 + "`",
     "* x\n" * 20_000, "\n".join("  " * i + "- x" for i in range(300)), "#" * 100_000, "h" * 100_000,
     "http://a" * 20_000, "a\n|\n" * 20_000, "- - " * 30_000 + "x", "1. \n\n" * 10_000],
)  # fmt: skip
def test_no_text_is_slow(page, text):
    seconds = page.script(
        "const [text] = arguments; return import('/page/markdown.js').then(({Markdown}) => {"
        "const start = performance.now();"
        "new Markdown(document.createElement('div'), () => document.createElement('button')).update(text);"
        "return (performance.now() - start) / 1000})",
        text,
    )
    assert seconds < 2


def test_a_growing_text_ends_as_the_whole_one(page):
    """Whatever the pieces: blocks that are kept while the text grows are those of the whole text."""
    differences = page.script(
        "const [text] = arguments; return import('/page/markdown.js').then(({Markdown}) => {"
        "const fresh = () => new Markdown(document.createElement('div'), () => document.createElement('button'));"
        "const growing = fresh(); const wrong = [];"
        "for (let i = 1; i <= text.length; i++) { growing.update(text.slice(0, i)); const whole = fresh();"
        "whole.update(text.slice(0, i)); if (whole.element.innerHTML !== growing.element.innerHTML) wrong.push(i) }"
        "return wrong})",
        MARKDOWN,
    )
    assert differences == []
