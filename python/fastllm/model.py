"""`Model`: a language model in memory."""

from __future__ import annotations

import dataclasses
import functools
import math
import operator
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

from fastllm import _native, conversation
from fastllm.answer import ChatOutput
from fastllm.background import in_thread
from fastllm.chat import ChatTemplate, Message
from fastllm.chat_options import ChatOptions, ChatSettings
from fastllm.conversation import Prepared, prepare
from fastllm.errors import CancelledError, ParameterError, TemplateError
from fastllm.gguf import GGUFFile, Metadata, TensorInfo
from fastllm.options import SamplingOptions, SamplingParams, _flag
from fastllm.results import ChatReply, Chunk, EngineStats, Generation
from fastllm.sampling_defaults import CHAT_SAMPLING, recommended
from fastllm.session import Session
from fastllm.stream import (
    AsyncChatStream,
    AsyncTokenStream,
    ChatStream,
    Progress,
    TokenStream,
    _Output,
    require_asyncio,
)
from fastllm.template_input import is_continuable
from fastllm.tokenizer import Tokenizer

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Self, Unpack

    from fastllm.tools import Tool

__all__ = ["Model", "Prompt"]

Prompt = str | Sequence[int]
T = TypeVar("T")

# Requests of one call that run or wait at a time: the engine is kept busy, and others find room in its queue.
_WINDOW = 64
# Bytes of KV cache that are kept at least, for conversations that take turns.
_LEAST_KEPT = 512 << 20
# Iterable, but in no order or of no ids.
_NO_PROMPT = (bytes, bytearray, Mapping, AbstractSet)
# Characters from which on a prompt is tokenized outside the event loop.
_LONG = 20_000
DEMO = Path(__file__).parent / "models" / "fastllm-tiny-q4_0.gguf"


