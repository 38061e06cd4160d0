"""Batches: what is answered, what is refused, and that nothing is lost or repeated when a run is killed."""

import json
import signal
import subprocess
import sys
import time

import pytest

from fastllm import ParameterError, batch
from fastllm.batch import BatchFileError, parquet, run_batch
from fastllm.batch.requests import Requests, by_length

from .test_cli import NOTE, fastllm

FRANCE = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
NAME = "fastllm-tiny-q4_0"


def chat(custom_id, **body):
    body = {"model": NAME, "messages": FRANCE, "temperature": 0, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def stories(count, tokens=40):
    return [
        {"custom_id": f"s{i}", "prompt": "Once upon a time" + " there was a" * (i % 3), "max_tokens": tokens, "seed": i,
         "ignore_eos": True}
        for i in range(count)
    ]  # fmt: skip


def write(path, lines):
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return path


def read(path):
    records = [json.loads(line) for line in path.read_bytes().decode().splitlines()]
    by_id = {record["custom_id"]: record for record in records}
    assert len(by_id) == len(records), "an answer came twice"
    return by_id


def timeless(records):
    """Without what differs from run to run."""
    copies = json.loads(json.dumps(records))
    for record in copies.values():
        record["response"]["body"].pop("created", None)
        record["response"]["body"].get("usage", {}).pop("prompt_tokens_details", None)
    return copies


@pytest.fixture
def files(tmp_path):
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


def test_both_formats_give_openai_answers(model, files):
    source, target = files
    completion = {
        "custom_id": "c",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0},
    }
    simple = {"prompt": "Once upon a time", "max_tokens": 5, "temperature": 0}
    write(source, [chat("a"), completion, "", simple, {"custom_id": "d", "messages": FRANCE, "temperature": 0}])
    report = run_batch(model, source, target)
    assert (report.requests, report.resumed, report.failed) == (4, 0, 0)
    answers = read(target)
    assert set(answers) == {"a", "c", "line-4", "d"}
    record = answers["a"]
    assert set(record) == {"id", "custom_id", "response", "error"}
    assert record["error"] is None
    assert record["response"]["status_code"] == 200
    body = record["response"]["body"]
    assert body["object"] == "chat.completion"
    assert body["model"] == NAME
    assert body["choices"][0]["message"] == {"role": "assistant", "content": PARIS}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert abs(body["created"] - time.time()) < 100
    usage = body["usage"]
    reply = model.chat(FRANCE, temperature=0)
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
        reply.usage.prompt_tokens,
        reply.usage.completion_tokens,
    )
    text = model.generate("Once upon a time", max_tokens=5, temperature=0).text
    for name in ("c", "line-4"):
        body = answers[name]["response"]["body"]
        assert (body["object"], body["choices"][0]["text"]) == ("text_completion", text)
        assert body["choices"][0]["finish_reason"] == "length"
    assert report.completion_tokens == sum(
        a["response"]["body"]["usage"]["completion_tokens"] for a in answers.values()
    )
    assert report.prompt_tokens == sum(a["response"]["body"]["usage"]["prompt_tokens"] for a in answers.values())
    assert report.completion_tokens_per_second == pytest.approx(report.completion_tokens / report.seconds)


