"""A worker process as the coordinator sees it: it may answer, fail, crash or hang, and none of that ends the run."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

HERE = Path(__file__).resolve().parent


class WorkerError(Exception):
    """Why there is no result, in words for the table."""


@dataclass
class Variant:
    """An engine with settings: one row of the table."""

    engine: str
    python: str
    script: str
    settings: dict[str, Any]
    label: str
    timeout: float
    log: TextIO
    info: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    answers: queue.Queue[str | None] = field(default_factory=queue.Queue)

    @property
    def name(self) -> str:
        return f"{self.engine} {self.label}".strip()

    def start(self) -> None:
        """Loads the model, unless it is loaded."""
        if self.process is not None:
            return
        command = [self.python, str(HERE / self.script), json.dumps(self.settings)]
        self.answers = queue.Queue()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        threading.Thread(target=self.read, args=(self.process, self.answers), daemon=True).start()
        try:
            self.info = self.receive()["ready"]
        except WorkerError:
            self.stop()
            raise

    @staticmethod
    def read(process: subprocess.Popen[str], answers: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put(None)

    def run(self, request: dict[str, int]) -> float:
        """Seconds that the engine took."""
        self.start()
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:
            pass  # It has died; reading says how.
        seconds = float(self.receive()["seconds"])
        if not seconds > 0:
            raise WorkerError(f"took {seconds} seconds")
        return seconds

    def receive(self) -> dict[str, Any]:
        assert self.process is not None
        try:
            line = self.answers.get(timeout=self.timeout)
        except queue.Empty:
            self.stop()
            raise WorkerError(f"no answer in {self.timeout:.0f} s") from None
        if line is None:
            code = self.process.wait()
            self.process = None
            raise WorkerError(
                f"crashed (signal {-code}, {signal.Signals(-code).name})" if code < 0 else f"ended (exit code {code})"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def stop(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