class Model:
    """A model, loaded and ready. Any number of threads and tasks may use it at once; their requests run in one batch.

    A result depends on the weights, the prompt, the options and the seed: not on the number of threads, nor on what
    runs at the same time.

    Args:
        path: A GGUF file, or the first shard of a model.
        context_length: Most positions of a prompt and its output; None: what the model was trained for.
        threads: Threads; None: what this process may use, at most one for each core.
        prefill_threads: Threads for prompts; None: as `threads`.
        kv_dtype: How keys and values are stored: "f32", "f16" or "q8_0".
        isa: The instruction set, one of `fastllm.available_isas()`; None or "auto": the environment variable
            FASTLLM_ISA, else the fastest one.
        cache: Whether a large model is kept packed in the user's cache folder, so that the next load is instant and
            processes share one copy; see `fastllm.cache`. False, or the environment variable FASTLLM_CACHE=0: it is
            packed into memory each time.
        prefix_cache: Bytes of the KV cache up to which the state of ended requests is kept, so that a request that
            begins alike (the next turn of a conversation, the same instructions) computes only what is new; 0: none is.
            None: one full context or 512 MiB, whichever is more, but at most a quarter of the memory that is free.
        speculate: Whether tokens are guessed from the text before (prompt lookup) and computed beside the certain one,
            where measured times say that it pays: texts that repeat their prompt come faster. The output is the same.
        draft: A smaller model with the same vocabulary (a GGUF file) that guesses too, where that pays. The output is
            the same.
        progress: Called with bytes loaded and bytes in all, while the weights are loaded.

    Raises:
        ModelFileError: The file cannot be read (also FileNotFoundError, PermissionError).
        ModelFormatError: It is not a GGUF file, or is damaged.
        UnsupportedModelError: This version cannot run it.
        ParameterError: An option is out of range.
        OutOfMemoryError: The model is too large.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        context_length: int | None = None,
        threads: int | None = None,
        prefill_threads: int | None = None,
        kv_dtype: str = "f16",
        isa: str | None = None,
        cache: bool = True,
        prefix_cache: int | None = None,
        speculate: bool = True,
        draft: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        def load(file: GGUFFile, context_length: int | None, progress: Progress | None) -> _native.Model:
            return _native.Model(
                file._native,  # noqa: SLF001 - one package
                "auto" if isa is None else isa,
                _count("threads", threads),
                _count("prefill_threads", prefill_threads),
                kv_dtype,
                _count("context_length", context_length),
                bool(cache),
                progress,
            )

        # What a copy in a different process is loaded with.
        self._options = {
            "context_length": context_length,
            "threads": threads,
            "prefill_threads": prefill_threads,
            "kv_dtype": kv_dtype,
            "isa": isa,
            "cache": cache,
            "prefix_cache": prefix_cache,
            "speculate": speculate,
            "draft": None if draft is None else _absolute(draft),
        }
        self._origin = _absolute(path)
        self._file = GGUFFile(path)
        weights = load(self._file, context_length, progress)
        self._weights: _native.Model | _Facts = weights
        self.tokenizer = Tokenizer(_native.Tokenizer(self._file._native))  # noqa: SLF001
        kept = _kept_bytes(weights.sequence_bytes) if prefix_cache is None else _bytes("prefix_cache", prefix_cache)
        helper = None
        if draft is not None:
            file = GGUFFile(draft)
            _same_vocabulary(self._file, file)
            helper = load(file, self.context_length, None)
        self._engine = _native.Engine(weights, self.tokenizer._native, kept, bool(speculate), helper)  # noqa: SLF001
        self._grammars = _native.Grammars(self.tokenizer._native)  # noqa: SLF001
        # Tokens that a grammar forces are not sampled one by one. The output is the same; tests turn it off.
        self._skip_ahead = True
        self._template: ChatTemplate | None = None

    @classmethod
    def demo(
        cls,
        *,
        context_length: int | None = None,
        threads: int | None = None,
        prefill_threads: int | None = None,
        kv_dtype: str = "f16",
        isa: str | None = None,
        prefix_cache: int | None = None,
        speculate: bool = True,
        progress: Progress | None = None,
    ) -> Self:
        """The model inside this package, fastllm-tiny: two million parameters, for documentation and tests.

        The keywords are those of `Model`, but for `cache`: it is too small for that.
        """
        return cls(
            DEMO,
            context_length=context_length,
            threads=threads,
            prefill_threads=prefill_threads,
            kv_dtype=kv_dtype,
            isa=isa,
            prefix_cache=prefix_cache,
            speculate=speculate,
            progress=progress,
        )

    # Text

    @overload
    def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        parse_special: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> Generation: ...
    @overload
    def generate(
        self,
        prompt: Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        parse_special: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> list[Generation]: ...
    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        parse_special: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> Generation | list[Generation]:
        """Continues a prompt, or several at once.

        Args:
            prompt: A text, token ids, or a list of either. A text gets the tokens that begin a text, where the model
                wants them.
            params: The options; None: `default_sampling`.
            parse_special: Whether the texts of control tokens in a text prompt, such as "<|im_end|>", become these
                tokens, as a prompt written by hand for a chat or for filling in the middle needs. False for prompts
                that hold untrusted text. Token ids stay what they are.
            options: Fields of `SamplingParams` that differ from `params`.

        Returns:
            A `Generation`; for a list of prompts a list of them.

        Raises:
            ContextOverflowError: The prompt is longer than the context.
            GrammarError: No output can follow the schema, regex, grammar or choices.
            ParameterError: An option is out of range, or the prompt has no tokens.
            TypeError: There is no such option.
        """
        resolved = SamplingParams.resolve("generate", params, self._options_of(params, options))
        prompts, single = _prompts(prompt)
        special = _flag("parse_special", parse_special)
        starts = [functools.partial(self._stream, p, resolved, None, special) for p in prompts]
        results = self._run_all(starts)
        return results[0] if single else results

    def stream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        progress: Progress | None = None,
        parse_special: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> TokenStream:
        """Continues a prompt, giving the text while it is made.

        Args:
            prompt: A text or token ids.
            params: The options; None: `default_sampling`.
            progress: Called with tokens read and tokens in all, while the prompt is read.
            parse_special: As in `generate`.
            options: Fields of `SamplingParams` that differ from `params`.

        Raises:
            As `generate`.
        """
        resolved = SamplingParams.resolve("stream", params, self._options_of(params, options))
        return self._stream(_prompt(prompt), resolved, progress, _flag("parse_special", parse_special))

    @overload
    async def agenerate(  # type: ignore[overload-overlap]  # a str is a sequence of str
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        parse_special: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> Generation: ...
    @overload
    async def agenerate(
        self,
        prompt: Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        parse_special: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> list[Generation]: ...
    async def agenerate(
        self,
        prompt: Prompt | Sequence[Prompt],
        params: SamplingParams | None = None,
        *,
        parse_special: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> Generation | list[Generation]:
        """`generate` for asyncio. Cancelling the task stops the work."""
        import asyncio  # noqa: PLC0415 - `import fastllm` is quick

        resolved = SamplingParams.resolve("agenerate", params, self._options_of(params, options))
        prompts, single = _prompts(prompt)
        special = _flag("parse_special", parse_special)
        if single:
            return await self._astream(prompts[0], resolved, special).result()
        require_asyncio()
        window = asyncio.Semaphore(_WINDOW)

        async def one(prompt: Prompt) -> Generation:
            async with window:
                return await self._astream(prompt, resolved, special).result()

        return await _gather([one(p) for p in prompts])

    def astream(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        parse_special: bool = True,
        **options: Unpack[SamplingOptions],
    ) -> AsyncTokenStream:
        """`stream` for asyncio. The work starts when the stream is first awaited; cancelling the task stops it."""
        resolved = SamplingParams.resolve("astream", params, self._options_of(params, options))
        return self._astream(_prompt(prompt), resolved, _flag("parse_special", parse_special))

    # Chat

    def chat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply:
        """Answers a conversation.

        The messages are written with the chat template of the file. Texts of control tokens in them stay text. The
        answer is taken apart into content, reasoning and tool calls; docs/tools.md says how.

        Args:
            messages: Dicts with "role" and "content", and whatever else the template reads: "tool_calls" and
                "reasoning_content" of the assistant's messages, "tool_call_id" of results, whose role is "tool".
            params: The options; None: `default_chat_sampling`.
            options: Fields of `SamplingParams` that differ from `params`, and
                tools: What the model may call: dicts in the form of the OpenAI interface, or Python functions, which
                    `fastllm.describe_tool` describes. Calls of a tool with `"strict": True` follow its schema.
                tool_choice: "auto": the model decides. "none": it is not told of the tools. "required", or
                    `{"type": "function", "function": {"name": ...}}`: it must call one of them, or this one.
                parallel_tool_calls: Whether it may make several calls (the default); otherwise the answer ends with
                    the first.
                tool_format: How the model writes calls, one of the names in docs/tools.md; None: as its template says.
                reasoning_effort: How much to reason, for templates that read it, such as "low", "medium" or "high".
                reasoning_budget: Most tokens of reasoning, after which it is ended (up to three more where a
                    character would be cut), and the answer follows; None: any number.
                enable_thinking: Whether to reason, for templates that read it.
                chat_template: Another template than that of the file.
                chat_template_kwargs: Further variables of the template, such as `enable_thinking`.
                continue_final_message: What to do with a last message of the assistant. True: continue it; the reply
                    holds what is new only, and response_format and its like apply to all of the message. False: begin
                    a new answer after it. None: it is refused.
                response_format: What the content must be, as in the OpenAI interface: a dict with the "type" "text",
                    "json_object" or "json_schema", or a class with `model_json_schema`. In place of `json_schema`.
                json_schema, regex, grammar, choices: What the content must be. Reasoning may come first, and where
                    there are tools there may be calls in place of content.

        Raises:
            TemplateError: The file has no template, or the template refuses the conversation.
            ParameterError: As `generate`; the template does not read an option; a tool is none; the format of the
                model has no calls, or no reasoning, as an option needs it.
            ContextOverflowError, GrammarError, TypeError: As `generate`.
        """
        settings, resolved = ChatSettings.resolve("chat", params, self._options_of(params, options, chat=True))
        return self._chat(messages, settings, resolved, None).result()

    def chat_stream(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        *,
        progress: Progress | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatStream:
        """Answers a conversation, giving the text while it is made. As `chat` and `stream`."""
        settings, resolved = ChatSettings.resolve("chat_stream", params, self._options_of(params, options, chat=True))
        return self._chat(messages, settings, resolved, progress)

    async def achat(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatReply:
        """`chat` for asyncio. Cancelling the task stops the work."""
        settings, resolved = ChatSettings.resolve("achat", params, self._options_of(params, options, chat=True))
        return await self._achat(messages, settings, resolved).result()

    def achat_stream(
        self,
        messages: Sequence[Message],
        params: SamplingParams | None = None,
        **options: Unpack[ChatOptions],
    ) -> AsyncChatStream:
        """`chat_stream` for asyncio. The work starts when the stream is first awaited; cancelling the task stops it."""
        settings, resolved = ChatSettings.resolve("achat_stream", params, self._options_of(params, options, chat=True))
        return self._achat(messages, settings, resolved)

    @property
    def chat_template(self) -> ChatTemplate:
        """The chat template of the file.

        Raises:
            TemplateError: The file has none, or it is no template.
        """
        if self._template is None:
            source = self.metadata.text("tokenizer.chat_template")
            if source is None:
                raise TemplateError(
                    f"{self.path} has no chat template: give one as chat_template=..., or write the prompt yourself "
                    "and use generate"
                )
            self._template = self._compile(source)
        return self._template

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] | None = None,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool | None = None,
        now: datetime | None = None,
        **variables: Any,
    ) -> str:
        """The text of a conversation, by the template of the file.

        Messages are changed as `chat` does where the template wants them otherwise: see docs/tools.md.

        Args:
            messages: As in `chat`.
            tools: As in `chat`: dicts or Python functions.
            add_generation_prompt: Open the assistant's turn at the end. None: yes, unless the last message is the
                assistant's.
            continue_final_message: End the text within the last message, whatever the template writes after it. None:
                yes where the last message is the assistant's and add_generation_prompt is not given. Both false: the
                last message is closed, and nothing follows.
            now: What `strftime_now` sees; None: the local time.
            variables: Further variables of the template, such as `enable_thinking`.

        Raises:
            ParameterError: Both add_generation_prompt and continue_final_message are true.
            As `ChatTemplate.render`.
        """
        if continue_final_message is None:
            continue_final_message = add_generation_prompt is None and is_continuable(messages)
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        options = {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        return conversation.render(self.chat_template, messages, tools, now=now, **options, **variables)

    # States

    def session(self, token_ids: Sequence[int] = (), *, cache_salt: str = "") -> Session:
        """A text that grows, whose state is kept, forked and saved; empty, or with these tokens.

        Args:
            token_ids: The tokens it begins with.
            cache_salt: As in `SamplingParams`: only texts with the same salt share what was computed.
        """
        return Session(self, _ids(token_ids), cache_salt)

    def load_session(self, path: str | os.PathLike[str], *, cache_salt: str = "") -> Session:
        """The session that `Session.save` wrote: nothing of it is computed again.

        Args:
            path: The file.
            cache_salt: As in `session`; the file does not hold that of the session that wrote it.

        Raises:
            SavedStateError: The file is damaged, or was written with another model, version or options.
            ModelFileError: It cannot be read.
        """
        ids = self._engine.restore_state(path, self._file._native, cache_salt)  # noqa: SLF001 - one package
        return Session(self, ids, cache_salt)

    def _save_state(self, ids: Sequence[int], path: str | os.PathLike[str] | None, cache_salt: str) -> None:
        self._engine.save_state(ids, path, self._file._native, cache_salt)  # noqa: SLF001

    # Numbers

    def logits(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """What the model expects after every token, as float32 `[len(ids), vocab_size]`.

        Raises:
            ContextOverflowError: There are more ids than the context holds.
            ParameterError: There are none, or one is beyond the vocabulary.
        """
        import numpy as np  # noqa: PLC0415 - `import fastllm` is quick

        return np.frombuffer(self._engine.logits(_ids(ids)), dtype=np.float32).reshape(-1, self.vocab_size)

    def score(self, context: Prompt, continuation: Prompt, *, parse_special: bool = True) -> float:
        """The log-probability (natural logarithm) of a continuation after a context.

        Two texts are tokenized together, as the model would read them; the tokens after those of the context count.

        Args:
            context: A text or token ids.
            continuation: A text or token ids.
            parse_special: As in `generate`, for both.

        Raises:
            ContextOverflowError: Both together are longer than the context.
            ParameterError: There is nothing before or nothing in the continuation.
        """
        special = _flag("parse_special", parse_special)
        before = self._encode(context, special)
        if isinstance(context, str) and isinstance(continuation, str):
            ids = self._encode(context + continuation, special)
        else:
            ids = before + self._encode(continuation, special, add_special=False)
        start = len(before)
        if not 0 < start < len(ids):
            raise ParameterError(f"a continuation of {len(ids) - start} tokens after {start} tokens cannot be scored")
        return math.fsum(self._engine.logprobs(ids)[start - 1 :])

    def perplexity(self, text: Prompt, *, window: int | None = None, parse_special: bool = True) -> float:
        """How surprised the model is by a text: the inverse geometric mean of the probabilities of its tokens.

        A long text is cut into windows that know nothing of each other; the first token of each is not scored.

        Args:
            text: A text or token ids, at least two tokens.
            window: Tokens of a window; None: the context length.
            parse_special: As in `generate`.

        Raises:
            ParameterError: The text is too short, or the window is not 2 to the context length.
        """
        window = self.context_length if window is None else window
        if not 1 < window <= self.context_length:
            raise ParameterError(f"window = {window} is not allowed: 2 to {self.context_length}")
        ids = self._encode(text, _flag("parse_special", parse_special))
        windows = (ids[at : at + window] for at in range(0, len(ids), window))
        logprobs = [x for part in windows if len(part) > 1 for x in self._engine.logprobs(part)]
        if not logprobs:
            raise ParameterError(f"a text of {len(ids)} tokens has no perplexity: at least 2 are needed")
        return math.exp(-math.fsum(logprobs) / len(logprobs))

    # Facts

    @property
    def path(self) -> str:
        """The file."""
        return self._file.path

    @property
    def architecture(self) -> str:
        """`general.architecture` of the file."""
        return self._weights.architecture

    @property
    def metadata(self) -> Metadata:
        """The metadata of the file."""
        return self._file.metadata

    @functools.cached_property
    def default_sampling(self) -> Mapping[str, Any]:
        """The sampling options that the file recommends (`general.sampling.*`), by their names in `SamplingParams`.

        `generate` and its relatives use them where no `params` are given, for options that are not given either.
        """
        return recommended(self.metadata)

    @property
    def default_chat_sampling(self) -> Mapping[str, Any]:
        """The same for `chat` and its relatives: temperature 0.7 and top_p 0.95 where the file recommends nothing."""
        return self.default_sampling or CHAT_SAMPLING

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """The tensors of the file."""
        return self._file.tensors

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return self._file.parameters

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights in memory."""
        return self._weights.weight_bytes

    @property
    def vocab_size(self) -> int:
        """Number of token ids: the length of a row of logits."""
        return self._weights.vocab_size

    @property
    def context_length(self) -> int:
        """Most positions of a prompt and its output."""
        return self._weights.context_length

    @property
    def threads(self) -> int:
        """Threads."""
        return self._weights.threads

    @property
    def prefill_threads(self) -> int:
        """Threads for prompts."""
        return self._weights.prefill_threads

    @property
    def kv_dtype(self) -> str:
        """How keys and values are stored."""
        return self._weights.kv_dtype

    @property
    def isa(self) -> str:
        """The instruction set."""
        return self._weights.isa

    def __repr__(self) -> str:
        types = ", ".join(f"{dtype} x {count}" for dtype, count in self._file.dtypes.items())
        return (
            f"Model({Path(self.path).name!r}, {self.architecture}, {_short(self.parameters)} parameters, "
            f"{_short(self.weight_bytes)}B in memory, {types}, {self.isa}, {self.threads} threads)"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles the path and the options: unpickling loads the file again, in a different process too.

        The packed cache makes that quick for large models, whose memory the processes then share. `progress`, sessions
        and the state of the prefix cache are not part of it.
        """
        return _load, (type(self), self._origin, self._options)

    def __copy__(self) -> Self:
        """The same model: its weights never change, and any number of threads may use it."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As `copy.copy`."""
        return self

    def stats(self) -> EngineStats:
        """What the engine of this model is doing."""
        return EngineStats(*self._engine.stats())

    # The end

    def close(self) -> None:
        """Ends all requests, waits for the threads of the model to end, and frees its weights and KV cache.

        Otherwise this happens when the model is collected as garbage. Afterwards only facts and the tokenizer are left:
        requests raise `CancelledError`.
        """
        self._engine.close()
        self._weights = _Facts.of(self._weights)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # Requests

    def _options_of(
        self, params: SamplingParams | None, options: Mapping[str, Any], *, chat: bool = False
    ) -> Mapping[str, Any]:
        """The options of a request, with the defaults of the model where no `params` are given."""
        if params is not None:
            return options
        return {**(self.default_chat_sampling if chat else self.default_sampling), **options}

    def _open(self) -> _native.Model:
        if isinstance(self._weights, _Facts):
            raise CancelledError("the model was closed")
        return self._weights

    def _encode(self, prompt: Prompt, parse_special: bool, *, add_special: bool = True) -> list[int]:
        if not isinstance(prompt, str):
            return _ids(prompt)
        return self.tokenizer.encode(prompt, add_special=add_special, parse_special=parse_special)

    def _start(
        self, ids: list[int], params: SamplingParams, chunk: type[Any], result: type[Any], progress: Progress | None
    ) -> tuple[_Output[Any, Any], _native.Request]:
        request = self._submit(ids, params, params._grammar(self._grammars), None)  # noqa: SLF001 - one package
        return _Output(chunk, result, self.tokenizer, params, progress), request

    def _submit(
        self,
        ids: list[int],
        params: SamplingParams,
        grammar: _native.Grammar | None,
        waker: _native.Waker | None,
        shown: Sequence[int] = (),
    ) -> _native.Request:
        return self._engine.submit(ids, params._native(), grammar, self._skip_ahead, waker, shown)  # noqa: SLF001

    async def _agrammar(self, of: SamplingParams | Prepared) -> _native.Grammar | None:
        # Compiling a grammar takes a while; most requests have none.
        if not of.constrained:
            return None
        compile_ = of.grammar if isinstance(of, Prepared) else of._grammar  # noqa: SLF001 - one package
        return await in_thread(compile_, self._grammars, kind="grammar")

    def _stream(
        self, prompt: Prompt, params: SamplingParams, progress: Progress | None, parse_special: bool
    ) -> TokenStream:
        return TokenStream(*self._start(self._encode(prompt, parse_special), params, Chunk, Generation, progress))

    def _astream(self, prompt: Prompt, params: SamplingParams, parse_special: bool) -> AsyncTokenStream:
        output = _Output(Chunk, Generation, self.tokenizer, params, None)

        async def submit(waker: _native.Waker) -> _native.Request:
            long = isinstance(prompt, str) and len(prompt) > _LONG
            encode = functools.partial(self._encode, prompt, parse_special)
            ids = await in_thread(encode) if long else encode()
            output.prompt_ids = ids
            return self._submit(ids, params, await self._agrammar(params), waker)

        return AsyncTokenStream(output, submit)

    def _chat(
        self,
        messages: Sequence[Message],
        settings: ChatSettings,
        params: SamplingParams,
        progress: Progress | None,
    ) -> ChatStream:
        prepared = self._prepare(messages, settings, params)
        grammar = prepared.grammar(self._grammars)
        request = self._submit(prepared.ids, prepared.params, grammar, None, prepared.parser.shown())
        return ChatStream(ChatOutput(prepared, self.tokenizer, progress), request)

    def _achat(
        self,
        messages: Sequence[Message],
        settings: ChatSettings,
        params: SamplingParams,
    ) -> AsyncChatStream:
        prepared = self._prepare(messages, settings, params)

        async def submit(waker: _native.Waker) -> _native.Request:
            grammar = await self._agrammar(prepared)
            return self._submit(prepared.ids, prepared.params, grammar, waker, prepared.parser.shown())

        output = ChatOutput(prepared, self.tokenizer, None)
        output.prompt_ids = prepared.ids
        return AsyncChatStream(output, submit)

    @staticmethod
    def _run_all(starts: Iterable[Callable[[], TokenStream]]) -> list[Generation]:
        """Runs requests, a window of them at a time; when one fails, the others are stopped."""
        results: list[Generation] = []
        running: deque[TokenStream] = deque()
        try:
            for start in starts:
                if len(running) == _WINDOW:
                    results.append(running[0].result())
                    running.popleft()
                running.append(start())
            while running:
                results.append(running[0].result())
                running.popleft()
        finally:
            for stream in running:
                stream.cancel()
        return results

    def _compile(self, source: str) -> ChatTemplate:
        tokenizer = self.tokenizer
        bos, eos = (None if x is None else tokenizer.token(x) for x in (tokenizer.bos_id, tokenizer.eos_id))
        return ChatTemplate(source, bos_token=bos, eos_token=eos)

    def _prepare(
        self,
        messages: Sequence[Message],
        settings: ChatSettings,
        params: SamplingParams,
    ) -> Prepared:
        template = settings.chat_template
        if template is None:
            template = self.chat_template
        elif isinstance(template, str):
            template = self._compile(template)
        return prepare(template, self.tokenizer, messages, settings, params)


def _load(kind: type[Model], path: str, options: Mapping[str, Any]) -> Model:
    """The model of a pickle."""
    return kind(path, **options)


def _absolute(path: str | os.PathLike[str]) -> str:
    """The path for processes whose working directory may differ."""
    return os.path.abspath(os.fspath(path))  # noqa: PTH100 - links are kept, and nothing is read


@dataclasses.dataclass(frozen=True)
class _Facts:
    """What is known of weights that are gone."""

    architecture: str
    vocab_size: int
    context_length: int
    threads: int
    prefill_threads: int
    kv_dtype: str
    isa: str
    weight_bytes: int

    @classmethod
    def of(cls, weights: _native.Model | _Facts) -> _Facts:
        return cls(**{field.name: getattr(weights, field.name) for field in dataclasses.fields(cls)})


def _count(name: str, value: int | None) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}")
    number = operator.index(value)
    if not 1 <= number <= 2**30:
        raise ParameterError(f"{name} = {number} is not allowed: at least 1")
    return number