def test_options_of_requests(model, files):
    source, target = files
    parts = [{"role": "user", "content": [{"type": "text", "text": "What is the capital"}, {"type": "text", "text": " of France?"}]}]  # fmt: skip  # noqa: E501
    lines = [
        chat("parts", messages=parts, max_completion_tokens=3, user="someone", stream=False, stop=None),
        chat("many", n=3, seed=5, temperature=1, max_tokens=6),
        chat("logprobs", logprobs=True, top_logprobs=2, max_tokens=2),
        chat("bias", logit_bias={"5": -100, "6": 1.5}, response_format={"type": "text"}),
        chat("thinks", chat_template_kwargs={"enable_thinking": True}),
        {"custom_id": "prompts", "prompt": ["Once", [565, 567]], "max_tokens": 2, "logprobs": 1},
        {"custom_id": "ids", "prompt": [565, 567, 256, 557], "max_tokens": 2, "temperature": 0},
        {"custom_id": "defaults", "prompt": "Once"},
    ]
    write(source, lines)
    report = run_batch(model, source, target, max_tokens=7)
    answers = {name: record["response"]["body"] for name, record in read(target).items()}
    assert report.failed == 0, answers
    reply = model.chat(FRANCE, temperature=0, max_tokens=3)
    assert answers["parts"]["choices"][0]["message"]["content"] == reply.content
    seeds = [model.chat(FRANCE, seed=5 + i, max_tokens=6).content for i in range(3)]
    assert [c["message"]["content"] for c in answers["many"]["choices"]] == seeds
    assert [c["index"] for c in answers["many"]["choices"]] == [0, 1, 2]
    usage = answers["many"]["usage"]
    assert usage["prompt_tokens"] == reply.usage.prompt_tokens, "one prompt, three answers"
    tokens = answers["logprobs"]["choices"][0]["logprobs"]["content"]
    assert len(tokens) == 2
    assert len(tokens[0]["top_logprobs"]) == 2
    assert bytes(tokens[0]["bytes"]).decode() == tokens[0]["token"]
    thoughts = model.chat(FRANCE, temperature=0, max_tokens=7, chat_template_kwargs={"enable_thinking": True})
    assert answers["thinks"]["choices"][0]["message"] == thoughts.message
    assert len(answers["prompts"]["choices"]) == 2
    assert len(answers["prompts"]["choices"][0]["logprobs"]["tokens"]) == 2
    assert answers["defaults"]["usage"]["completion_tokens"] <= 7


