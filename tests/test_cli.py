"""The command line, as a process: output, streams, exit codes."""

import csv
import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

STORY = "Once upon a time"


def fastllm(*arguments, stdin="", timeout=120, env=None):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastllm", *(x if isinstance(x, bytes) else str(x) for x in arguments)],
        input=stdin,
        capture_output=True,
        encoding=None if isinstance(stdin, bytes) else "utf-8",
        timeout=timeout,
        check=False,
        env={**os.environ, **(env or {})},
    )


# What is written to standard error where no MODEL is given.
NOTE = "fastllm: no MODEL is given: using the embedded demo model, fastllm-tiny\n"


def output(*arguments, **options):
    result = fastllm(*arguments, **options)
    assert (result.returncode, result.stderr.removeprefix(NOTE)) == (0, "")
    return result.stdout


def test_generate(model, demo_path):
    text = model.generate(STORY, max_tokens=20, temperature=0).text + "\n"
    greedy = ("--temperature", "0", "-n", "20")
    assert output("generate", STORY, *greedy) == text
    assert output("generate", *STORY.split(), *greedy) == text
    assert output("generate", demo_path, STORY, *greedy) == text
    assert output("generate", "-m", demo_path, *STORY.split(), *greedy) == text
    assert output("generate", *greedy, stdin=STORY) == text
    assert output("generate", demo_path, *greedy, "--isa", "scalar", "-t", "1", stdin=STORY) == text


def test_generate_follows_a_form(tmp_path):
    question = "Give me a JSON object with name and age: Asha is 7 years old."
    schema = tmp_path / "person.json"
    schema.write_text(
        '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"type": "integer"}},'
        ' "required": ["name", "age"], "additionalProperties": false}'
    )
    greedy = ("--temperature", "0", "-n", "40")
    assert set(json.loads(output("generate", question, *greedy, "--json-schema", f"@{schema}"))) == {"name", "age"}
    assert output("generate", question, *greedy, "--regex", "[0-9]{3}")[:-1].isdigit()
    wrong = fastllm("generate", question, *greedy, "--grammar", "start: (")
    assert (wrong.returncode, wrong.stdout, wrong.stderr.removeprefix(NOTE).count("\n")) == (1, "", 1)
    absent = fastllm("generate", question, "--json-schema", f"@{tmp_path / 'nothing'}")
    assert absent.returncode == 1
    assert "nothing" in absent.stderr


def test_generate_with_a_draft_model_and_without_guesses(demo_path):
    greedy = ("generate", STORY, "--temperature", "0", "-n", "30")
    expected = output(*greedy)
    assert output(*greedy, "--draft", demo_path) == expected
    assert output(*greedy, "--no-speculate", "--prefix-cache", "0") == expected


def test_generate_takes_every_sampling_option(model):
    options = {"max_tokens": 9, "temperature": 0.7, "top_k": 50, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.99,
               "repetition_penalty": 1.1, "presence_penalty": 0.1, "frequency_penalty": 0.1, "dry_multiplier": 0.5,
               "dry_base": 1.5, "dry_allowed_length": 3, "dry_penalty_last_n": 32, "xtc_probability": 0.2,
               "xtc_threshold": 0.2, "seed": 5, "timeout": 30.0}  # fmt: skip
    flags = [x for name, value in options.items() for x in ("--" + name.replace("_", "-"), str(value))]
    text = output("generate", STORY, *flags, "--ignore-eos", "--stop", "zebra", "--stop", "quux")
    assert text == model.generate(STORY, **options, ignore_eos=True, stop=["zebra", "quux"]).text + "\n"