def _bytes(name: str, value: int) -> int:
    number = operator.index(value)
    if not 0 <= number < 2**62:
        raise ParameterError(f"{name} = {number} is not allowed: bytes from 0 on")
    return number


def _same_vocabulary(file: GGUFFile, draft: GGUFFile) -> None:
    for key in ("tokenizer.ggml.model", "tokenizer.ggml.tokens"):
        if file.metadata.get(key) != draft.metadata.get(key):
            raise ParameterError(
                f"{draft.path} cannot guess for {file.path}: {key} differs, so that its tokens are other tokens"
            )


def _kept_bytes(sequence: int) -> int:
    """Bytes of KV cache to keep by default, where one full context takes `sequence` bytes."""
    from fastllm import system  # noqa: PLC0415 - `import fastllm` is quick

    wanted = max(sequence, _LEAST_KEPT)
    available = system.available_memory()
    return wanted if available is None else min(wanted, available // 4)


def _ids(ids: Iterable[int]) -> list[int]:
    if isinstance(ids, (str, bytes)):
        raise TypeError(f"token ids must be a sequence of integers, not {type(ids).__name__}")
    try:
        return [operator.index(id_) for id_ in ids]
    except TypeError:
        raise TypeError("token ids must be a sequence of integers") from None


def _prompt(prompt: Any) -> Prompt:
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, _NO_PROMPT) or not isinstance(prompt, Iterable):
        raise TypeError(f"a prompt must be a str or a sequence of token ids, not {type(prompt).__name__}")
    return _ids(prompt)


def _prompts(prompt: Any) -> tuple[list[Prompt], bool]:
    """The prompts, and whether it is a single one."""
    if isinstance(prompt, (str, *_NO_PROMPT)) or not isinstance(prompt, Iterable):
        return [_prompt(prompt)], True
    items = list(prompt)
    if items and all(hasattr(item, "__index__") for item in items):
        return [_ids(items)], True
    return [_prompt(item) for item in items], False


async def _gather(work: list[Any]) -> list[Any]:
    """The results in order; when one fails, or the task is cancelled, the others are stopped."""
    import asyncio  # noqa: PLC0415

    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _short(number: int) -> str:
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number} "