WRONG = [
    ("{", "not JSON"),
    ("[" * 100_000, "nested too deeply"),
    ("[]", "must be a JSON object"),
    ({"custom_id": 5, "prompt": "x"}, "custom_id"),
    ('{"custom_id": "\\ud800", "prompt": "x"}', "custom_id"),
    ({"prompt": "x", "max_tokns": 3}, "did you mean 'max_tokens'"),
    ({"prompt": "x", "top_p": 3}, "top_p"),
    ({"prompt": "x", "max_tokens": "many"}, "max_tokens must be an integer"),
    ({"prompt": "word " * 1000}, "512"),
    ({"prompt": '"\udc00"', "temperature": "hot"}, "temperature"),
    ({"prompt": "x", "max_tokens": 10**400}, "max_tokens"),
    ({"prompt": "x", "max_tokens": -(10**400)}, "max_tokens"),
    ({"prompt": [10**30]}, ""),
    ({"prompt": [-1]}, ""),
    ({"prompt": [5000]}, "5000"),
    ('{"prompt": "x", "temperature": 1e400}', "temperature"),
    ('{"prompt": "x", "logit_bias": {"1": NaN}}', "logit_bias"),
    ({"messages": [{"role": "user", "content": "x", "more": json.loads("[" * 900 + "]" * 900)}]}, ""),
    ({"messages": FRANCE, "tools": 5}, "tools must be"),
    ({"messages": FRANCE, "chat_template_kwargs": {"messages": []}}, "messages"),
    ({"messages": FRANCE, "chat_template_kwargs": 5}, "must be an object"),
    ({"prompt": {}}, "prompt must be"),
    ({"prompt": [[]]}, "prompt must be"),
    ({}, "prompt must be"),
    ({"messages": []}, "messages must be"),
    ({"messages": [{"content": "x"}]}, "messages[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "no text"),
    ({"messages": FRANCE, "n": 0}, "n must be"),
    ({"messages": FRANCE, "n": True}, "n must be"),
    ({"messages": FRANCE, "top_logprobs": 2}, "logprobs = true"),
    ({"messages": FRANCE, "logprobs": 2}, "true or false"),
    ({"messages": FRANCE, "max_tokens": 2, "max_completion_tokens": 2}, "give one"),
    ({"messages": FRANCE, "logit_bias": {"x": 1}}, "logit_bias"),
    ({"messages": FRANCE, "stream": True}, "stream"),
    ({"messages": FRANCE, "model": "gpt-9"}, "'gpt-9' is not here"),
    ({"messages": FRANCE, "user": 1}, "user"),
    ({"custom_id": "u", "method": "POST", "url": "/v1/embeddings", "body": {"input": "x"}}, "/v1/embeddings"),
    ({"custom_id": "g", "method": "GET", "url": "/v1/completions", "body": {"prompt": "x"}}, "POST"),
    (
        {"custom_id": "x", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x"}, "n": 1},
        "beside the body",
    ),
    ({"custom_id": "b", "method": "POST", "url": "/v1/completions", "body": []}, "body must be"),
    ({"custom_id": "h", "method": "POST", "body": {}}, "url must be"),
]


def test_control_tokens_in_prompts(model, files):
    prompt = "<|im_start|>user\nHi<|im_end|>\n"
    parsed, plain = (len(model.tokenizer.encode(prompt, parse_special=special)) for special in (True, False))

    source, target = files
    body = {"prompt": prompt, "max_tokens": 1}
    write(source, [{"custom_id": str(said), "parse_special": said, **body} for said in (None, True, False)])
    for default in (True, False):
        run_batch(model, source, target, parse_special=default)
        counts = {name: x["response"]["body"]["usage"]["prompt_tokens"] for name, x in read(target).items()}
        assert counts == {"None": parsed if default else plain, "True": parsed, "False": plain}
        with pytest.raises(BatchFileError):  # a different default is a different batch
            run_batch(model, source, target, parse_special=not default)
        target.unlink()
    write(source, [chat("chat", parse_special=True)])
    run_batch(model, source, target)
    assert "parse_special" in read(target)["chat"]["error"]["message"]


def test_a_wrong_line_is_an_answer_with_its_number(model, files):
    source, target = files
    write(source, [line for line, _ in WRONG] + [chat("right")])
    report = run_batch(model, source, target)
    assert report.failed == len(WRONG)
    answers = read(target)
    assert answers.pop("right")["error"] is None
    by_number = {record["error"]["line"]: record for record in answers.values()}
    for number, (_, part) in enumerate(WRONG, 1):
        record = by_number[number]
        assert record["error"]["message"].startswith(f"line {number}: "), record
        assert part in record["error"]["message"]
        assert record["response"]["status_code"] == 400
        assert record["response"]["body"]["error"]["type"] == "invalid_request_error"


def test_text_of_any_kind(model, files):
    source, target = files
    source.write_bytes(b"\xef\xbb\xbf" + '{"custom_id": "नमस्ते 🙂\u2028", "prompt": "नमस्ते", "max_tokens": 4}\r\n{"prompt": "\\ud83d"}'.encode() + b'\n{"prompt": "\xff"}')  # fmt: skip  # noqa: E501
    report = run_batch(model, source, target)
    answers = {json.loads(line)["custom_id"]: json.loads(line) for line in target.read_bytes().split(b"\n") if line}
    assert answers["नमस्ते 🙂\u2028"]["error"] is None
    assert "नमस्ते".encode() in target.read_bytes(), "readable"
    assert report.failed == 2
    assert set(answers) == {"नमस्ते 🙂\u2028", "line-2", "line-3"}


def test_the_longest_run_first(tmp_path):
    lines = [{"prompt": "x", "max_tokens": 5}, {"prompt": "x" * 9000, "max_tokens": 5}, {"prompt": "x"}, "wrong",
             {"prompt": "x", "max_tokens": 5}]  # fmt: skip
    with Requests(write(tmp_path / "in.jsonl", lines), tmp_path) as requests:
        assert [line.number for line in by_length(requests.lines)] == [2, 3, 1, 5, 4]


def test_the_batch_stays_full(model, files, monkeypatch):
    """Many requests are in flight, but never more than the window."""
    source, target = files
    write(source, [*stories(20, 8), chat("several", n=10, max_tokens=4)])
    flying = most = 0

    def counting(real):
        async def counted(*args, **keywords):
            nonlocal flying, most
            flying += 1
            most = max(most, flying)
            try:
                return await real(*args, **keywords)
            finally:
                flying -= 1

        return counted

    monkeypatch.setattr(model, "agenerate", counting(model.agenerate))
    monkeypatch.setattr(model, "achat", counting(model.achat))
    run_batch(model, source, target, window=6)
    assert (flying, most) == (0, 6)


def test_a_second_run_goes_on(model, files):
    """Answers are kept, a torn line runs again, and requests may be added."""
    source, target = files
    write(source, stories(6))
    run_batch(model, source, target)
    whole = read(target)
    lines = target.read_bytes().splitlines(keepends=True)
    for rest in (b"", lines[4][:-1], lines[4][:30], lines[4][:3], bytes(100)):
        target.write_bytes(b"".join(lines[:4]) + rest)
        kept = list(read(write(target.with_name("kept"), [line.decode().rstrip() for line in lines[:4]])))
        report = run_batch(model, source, target)
        assert (report.requests, report.resumed, report.failed) == (6, 4, 0)
        assert target.read_bytes().startswith(b"".join(lines[:4])), "what was there is not touched"
        assert list(read(target))[:4] == kept
        assert timeless(read(target)) == timeless(whole)
    report = run_batch(model, source, target)
    assert (report.resumed, report.completion_tokens) == (6, 0)
    write(source, stories(8))
    assert run_batch(model, source, target).resumed == 6
    assert len(read(target)) == 8


def refused(model, files, part, **options):
    source, target = files
    before = target.read_bytes()
    with pytest.raises(BatchFileError, match=part):
        run_batch(model, source, target, **options)
    assert target.read_bytes() == before, "nothing is lost"


def test_what_has_changed_is_noticed(model, files):
    source, target = files
    lines = stories(3, 4)
    write(source, lines)
    run_batch(model, source, target, top_k=5)
    refused(model, files, "another model or other options", top_k=6)
    refused(model, files, "another model or other options", top_k=5, model_name="x")
    write(source, [lines[0], {**lines[1], "prompt": "Once"}, lines[2]])
    refused(model, files, "line 2, 's1', is not what was answered", top_k=5)
    write(source, lines[:2])
    refused(model, files, "no request 's2' any more", top_k=5)
    write(source, lines)
    for junk in (b"a note of mine\n", b"a note of mine", b'{"id": 1}\n', target.read_bytes().splitlines()[0] + b"\n"):
        good = target.read_bytes()
        target.write_bytes(good + junk)
        refused(model, files, "no answer of a batch|second answer", top_k=5)
        target.write_bytes(good)
    assert run_batch(model, source, target, top_k=5).resumed == 3


def test_an_input_that_changes_under_way_stops_the_run(tmp_path):
    source = write(tmp_path / "in.jsonl", stories(2))
    with Requests(source, tmp_path) as requests:
        write(source, stories(2, tokens=99))
        with pytest.raises(BatchFileError, match="changed while it was read"):
            requests.read(requests.lines[1])


def test_the_same_custom_id_twice_is_refused(model, files):
    source, target = files
    write(source, [chat("a"), chat("b"), chat("a"), {"custom_id": "line-5", "prompt": "x"}, {"prompt": "x"}])
    with pytest.raises(BatchFileError, match=r"'a' in lines 1 and 3, 'line-5' in lines 4 and 5"):
        run_batch(model, source, target)
    assert not target.exists()


def test_wrong_calls(model, files, monkeypatch):
    source, target = files
    write(source, stories(1))
    for wrong, error, part in (
        ({"window": 0}, ParameterError, "window"),
        ({"window": 1000}, ParameterError, "window"),
        ({"top_p": 5}, ParameterError, "top_p"),
        ({"tok_p": 5}, TypeError, "tok_p"),
    ):
        with pytest.raises(error, match=part):
            run_batch(model, source, target, **wrong)
    with pytest.raises(ParameterError, match=r"\.jsonl or \.parquet"):
        run_batch(model, source, target.with_suffix(".csv"))
    with pytest.raises(ParameterError, match="input itself"):
        run_batch(model, source, source)
    with pytest.raises(FileNotFoundError):
        run_batch(model, source.with_name("none"), target)
    monkeypatch.setattr("fastllm.batch.requests.LONGEST", 50)
    with pytest.raises(BatchFileError, match="line 1 is longer"):
        run_batch(model, source, target)


def test_one_process_at_a_time(model, files):
    source, target = files
    write(source, stories(1))
    with Requests(source, source.parent) as requests, batch.run.Journal(target, requests.lines, "x" * 12):
        refused(model, files, "another process")


def test_a_full_disk_ends_the_run_and_a_later_one_goes_on(model, files, monkeypatch):
    source, target = files
    write(source, stories(6))
    real, count = batch.journal.Journal._write, 0

    def torn(self, data):
        nonlocal count
        count += 1
        if count == 4:
            real(self, data[:50])
            raise OSError(28, "No space left on device")
        real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(batch.journal.Journal, "_write", torn)
        with pytest.raises(OSError, match="No space"):
            run_batch(model, source, target)
    report = run_batch(model, source, target)
    assert (report.resumed, report.requests, report.failed) == (3, 6, 0)
    assert len(read(target)) == 6


def test_a_failing_sync_ends_the_run(model, files, monkeypatch):
    source, target = files
    write(source, stories(400, 100))
    monkeypatch.setattr("fastllm.batch.run._SYNC", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(batch.journal.Journal, "sync", lambda self: self.path.joinpath("no folder").stat())
        with pytest.raises(NotADirectoryError):
            run_batch(model, source, target)
    assert len(read(target)) < 400


# The command, which answers some requests and then waits: whatever ends it ends it in the middle.
PAUSED = """
import asyncio, sys
from fastllm.batch.run import _Run
from fastllm.cli import main
left, answer = int(sys.argv[1]), _Run._answer
async def counted(self, *arguments):
    global left
    left -= 1
    if left < 0:
        await asyncio.sleep(600)
    return await answer(self, *arguments)
_Run._answer = counted
sys.exit(main(sys.argv[2:]))
"""


def ended(arguments, journal, answers, how):
    """Starts a run, and ends it by a signal when it has written more answers. Its exit code, and its errors."""
    before = len(journal.read_bytes().splitlines()) if journal.exists() else 0
    command = [sys.executable, "-c", PAUSED, str(answers), *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not journal.exists() or journal.read_bytes().count(b"\n") < before + answers:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)
        process.send_signal(how)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9 on Windows")
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_kill_9_loses_and_repeats_nothing(model, tmp_path, name):
    source, target = tmp_path / "in.jsonl", tmp_path / name
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    write(source, stories(60, 60))
    arguments = ["batch", str(source), "-o", str(target), "--window", "8"]
    command = [sys.executable, "-m", "fastllm", *arguments]
    journal = tmp_path / (name + ".jsonl") if name.endswith("parquet") else target
    for answers in (1, 15, 30):
        assert ended(arguments, journal, answers, signal.SIGKILL) == (-signal.SIGKILL, NOTE)
    assert not (tmp_path / "out.parquet").exists()
    kept = journal.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert f"60, {len(kept.splitlines())} answered before" in result.stdout
    other = tmp_path / "other.jsonl"
    run_batch(model, source, other)
    if journal != target:
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.jsonl", "other.jsonl", name]
        rows = pytest.importorskip("pyarrow.parquet").read_table(target).to_pylist()
        assert [row["custom_id"] for row in rows] == [f"s{i}" for i in range(60)]
        texts = {row["custom_id"]: row["text"] for row in rows}
        assert texts == {n: r["response"]["body"]["choices"][0]["text"] for n, r in read(other).items()}
    else:
        assert target.read_bytes().startswith(kept), "answers are kept byte for byte"
        assert timeless(read(target)) == timeless(read(other))


def test_ctrl_c_and_a_second_run(tmp_path):
    source, target = write(tmp_path / "in.jsonl", stories(60, 60)), tmp_path / "out.jsonl"
    arguments = ["batch", str(source), "-o", str(target)]
    command = [sys.executable, "-m", "fastllm", *arguments]
    assert ended(arguments, target, 5, signal.SIGINT) == (130, NOTE)
    assert len(read(target)) == 5
    assert subprocess.run(command, capture_output=True, check=True, timeout=60).stderr.decode() == NOTE
    assert len(read(target)) == 60


def test_the_command(model, files):
    source, target = files
    write(source, [chat("a", model="mine"), "wrong"])
    result = fastllm("batch", source, "-o", target, "--model-name", "mine", "-n", "3", "--window", "4")
    assert result.returncode == 1
    assert result.stderr.removeprefix(NOTE) == f"fastllm: 1 requests failed; see their errors in {target}\n"
    rows = dict(line.split(None, 1) for line in result.stdout.splitlines())
    assert rows["requests"] == "2, 0 answered before"
    assert rows["failed"] == "1"
    assert rows["written"].startswith("3 tokens, ")
    answer = read(target)["a"]["response"]["body"]
    assert answer["model"] == "mine"
    assert answer["choices"][0]["message"]["content"] == model.chat(FRANCE, temperature=0, max_tokens=3).content
    write(source, [chat("a"), chat("a")])
    result = fastllm("batch", source, "-o", target)
    assert (result.returncode, result.stdout) == (1, "")
    assert "lines 1 and 2" in result.stderr
    assert fastllm("batch", source).returncode == 2


def test_parquet(model, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    rows = [
        {"custom_id": "chat", "messages": FRANCE, "temperature": 0.0},
        {"custom_id": "json", "messages": None, "temperature": 0.0},
        {"prompt": "Once upon a time", "max_tokens": 4, "temperature": 0.0},
        {"custom_id": "wrong", "prompt": "x", "temperature": -1.0},
    ]
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    files.write_table(pyarrow.Table.from_pylist(rows, schema=pyarrow.schema([
        ("custom_id", pyarrow.string()), ("prompt", pyarrow.string()), ("max_tokens", pyarrow.int64()),
        ("temperature", pyarrow.float64()),
        ("messages", pyarrow.list_(pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string()),
                                                   ("name", pyarrow.string())]))),
    ])), source)  # fmt: skip
    report = run_batch(model, source, target)
    assert (report.requests, report.failed) == (4, 2)
    answers = files.read_table(target).to_pylist()
    assert [row["custom_id"] for row in answers] == ["chat", "json", "line-3", "wrong"]
    assert (answers[0]["text"], answers[0]["finish_reason"], answers[0]["error"]) == (PARIS, "stop", None)
    assert answers[2]["text"] == model.generate("Once upon a time", max_tokens=4, temperature=0).text
    assert "line 4" in answers[3]["error"]
    assert answers[3]["text"] is None
    assert json.loads(answers[0]["response"])["object"] == "chat.completion"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]
    again = run_batch(model, source, target)
    assert (again.resumed, again.failed, again.completion_tokens) == (4, 2, 0)
    with pytest.raises(BatchFileError, match="not the output of this batch"):
        run_batch(model, source, target, top_k=1)
    # JSON text in a column, and JSON lines out.
    files.write_table(pyarrow.table({"messages": [json.dumps(FRANCE)], "temperature": [0]}), source)
    run_batch(model, source, tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl")["line-1"]["response"]["body"]["choices"][0]["message"]["content"] == PARIS
    files.write_table(pyarrow.table({"prompt": [b"bytes"]}), source)
    with pytest.raises(BatchFileError, match="column 'prompt' holds bytes"):
        run_batch(model, source, tmp_path / "other.jsonl")
    source.write_bytes(b"no parquet")
    with pytest.raises(BatchFileError, match=r"in\.parquet"):
        run_batch(model, source, tmp_path / "other.jsonl")


def test_a_kill_between_the_two_files_of_a_parquet_output(model, files, monkeypatch):
    pytest.importorskip("pyarrow")
    source, target = files[0], files[1].with_suffix(".parquet")
    write(source, stories(3, 4))
    real = parquet.write

    def killed_after(*arguments):
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parquet, "write", killed_after)
        with pytest.raises(KeyboardInterrupt):
            run_batch(model, source, target)
    assert len(list(source.parent.iterdir())) == 3
    assert run_batch(model, source, target).resumed == 3
    assert sorted(p.name for p in source.parent.iterdir()) == ["in.jsonl", "out.parquet"]