def test_generate_streams():
    command = [sys.executable, "-m", "fastllm", "generate", STORY, "--ignore-eos", "-c", "262144", "--timeout", "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        seen = [os.read(process.stdout.fileno(), 100) for _ in range(3)]
        assert all(seen)
        assert process.poll() is None, "the text came before the end"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(60) == 130


def test_stats_go_to_standard_error():
    result = fastllm("generate", STORY, "-n", "5", "--stats")
    assert result.returncode == 0
    assert "4 tokens read" in result.stderr
    assert "5 written" in result.stderr


def test_chat_answers_lines():
    questions = (
        "What is the capital of France?\n\n/reset\n/system Think step by step.\nWhat is 2 + 3?\n/quit\nnot read\n"
    )
    lines = output("chat", "--temperature", "0", stdin=questions).splitlines()
    assert lines[0] == "The capital of France is Paris."
    assert "5" in lines[-1]
    assert len(lines) == 2 or lines[1].startswith("<think>")


def test_chat_remembers():
    answers = output("chat", "--temperature", "0", stdin="My name is Asha.\nWhat is my name?\n").splitlines()
    assert "Asha" in answers[-1]


@pytest.mark.parametrize("arguments", [("chat",), ("generate", "--ignore-eos", "-c", "262144", STORY)])
def test_ctrl_c_on_a_terminal(arguments):
    """A pseudo-terminal: the answer stops and the conversation goes on; a generation ends with code 130."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "fastllm", *arguments, "--seed", "1"])

    def read_until(text, seconds=60):
        seen = b""
        end = time.monotonic() + seconds
        while text not in seen and time.monotonic() < end:
            if select.select([terminal], [], [], 0.1)[0]:
                try:
                    seen += os.read(terminal, 4096)
                except OSError:  # the other end is closed
                    break
        return seen

    if arguments == ("chat",):
        assert b"/help" in read_until(b"> ")
        os.write(terminal, b"/help\n")
        assert b"/reset" in read_until(b"an answer")
        os.write(terminal, b"Hello!\n")
        assert b"> " in read_until(b"> ")
        os.write(terminal, b"/quit\n")
        expected = 0
    else:
        read_until(b"a")
        os.write(terminal, b"\x03")
        expected = 130
    read_until(b"never", 60)
    os.close(terminal)
    end = time.monotonic() + 60
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(ended[1]) == expected


def test_bench_json_has_the_fields_of_llama_bench():
    rows = json.loads(
        output("bench", "-p", "64", "-n", "16", "-d", "0,32", "-b", "1,2", "-r", "3", "-t", "1", "-o", "json")
    )
    assert [(r["n_prompt"], r["n_gen"], r["n_depth"], r["n_parallel"]) for r in rows] == [
        (p, n, d, b) for d in (0, 32) for b in (1, 2) for p, n in ((64, 0), (0, 16))
    ]
    for row in rows:
        assert row["n_threads"] == 1
        assert len(row["samples_ts"]) == len(row["samples_ns"]) == 3
        assert row["avg_ts"] == pytest.approx(sum(row["samples_ts"]) / 3)
        assert row["avg_ts"] > 0 < row["gigabytes_per_second"]
        assert row["roof_gigabytes_per_second"] > 0 < row["roof_gigaops_per_second"]
        in_caches = row["n_gen"] and row["share_of_roof"] is None
        assert in_caches or row["share_of_roof"] > 0
        assert {"model_filename", "model_type", "model_size", "model_n_params", "stddev_ts", "test_time"} <= set(row)


def test_bench_table_and_csv():
    table = output("bench", "-p", "32", "-n", "8", "-d", "16", "-r", "1")
    assert "pp32 @ d16" in table
    assert "tg8 @ d16" in table
    rows = list(csv.DictReader(io.StringIO(output("bench", "-p", "32", "-n", "0", "-r", "1", "-o", "csv"))))
    assert [row["n_prompt"] for row in rows] == ["32"]
    assert "pp600" in output("bench", "-p", "600", "-n", "0", "-r", "1"), "longer than what the model was trained for"


def test_inspect(demo_path, tmp_path):
    text = output("inspect", demo_path, "--tensors")
    for part in ("llama", "2,033,408", "q4_0 x 21", "general.name", "token_embd.weight", "1024 x 256"):
        assert part in text
    everything = json.loads(output("inspect", demo_path, "--json"))
    assert everything["metadata"]["general.architecture"] == "llama"
    assert len(everything["tensors"]) == 29
    other = tmp_path / "x.gguf"
    other.write_bytes(demo_path.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0llomo", 1))
    assert "llomo" in output("inspect", other)


def test_plan(demo_path):
    assert "it fits" in output("plan", demo_path)
    plan = json.loads(output("plan", demo_path, "--json", "-b", "2", "-c", "128", "--kv-dtype", "q8_0"))
    assert (plan["batch"], plan["context_length"], plan["kv_dtype"]) == (2, 128, "q8_0")
    assert plan["total"] == plan["weights"] + plan["kv_cache"] + plan["scratch"] + plan["other"]


def test_tokenize(model, demo_path):
    ids = model.tokenizer.encode("Hello <|im_end|>")
    assert output("tokenize", "--ids", "Hello", "<|im_end|>") == " ".join(map(str, ids)) + "\n"
    assert output("tokenize", demo_path, "--ids", stdin="Hello <|im_end|>") == " ".join(map(str, ids)) + "\n"
    special = model.tokenizer.encode("Hello <|im_end|>", parse_special=True)
    assert f"{len(special)} tokens" in output("tokenize", "--parse-special", "Hello <|im_end|>")


def test_doctor():
    text = output("doctor")
    for name in ("cpu", "isas", "threads", "huge pages", "demo model"):
        assert f"\n{name}" in text


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("generate", "none.gguf", "x"), "none.gguf"),
        (("generate", "x", "--top-p", "3"), "top_p"),
        (("generate", "x", "--isa", "sse9"), "sse9"),
        (("generate", "x", "--threads", "0"), "threads"),
        (("generate", "word " * 1000), "the context holds 512"),
        (("chat", "none.gguf"), "none.gguf"),
        (("inspect", os.devnull), "regular"),
        (("plan", __file__), "not a GGUF file"),
        (("bench", "none.gguf"), "none.gguf"),
        (("bench", "-p", "0", "-n", "8", "-r", "0"), "repetitions"),
        (("tokenize", "none.gguf", "x"), "none.gguf"),
    ],
)
def test_a_failure_is_one_line_and_code_1(arguments, part):
    result = fastllm(*arguments)
    assert result.returncode == 1
    assert result.stdout == "" or "test" in result.stdout
    error = result.stderr.removeprefix(NOTE)
    assert error.startswith("fastllm: ")
    assert error.count("\n") == 1
    assert part in error


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("unknown",),
        ("generate", "--no-such-option"),
        ("generate", "x", "-n", "many"),
        ("plan",),
        ("bench", "-p", "x"),
        ("cache", "empty"),
    ],
)
def test_wrong_usage_is_code_2(arguments):
    result = fastllm(*arguments)
    assert result.returncode == 2
    assert "usage:" in result.stderr
    assert "Traceback" not in result.stderr


def test_help_and_version():
    commands = ("generate", "chat", "batch", "bench", "inspect", "plan", "tokenize", "cache", "doctor")
    for command in ((), *((name,) for name in commands)):
        assert "usage: fastllm" in output(*command, "--help")
    assert output("--version").startswith("fastllm 0.")


def test_the_environment_chooses_the_instruction_set():
    assert output("generate", STORY, "-n", "4", "--temperature", "0", env={"FASTLLM_ISA": "scalar"})
    result = fastllm("generate", STORY, env={"FASTLLM_ISA": "sse9"})
    assert result.returncode == 1
    assert "sse9" in result.stderr


def test_a_reader_that_leaves_ends_the_program():
    command = [sys.executable, "-m", "fastllm", "generate", STORY, "--ignore-eos", "-c", "262144", "--timeout", "300"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read().decode() == NOTE
        assert process.wait(60) == 1
