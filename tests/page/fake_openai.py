"""A small server that speaks as much of OpenAI's API as the chat page needs, and answers what a test asks for."""

import contextlib
import http.server
import json
import threading
import time
from pathlib import Path

import fastllm

PAGE = Path(fastllm.__file__).parent / "server" / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class FakeServer(http.server.ThreadingHTTPServer):
    """Answers with `script`: deltas (dicts), seconds to wait (numbers) and whole events (a `data` key)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.script = []
        self.failure = None  # status, body, headers: in place of an answer
        self.key = None
        self.requests = []
        self.paths = []
        self.left = threading.Event()  # a client closed its connection while it was answered

    def handle_error(self, request, client_address):
        """Clients that leave are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"  # a connection for each request

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.paths.append(self.path)
        if self.path == "/v1/models":
            if self.refused():
                return
            models = [{"id": name, "object": "model"} for name in ("small-model", "large-model-instruct-q4_k_m")]
            self.reply(200, "application/json", json.dumps({"object": "list", "data": models}).encode())
            return
        name = "index.html" if self.path == "/" else self.path.removeprefix("/page/")
        file = PAGE / name
        if "/" in name or not file.is_file():
            self.reply(404, "text/plain", b"no such file")
        else:
            self.reply(200, TYPES[file.suffix], file.read_bytes())

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(body)
        if self.refused():
            return
        if self.server.failure:
            status, error, headers = self.server.failure
            self.reply(status, "application/json", json.dumps(error).encode(), headers)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for part in self.server.script:
                if isinstance(part, (int, float)):
                    time.sleep(part)
                elif "data" in part:
                    self.event(part["data"])
                elif "finish" in part:
                    self.chunk({}, part["finish"])
                else:
                    self.chunk(part, None)
        except OSError:
            self.server.left.set()

    def chunk(self, delta, finish):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self.event(json.dumps({"object": "chat.completion.chunk", "choices": [choice]}))

    def event(self, data):
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def refused(self):
        if self.server.key is None or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return False
        self.reply(401, "application/json", b'{"error": {"message": "invalid API key"}}')
        return True

    def reply(self, status, kind, body, headers=()):
        self.send_response(status)
        self.send_header("Content-Type", kind + "; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)


def answer(text, pause=0.0, size=7):
    """A script that gives a text in pieces, as a model does, and its usage."""
    parts = [{"role": "assistant", "content": ""}]
    for at in range(0, len(text), size):
        parts += [{"content": text[at : at + size]}, pause]
    return [*parts, *end(len(text) // size + 1)]


def end(tokens, finish="stop"):
    usage = {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens}
    return [{"finish": finish}, {"data": json.dumps({"choices": [], "usage": usage})}, {"data": "[DONE]"}]