def test_parquet_without_pyarrow(model, files, monkeypatch):
    source, target = files
    write(source, stories(1, 2))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BatchFileError, match=r"fastllm\[parquet\]"):
        run_batch(model, source, target.with_suffix(".parquet"))
    with pytest.raises(BatchFileError, match=r"fastllm\[parquet\]"):
        list(parquet.rows(source))


def test_a_last_message_of_the_assistant(model, files):
    source, target = files
    begun = [*FRANCE, {"role": "assistant", "content": "The capital of"}]
    write(
        source,
        [
            chat("continued", messages=begun, continue_final_message=True, max_tokens=12),
            chat("opened", messages=begun, add_generation_prompt=True, max_tokens=12),
            chat("refused", messages=begun),
            chat("both", messages=begun, add_generation_prompt=True, continue_final_message=True),
            chat("wrong", messages=begun, continue_final_message="yes"),
        ],
    )
    run_batch(model, source, target)
    answers = read(target)
    text = {
        name: answers[name]["response"]["body"]["choices"][0]["message"]["content"] for name in ("continued", "opened")
    }
    greedy = {"temperature": 0, "max_tokens": 12}
    assert text["continued"] == model.chat(begun, continue_final_message=True, **greedy).content
    assert text["opened"] == model.chat(begun, continue_final_message=False, **greedy).content
    messages = {name: answers[name]["response"]["body"]["error"]["message"] for name in ("refused", "both", "wrong")}
    assert "continue_final_message = true continues it" in messages["refused"]
    assert "cannot both be true" in messages["both"]
    assert "true or false" in messages["wrong"]


def test_chats_of_a_batch_have_the_sampling_of_conversations(model, files):
    source, target = files
    write(source, [{"custom_id": "a", "messages": FRANCE, "seed": 3, "max_tokens": 12}])
    run_batch(model, source, target)
    answer = read(target)["a"]["response"]["body"]["choices"][0]["message"]["content"]
    assert answer == model.chat(FRANCE, seed=3, max_tokens=12).content
