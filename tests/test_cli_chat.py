"""`fastllm chat` on a terminal and through a pipe: commands, keys, wrapped answers."""

import importlib.util
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import time

import gguf
import pytest

from fastllm.cli.terminal import Wrapper

from .test_cli import NOTE, fastllm, output

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."


class Terminal:
    """A chat on a pseudo-terminal of 60 columns."""

    def __init__(self, toolkit):
        hide = "" if toolkit else "sys.modules['prompt_toolkit'] = None; "
        code = f"import sys; {hide}from fastllm.cli import main; sys.exit(main(sys.argv[1:]))"
        arguments = ["chat", "--temperature", "0", "-n", "60"]
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            import fcntl
            import termios

            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
            env = {**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
            os.execve(sys.executable, [sys.executable, "-c", code, *arguments], env)
        self._seen = self._raw = ""
        self.toolkit = toolkit

    def expect(self, text, seconds=60):
        """Everything that is shown until `text` is, without control sequences."""
        end = time.monotonic() + seconds
        while text not in (shown := re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r|.\x08", "", self._seen)):
            assert time.monotonic() < end, shown
            self._read()
        before, _, self._seen = shown.partition(text)
        return before + text

    def send(self, text):
        os.write(self.fd, text.encode())

    def interrupt(self, seconds=60):
        """Types Ctrl-C once the editor listens: it asks the terminal to mark pasted text, and takes that back."""
        end = time.monotonic() + seconds
        while self.toolkit and self._raw.rfind("\x1b[?2004h") <= self._raw.rfind("\x1b[?2004l"):
            assert time.monotonic() < end, self._raw
            self._read()
        self.send("\x03")
        while not self.toolkit:
            try:
                self.expect("(Ctrl-C again", 10)
                break
            except AssertionError:
                # readline loses a signal between its prompt and its select(): a person presses the key once more.
                assert time.monotonic() < end, self._raw
                self.send("\x03")

    def _read(self):
        if select.select([self.fd], [], [], 0.1)[0]:
            try:
                text = os.read(self.fd, 4096).decode(errors="replace")
            except OSError:  # the other end is closed
                raise AssertionError(self._raw) from None
            self._seen += text
            self._raw += text

    def exit_code(self, seconds=60):
        end = time.monotonic() + seconds
        while (ended := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
            if select.select([self.fd], [], [], 0.01)[0]:
                try:
                    os.read(self.fd, 4096)
                except OSError:
                    time.sleep(0.01)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(ended[1])


@pytest.fixture(params=[False, True], ids=["plain", "prompt_toolkit"])
def terminal(request):
    if request.param and importlib.util.find_spec("prompt_toolkit") is None:
        pytest.skip("prompt_toolkit is missing")
    terminal = Terminal(request.param)
    greeting = terminal.expect("leaves.")
    assert greeting.count("\n") == 0
    assert "fastllm-tiny" in greeting
    terminal.expect("\n")
    return terminal


def test_a_conversation_on_a_terminal(terminal, tmp_path):
    saved = tmp_path / "saved.json"
    terminal.send("/help\r")
    assert "/retry" in terminal.expect("being typed.")
    terminal.send("/hlep\r")
    terminal.expect("unknown command /hlep: did you mean /help?")
    terminal.send("/set temprature 1\r")
    terminal.expect("did you mean 'temperature'?")
    terminal.send("/set top_k many\r")
    terminal.expect("top_k = many is not an integer")
    terminal.send("/set top_k 5\r/set\r")
    terminal.expect("top_k = 5, top_p = 0.95")
    terminal.send("/retry\r")
    terminal.expect("there is no message to answer again")
    terminal.send(FRANCE + "\r")
    terminal.expect(PARIS)
    terminal.send("/retry\r")
    terminal.expect(PARIS)
    terminal.send("/model nothing.gguf\r")
    terminal.expect("No such file")
    terminal.send("//slash\r")
    terminal.expect("\n")
    terminal.send(f"/save {saved}\r")
    terminal.expect("4 messages are in")
    terminal.send(f"/save {saved}\r")
    terminal.expect("exists already")
    terminal.send("/quit\r")
    assert terminal.exit_code() == 0
    messages = json.loads(saved.read_text(encoding="utf-8"))
    assert [m["content"] for m in messages[:3]] == [FRANCE, PARIS, "/slash"]


def test_answers_wrap_at_words(terminal):
    terminal.send("Tell me a story.\r")
    story = terminal.expect("wind.")
    lines = story[story.index("Once upon") :].splitlines()
    assert len(lines) > 2
    assert all(len(line) < 60 for line in lines), lines
    terminal.send("/quit\r")
    assert terminal.exit_code() == 0


def test_control_c_clears_the_line_and_then_leaves(terminal):
    terminal.send("/help\r")
    terminal.expect("being typed.")
    terminal.send("half a line")
    terminal.expect("half a line")
    terminal.interrupt()
    terminal.send(FRANCE + "\r")
    terminal.expect(PARIS)
    if not terminal.toolkit:
        terminal.expect("> ")
    terminal.interrupt()
    if not terminal.toolkit:
        terminal.send("\x03")
    assert terminal.exit_code() == 130


@pytest.mark.parametrize("terminal", [True], indirect=True, ids=["prompt_toolkit"])
def test_pasted_lines_are_one_message(terminal, tmp_path):
    saved = tmp_path / "saved.json"
    terminal.send("\x1b[200~Hello\rthere!\x1b[201~")
    terminal.expect("there!")
    terminal.send("\r")
    terminal.send(f"/save {saved}\r")
    terminal.expect("messages are in")
    terminal.send("/quit\r")
    assert terminal.exit_code() == 0
    assert json.loads(saved.read_text(encoding="utf-8"))[0]["content"] == "Hello\nthere!"


def test_tab_completes_commands(terminal):
    terminal.send("/sys\t")
    terminal.expect("/system")
    terminal.interrupt()
    terminal.send("/quit\r")
    assert terminal.exit_code() == 0


# Through a pipe


def test_commands_through_a_pipe(tmp_path, demo_path):
    saved = tmp_path / "saved.json"
    lines = f"{FRANCE}\n/retry\n/set max_tokens 2\n/retry\n/model {demo_path}\n/save {saved}\n/quit\nnot read\n"
    result = fastllm("chat", "--temperature", "0", "--system", "Be brief.", stdin=lines)
    assert result.returncode == 0
    answers = result.stdout.splitlines()
    assert answers[0] == answers[1]
    assert len(answers[2]) < len(answers[0])
    assert len(answers) == 3, "standard output holds answers only"
    assert [m["role"] for m in json.loads(saved.read_text(encoding="utf-8"))] == ["system", "user", "assistant"]


def test_a_wrong_command_ends_a_pipe():
    result = fastllm("chat", "-n", "1", stdin="/nothing\nHello\n")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == NOTE + "fastllm: unknown command /nothing: /help lists the commands, //TEXT sends a slash\n"


def test_retries_with_a_seed_differ():
    answers = output("chat", "--seed", "3", "--temperature", "3", "-n", "12", stdin="Hello!\n/retry\n/retry\n")
    assert answers == output("chat", "--seed", "3", "--temperature", "3", "-n", "12", stdin="Hello!\n/retry\n/retry\n")
    parts = answers.splitlines()
    assert len(set(parts)) == len(parts) > 1


def test_the_file_recommends_sampling(demo_path, tmp_path):
    reader = gguf.GGUFReader(demo_path)
    copy = tmp_path / "recommends.gguf"
    writer = gguf.GGUFWriter(str(copy), "llama")
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            writer.add_key_value(key, field.contents(), field.types[0], field.types[-1])
    writer.add_float32("general.sampling.temp", 0.6)
    writer.add_int32("general.sampling.top_k", 20)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shown = fastllm("chat", copy, "--min-p", "0.1", stdin="/set\n").stderr
    assert shown == "temperature = 0.6, top_k = 20, min_p = 0.1\n"
    shown = fastllm("chat", stdin="/set\n").stderr
    assert shown == NOTE + "temperature = 0.7, top_p = 0.95\n"


# Wrapping


def wrapped(text, width, size):
    out = []
    wrapper = Wrapper(out.append, lambda: width)
    for at in range(0, len(text), size):
        wrapper.feed(text[at : at + size])
    wrapper.end()
    return "".join(out)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_end_between_words(size):
    text = "one two three four five six\n\nseven  eight\tnine\na-word-longer-than-the-line ten"
    lines = wrapped(text, 12, size).split("\n")
    assert all(len(line) < 12 or " " not in line for line in lines)
    assert wrapped(text, 12, size).split() == text.split()
    assert wrapped(text, 200, size) == text
    assert wrapped(text, None, size) == text


def test_code_keeps_its_lines():
    code = "```python\nprint('a long line of code', 1, 2, 3)\n```\n"
    assert wrapped(code, 20, 4) == code
    assert wrapped("so it is\n" + code + "and more words of text here", 20, 3).endswith(
        "```\nand more words of\ntext here"
    )


def test_wide_and_combining_characters_are_measured():
    assert wrapped("日本 日本 日本", 10, 1) == "日本\n日本\n日本" or wrapped("日本 日本 日本", 10, 1).count("\n") == 1
    assert wrapped("e\u0301e\u0301 xx", 6, 1) == "e\u0301e\u0301 xx"
