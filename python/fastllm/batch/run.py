"""Runs a batch: keeps many requests of a file in flight, and writes each answer when it is there."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import json
import operator
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastllm.batch import parquet
from fastllm.batch.errors import BatchFileError, RequestError
from fastllm.batch.journal import Journal, answer_id
from fastllm.batch.requests import Line, Requests, by_length, read_request
from fastllm.batch.wire import COMPLETIONS, Call, response_body, translate
from fastllm.errors import BusyError, CancelledError, FastLLMError, ForkError, ParameterError
from fastllm.model import _gather
from fastllm.options import SamplingParams, _flag

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from typing_extensions import Unpack

    from fastllm.model import Model
    from fastllm.options import SamplingOptions
    from fastllm.results import ChatReply, Generation
    from fastllm.stream import Progress

__all__ = ["BatchReport", "run_batch"]

# Requests in flight: the engine computes 16 at a time, and as many are ready to follow.
WINDOW = 32
_LARGEST_WINDOW = 256
# Seconds between syncs: the most work that a loss of power costs.
_SYNC = 1.0
# Seconds until the model is asked again when others have filled its queue.
_BUSY = 0.05
_INVALID, _FAILED = 400, 500


@dataclass(frozen=True)
class BatchReport:
    """What a run did.

    Attributes:
        requests: In the input.
        resumed: Of these, answered by an earlier run.
        failed: Answers that are errors, those of earlier runs included.
        prompt_tokens: That this run read.
        completion_tokens: That this run wrote.
        seconds: That this run took.
    """

    requests: int
    resumed: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float

    @property
    def prompt_tokens_per_second(self) -> float:
        """Tokens read, over the whole time."""
        return self.prompt_tokens / self.seconds if self.seconds else 0.0

    @property
    def completion_tokens_per_second(self) -> float:
        """Tokens written, over the whole time."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0


def run_batch(
    model: Model,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    params: SamplingParams | None = None,
    *,
    window: int = WINDOW,
    model_name: str | None = None,
    parse_special: bool = True,
    progress: Progress | None = None,
    **options: Unpack[SamplingOptions],
) -> BatchReport:
    """Answers every request of a file.

    An input has lines of OpenAI's batch format, or objects with `prompt` or `messages` and options; the output has
    OpenAI's format, in the order in which the answers were ready. What is wrong with a request is its answer, and
    stops nothing. If the output holds answers already, the run goes on after them. It blocks, and needs an event loop
    of its own: call it from a thread where one is running.

    Args:
        model: The model.
        source: Requests, `.parquet` or else JSON lines.
        target: Answers, `.parquet` or `.jsonl`. A Parquet file appears at the end; until then the answers are in a file
            of JSON lines beside it.
        params: Options of requests that do not set them; None: those of the model, as in `generate` and `chat`.
        window: Requests in flight, 1 to 256.
        model_name: What requests must call the model, where they name one; None: its file's name without `.gguf`.
        parse_special: Whether the texts of control tokens in text prompts become these tokens, as in `Model.generate`,
            where a request does not say; never in messages.
        progress: Called with requests answered and requests in all.
        options: Fields of `SamplingParams` that differ from `params`.

    Raises:
        BatchFileError: Two requests have the same custom_id; the output holds something else than answers to this
            input, by this model, with these options; or a file is no Parquet file.
        OSError: A file cannot be read or written.
        ParameterError, TypeError: An option is wrong.
    """
    resolved = SamplingParams.resolve("run_batch", params, options)
    defaults = model.default_sampling, model.default_chat_sampling
    given = [options if params is not None else {**default, **options} for default in defaults]
    texts, chats = (SamplingParams.resolve("run_batch", params, one) for one in given)
    special = _flag("parse_special", parse_special)
    if not 1 <= operator.index(window) <= _LARGEST_WINDOW:
        raise ParameterError(f"window = {window} is not allowed: 1 to {_LARGEST_WINDOW}")
    source, target = Path(source), Path(target)
    if target.suffix not in {".jsonl", ".parquet"}:
        raise ParameterError(f"{target} must end in .jsonl or .parquet")
    if target.exists() and source.exists() and target.samefile(source):
        raise ParameterError(f"{target} is the input itself")
    if parquet.is_parquet(target):
        parquet.load()  # before the work, not after it
    name = Path(model.path).stem if model_name is None else model_name
    start = time.monotonic()
    with Requests(source, target.absolute().parent) as requests:
        settings = _settings(model, resolved, name, special)

        def answer_into(journal: Journal) -> BatchReport:
            run = _Run(
                model,
                texts,
                chats,
                name=name,
                parse_special=special,
                requests=requests,
                journal=journal,
                settings=settings,
            )
            return run.run(window, progress, start)

        if not parquet.is_parquet(target):
            with Journal(target, requests.lines, settings) as journal:
                return answer_into(journal)
        fingerprint = _fingerprint(requests.lines, settings)
        beside = target.with_name(target.name + ".jsonl")
        if target.exists() and not beside.exists():
            failed = parquet.failures(target, fingerprint)
            if failed is None:
                raise BatchFileError(f"{target} is not the output of this batch; choose another, or delete it")
            return BatchReport(len(requests.lines), len(requests.lines), failed, 0, 0, 0.0)
        with Journal(beside, requests.lines, settings) as journal:
            report = answer_into(journal)
            parquet.write(target, (journal.read(line.custom_id) for line in requests.lines), fingerprint)
        beside.unlink()
        return report


