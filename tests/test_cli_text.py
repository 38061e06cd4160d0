"""The command line: which argument is the model, and text from outside."""

import json

import pytest

from fastllm.cli.names import looks_like_model

from .test_cli import NOTE, STORY, fastllm, output

GREEDY = ("--temperature", "0", "-n", "4")


@pytest.mark.parametrize(
    "word",
    [
        *(
            "llama3.2:1b",
            "llama3",
            "qwen2.5-coder:7b",
            "mistral:instruct",
            "phi-4-mini",
            "gpt-oss-20b",
            "gemma3:latest",
        ),
        *("TinyStories-33M", "My-Model-Q4_K_M", "model.safetensors", "none.gguf", "weights.bin", "custom:latest"),
        *("Qwen/Qwen2.5-0.5B-Instruct", "bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M", "hf:owner/repo", "models/x"),
        *("./model", "../x", "/srv/models/x", "~/model", r"C:\\models\\x", "https://huggingface.co/a/b"),
    ],
)
def test_names_of_models_are_no_prompts(word):
    assert looks_like_model([word])
    assert looks_like_model([word, "Why?"])


@pytest.mark.parametrize(
    "words",
    [
        *(["Once"], ["Once", "upon", "a", "time"], ["Hello,", "world"], ["Q:", "why?"], ["12:30", "is"], ["f(x):"]),
        *(["Why is the sky blue?"], ["def f():", "x"], ["word:word"], ["GPT"], ["x"], ["3.14"], ["e.g."], ["C++"]),
        *(["Hello", "world"], ["llama", "is", "an", "animal"], ["What is 1/2?"], ["Who/what am I?", "x y"]),
    ],
)
def test_texts_are_prompts(words):
    assert not looks_like_model(words)


def test_a_quoted_prompt_follows_a_model():
    assert looks_like_model(["mymodel", "Why is the sky blue?"])


@pytest.mark.parametrize("command", ["generate", "tokenize"])
def test_a_mistyped_model_is_refused(command):
    result = fastllm(command, "llama3.2:1b", "Why is the sky blue?")
    assert (result.returncode, result.stdout) == (2, "")
    assert "there is no model file 'llama3.2:1b'" in result.stderr
    assert "--prompt" in result.stderr
    assert output(command, "--prompt", "llama3.2:1b", *(GREEDY if command == "generate" else ()))
    both = fastllm(command, "nothing", "--prompt", "x")
    assert both.returncode == 2
    assert "'nothing'" in both.stderr


@pytest.mark.parametrize(
    "arguments",
    [("chat",), ("bench",), ("serve",), ("doctor",), ("inspect",), ("plan",), ("generate", "x", "-m")],
)
def test_every_command_says_what_to_do_about_a_name(arguments):
    result = fastllm(*arguments, "owner/name:Q4_K_M")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "give the path of a GGUF file" in result.stderr


def test_which_model_runs_is_said_where_none_is_named(demo_path):
    for arguments in (
        ("generate", STORY, *GREEDY),
        ("tokenize", "x"),
        ("chat", "-n", "1"),
        ("bench", "-p8", "-n0", "-r1"),
    ):
        assert fastllm(*arguments).stderr == NOTE
    assert fastllm("generate", demo_path, STORY, *GREEDY).stderr == ""


def test_control_tokens_in_prompts(model):
    prompt = "<|im_start|>user\nHi<|im_end|>\n"
    for flags, special in (((), True), (("--no-parse-special",), False)):
        tokens = len(model.tokenizer.encode(prompt, parse_special=special))
        stats = fastllm("generate", "--prompt", prompt, *GREEDY, "--stats", *flags).stderr
        assert f"{tokens} tokens read" in stats


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii"])
def test_standard_input_is_utf8_whatever_the_locale(model, encoding):
    env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C"}
    expected = " ".join(map(str, model.tokenizer.encode("é 🎉"))) + "\n"
    for mark in ("", "\N{BOM}"):
        result = fastllm("tokenize", "--ids", stdin=mark + "é 🎉", env=env)
        assert (result.returncode, result.stdout) == (0, expected)


def test_the_mark_of_the_beginning_is_no_text(model, tmp_path):
    ids = " ".join(map(str, model.tokenizer.encode("Hi"))) + "\n"
    assert output("tokenize", "--ids", stdin="\N{BOM}Hi") == ids
    prompt, schema, grammar = (tmp_path / name for name in ("prompt.txt", "schema.json", "grammar.gbnf"))
    prompt.write_text("\N{BOM}Hi", encoding="utf-8")
    schema.write_text('\N{BOM}{"type": "boolean"}', encoding="utf-8")
    grammar.write_text('\N{BOM}root ::= "a"\n', encoding="utf-8")
    assert output("tokenize", "--ids", "--prompt", f"@{prompt}") == ids
    assert isinstance(json.loads(output("generate", STORY, *GREEDY, "--json-schema", f"@{schema}")), bool)
    assert output("generate", STORY, *GREEDY, "--grammar", f"@{grammar}") == "a\n"
    assert output("chat", "--temperature", "0", "-n", "4", stdin="\N{BOM}Hi\n") == output(
        "chat", "--temperature", "0", "-n", "4", stdin="Hi\n"
    )


@pytest.mark.parametrize("arguments", [("generate",), ("chat",), ("tokenize",)])
@pytest.mark.parametrize(
    ("data", "parts"),
    [(b"caf\xe9\n", ("not UTF-8", "0xE9", "offset 3", "iconv")), (b"\xff\xfeH\0i\0\n\0", ("UTF-16", "iconv"))],
)
def test_bytes_that_are_no_text_give_one_line(arguments, data, parts):
    result = fastllm(*arguments, stdin=data)
    error = result.stderr.decode().removeprefix(NOTE)
    assert (result.returncode, result.stdout, error.count("\n")) == (1, b"", 1)
    for part in parts:
        assert part in error


def test_arguments_and_files_that_are_no_text_give_one_line(tmp_path):
    (tmp_path / "x").write_bytes(b"caf\xe9")
    for arguments in (
        ("generate", b"caf\xe9"), ("generate", "--prompt", f"@{tmp_path / 'x'}"), ("generate", "x", "--stop", b"\xe9"),
        ("generate", "x", "--regex", b"\xe9"), ("generate", "x", "--grammar", f"@{tmp_path / 'x'}"),
        ("chat", "--system", b"caf\xe9"),
    ):  # fmt: skip
        result = fastllm(*arguments, stdin=b"")
        assert (result.returncode, result.stdout) == (1, b"")
        assert result.stderr.decode().removeprefix(NOTE).count("\n") == 1


def test_tokenize_shows_text():
    lines = output("tokenize", "the end\n <|im_end|> é").splitlines()
    assert lines[-1].endswith("tokens")
    shown = [line.split(maxsplit=1)[1] for line in lines[:-1]]
    assert "' end'" in shown
    assert r"'\n'" in "".join(shown) or any(r"\n" in x for x in shown)
    assert not any("Ġ" in x or "Ċ" in x for x in shown)
    assert r"b'\xc3'" in shown or "'é'" in shown or "' é'" in shown