class _Run:
    """The requests that are left, and what became of them."""

    def __init__(
        self,
        model: Model,
        texts: SamplingParams,
        chats: SamplingParams,
        *,
        name: str,
        parse_special: bool,
        requests: Requests,
        journal: Journal,
        settings: str,
    ) -> None:
        self._model = model
        self._texts = texts
        self._chats = chats
        self._name = name
        self._parse_special = parse_special
        self._requests = requests
        self._journal = journal
        self._settings = settings
        self._syncing: asyncio.Future[None] | None = None
        self._prompt_tokens = self._completion_tokens = 0

    def run(self, window: int, progress: Progress | None, start: float) -> BatchReport:
        """Answers them all."""
        resumed = len(self._journal.answers)
        left = by_length(line for line in self._requests.lines if line.custom_id not in self._journal.answers)
        if left:
            asyncio.run(self._answer_all(left, window, progress))
        self._journal.sync()
        return BatchReport(
            requests=len(self._requests.lines),
            resumed=resumed,
            failed=self._journal.failed,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            seconds=time.monotonic() - start,
        )

    async def _answer_all(self, left: list[Line], window: int, progress: Progress | None) -> None:
        lines = iter(left)
        # A request with several choices counts as several.
        slots = asyncio.Semaphore(window)
        self._syncing = asyncio.ensure_future(self._sync())
        try:
            await _gather([self._work(lines, slots, progress) for _ in range(min(window, len(left)))])
        finally:
            self._syncing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._syncing

    async def _work(self, lines: Iterator[Line], slots: asyncio.Semaphore, progress: Progress | None) -> None:
        for line in lines:
            answer = await self._answer(line, slots)
            if self._syncing is not None and self._syncing.done():
                self._syncing.result()  # the disk has failed
            self._journal.add(line.custom_id, answer)
            if progress is not None:
                progress(len(self._journal.answers), len(self._requests.lines))

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(_SYNC)
            await asyncio.to_thread(self._journal.sync)

    async def _answer(self, line: Line, slots: asyncio.Semaphore) -> dict[str, Any]:
        """The answer to a request, as a line of the output."""
        id_ = answer_id(line, self._settings)
        error = None
        try:
            endpoint, body, _ = read_request(self._requests.read(line))
            call = translate(endpoint, body, self._name)
            results = await self._call(call, slots)
        except (BatchFileError, CancelledError, ForkError):
            raise  # not about this request
        except (FastLLMError, TypeError, ValueError, OverflowError, RecursionError) as wrong:
            status, body, error = _failure(line, wrong)
        else:
            prompts = results[:: call.n]
            self._prompt_tokens += sum(result.usage.prompt_tokens for result in prompts)
            self._completion_tokens += sum(result.usage.completion_tokens for result in results)
            status = 200
            body = response_body(call, results, id_=id_, created=int(time.time()), model_name=self._name)
        response = {"status_code": status, "request_id": id_, "body": body}
        return {"id": id_, "custom_id": line.custom_id, "response": response, "error": error}

    async def _call(self, call: Call, slots: asyncio.Semaphore) -> list[ChatReply | Generation]:
        ask: Any = self._model.achat
        params = self._chats
        if call.endpoint == COMPLETIONS:
            params = self._texts
            ask = functools.partial(self._model.agenerate, parse_special=self._parse_special)

        async def one(value: Any, keywords: dict[str, Any]) -> ChatReply | Generation:
            async with slots:
                while True:
                    try:
                        result: ChatReply | Generation = await ask(value, params, **keywords)
                    except BusyError:  # noqa: PERF203 - seldom
                        await asyncio.sleep(_BUSY)
                    else:
                        return result

        return await _gather([one(value, keywords) for value, keywords in call.calls()])


def _failure(line: Line, error: Exception) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Status, body and error of the answer to a request that cannot be answered."""
    invalid = not isinstance(error, FastLLMError) or isinstance(error, ValueError)
    kind = "invalid_request_error" if invalid else "server_error"
    param = error.param if isinstance(error, RequestError) else None
    message = f"line {line.number}: {error}"
    body = {"error": {"message": message, "type": kind, "param": param, "code": None}}
    return _INVALID if invalid else _FAILED, body, {"code": kind, "message": message, "line": line.number}


def _settings(model: Model, params: SamplingParams, name: str, parse_special: bool) -> str:
    """A digest of all that answers depend on beside the requests."""
    file = Path(model.path)
    # Only what was chosen: an option that a later version adds changes nothing.
    chosen = {name: value for name, value in vars(params).items() if value != getattr(SamplingParams(), name)}
    if not parse_special:
        chosen["parse_special"] = False
    facts = [
        file.name,
        file.stat().st_size,
        model.kv_dtype,
        model.context_length,
        name,
        sorted((option, repr(value)) for option, value in chosen.items()),
        [(tensor.name, tensor.dtype, list(tensor.shape)) for tensor in model.tensors],
        sorted((key, repr(value)) for key, value in model.metadata.items()),
    ]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _fingerprint(lines: list[Line], settings: str) -> str:
    """A digest of a whole batch."""
    digest = hashlib.blake2b(digest_size=16)
    for line in lines:
        digest.update(json.dumps([line.custom_id, answer_id(line, settings)]).encode())
    return digest.hexdigest()
