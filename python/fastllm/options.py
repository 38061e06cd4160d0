"""The options of a request."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict

from fastllm import _native
from fastllm.errors import ParameterError
from fastllm.structured import schema_text

if TYPE_CHECKING:
    from typing_extensions import Self

    from fastllm._native import Grammar, Grammars

__all__ = ["JsonSchema", "SamplingOptions", "SamplingParams"]

# A schema as a mapping or a bool, its text, or a class with `model_json_schema`, such as a pydantic model.
JsonSchema = Mapping[str, Any] | bool | str | type[Any]


class SamplingOptions(TypedDict, total=False):
    """The keywords that `generate` and its relatives take: the fields of `SamplingParams`."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int | None
    dry_sequence_breakers: Sequence[int]
    xtc_probability: float
    xtc_threshold: float
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    seed: int | None
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    logit_bias: Mapping[int, float]
    logprobs: int | None
    prompt_logprobs: int | None
    timeout: float | None
    priority: int
    cache_salt: str
    json_schema: JsonSchema | None
    regex: str | None
    grammar: str | None
    choices: Sequence[str] | None


@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen and what ends the text. The defaults sample from the model's own distribution.

    The filters run in the order of the fields; those at their default do nothing. A wrong value is a `ParameterError`
    (which is a `ValueError`) here, not when the request runs.

    Attributes:
        max_tokens: Most tokens to make; None or -1: until the model ends its text or the context is full.
            0: only the prompt is read.
        temperature: Divides the logits: 0 (always the most likely token) to 100.
        top_k: Keep this many tokens; 0 or -1: all.
        top_p: Keep the most likely tokens up to this total probability: 0 (one token) to 1 (all).
        min_p: Keep tokens at least this likely relative to the most likely one: 0 (all) to 1.
        typical_p: Keep the most typical tokens up to this total probability: 0 (one token) to 1 (all).
        repetition_penalty: Divides positive and multiplies other logits of tokens of prompt and output; 1: none.
        presence_penalty: Subtracted from the logits of tokens of the output: -100 to 100.
        frequency_penalty: The same, times the number of their occurrences.
        dry_multiplier: Scale of the DRY penalty on repeated sequences: 0 (none) to 100.
        dry_base: Its growth with every repeated token: 1 to 10.
        dry_allowed_length: Repetitions shorter than this are free.
        dry_penalty_last_n: Tokens at the end in which repetitions are looked for; None: all.
        dry_sequence_breakers: Token ids at which a repetition ends.
        xtc_probability: How often XTC removes the top choices: 0 (never) to 1.
        xtc_threshold: Least probability of a top choice.
        mirostat: 2: mirostat version 2, in place of the filters from top_k to xtc; 0: none.
        mirostat_tau: The surprise, in bits, that it aims at.
        mirostat_eta: How fast it adapts.
        seed: Seed of the random numbers; None, or any negative number: a different one each time.
        stop: Texts that end the output and are no part of it: one, or up to 256 of them.
        stop_token_ids: Token ids that end the output.
        ignore_eos: Go on after the model's end-of-text tokens.
        logit_bias: Added to the logits of token ids: -100 to 100, or -inf to ban them.
        logprobs: Report the log-probability of every token and of this many alternatives (0 to 100).
        prompt_logprobs: The same for the tokens of the prompt, of `generate` and its relatives. The whole prompt is
            computed then, whatever prefix of it is cached.
        timeout: Seconds after which the request ends with what it has.
        priority: Requests of a higher priority leave the queue and read their prompts first.
        cache_salt: Prefix caching happens only among requests with the same salt: others can neither reuse nor notice
            what this one computed.
        json_schema: The output is a JSON value that follows this schema: a dict or bool, its text, or a class with
            `model_json_schema` such as a pydantic model; kept as text.
        regex: The whole output matches this regex, in the syntax of the Rust crate regex.
        grammar: The output follows this grammar in GBNF (rules are `name ::= ...`) or Lark (`name: ...`).
        choices: The output is one of these strings.

    At most one of the last four may be given. Whether what they hold can be followed is found out when a request
    starts: a `GrammarError` (which is a `ValueError`) then.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: Sequence[int] = ()
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = dataclasses.field(default_factory=dict)
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    timeout: float | None = None
    priority: int = 0
    cache_salt: str = ""
    json_schema: JsonSchema | None = None
    regex: str | None = None
    grammar: str | None = None
    choices: Sequence[str] | None = None

    def __post_init__(self) -> None:
        for name, (least, most) in _INTEGERS.items():
            value = _without_default_marker(name, getattr(self, name))
            self._set(name, value)
            if value is not None or name not in _OPTIONAL:
                self._set(name, _integer(name, value, least, most))
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None or name not in _OPTIONAL:
                self._set(name, _number(name, value))
        for name in ("dry_sequence_breakers", "stop_token_ids"):
            self._set(name, tuple(_integer(name, value, 0, _U32) for value in _items(name, getattr(self, name))))
        self._set("stop", _strings("stop", self.stop))
        if not isinstance(self.ignore_eos, bool):
            raise TypeError(f"ignore_eos must be a bool, not {type(self.ignore_eos).__name__}")
        if not isinstance(self.logit_bias, Mapping):
            raise TypeError(f"logit_bias must be a mapping of ids to numbers, not {type(self.logit_bias).__name__}")
        bias = {_integer("logit_bias", id_, 0, _U32): _number("logit_bias", x) for id_, x in self.logit_bias.items()}
        self._set("logit_bias", bias)
        self._check_constraint()
        self._native()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_constraint(self) -> None:
        given = [name for name in _CONSTRAINTS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ParameterError(f"{given[0]} and {given[1]} cannot be combined")
        if self.json_schema is not None:
            self._set("json_schema", schema_text(self.json_schema))
        if not isinstance(self.cache_salt, str):
            raise TypeError(f"cache_salt must be a str, not {type(self.cache_salt).__name__}")
        for name in ("regex", "grammar"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} must be a str, not {type(value).__name__}")
        if self.choices is not None:
            if isinstance(self.choices, str):
                raise TypeError("choices must be a sequence of str, not a str")
            self._set("choices", _strings("choices", self.choices))

    @property
    def constrained(self) -> bool:
        """Whether the output must follow a schema, a regex, a grammar or a choice."""
        return any(getattr(self, name) is not None for name in _CONSTRAINTS)

    def _native(self) -> _native.Sampling:
        """The checked options, as the engine takes them. The ranges are the engine's."""
        names = (field.name for field in dataclasses.fields(self))
        return _native.Sampling(**{name: getattr(self, name) for name in names if name not in _CONSTRAINTS})

    def _grammar(self, grammars: Grammars) -> Grammar | None:
        """What the output must follow, compiled."""
        if self.choices is not None:
            return grammars.choices(self.choices)
        for name in ("json_schema", "regex", "grammar"):
            text = getattr(self, name)
            if text is not None:
                return grammars.compile(name, text)
        return None

    @classmethod
    def resolve(cls, function: str, params: Self | None, options: Mapping[str, Any]) -> Self:
        """`params`, changed by `options`.

        Args:
            function: Whose keywords the options are, for the error message.
            params: None: the defaults.
            options: Fields by name.

        Raises:
            TypeError: An option has no such field.
            ParameterError: A value is out of range.
        """
        if params is not None and not isinstance(params, cls):
            raise TypeError(f"{function}() takes SamplingParams or None, not {type(params).__name__}")
        unknown = [name for name in options if name not in _FIELDS]
        if unknown:
            raise TypeError(f"{function}() got an unexpected keyword argument {unknown[0]!r}{_suggestion(unknown[0])}")
        return cls(**options) if params is None else dataclasses.replace(params, **options)


_CONSTRAINTS = ("json_schema", "regex", "grammar", "choices")
_U32 = 2**32 - 1
_INTEGERS = {
    "max_tokens": (0, _U32),
    "top_k": (0, _U32),
    "dry_allowed_length": (1, _U32),
    "dry_penalty_last_n": (0, _U32),
    "mirostat": (0, 2),
    "seed": (0, 2**64 - 1),
    "logprobs": (0, 100),
    "prompt_logprobs": (0, 100),
    "priority": (-(2**31), 2**31 - 1),
}
# Negative numbers that stand for the default in other engines and their clients: the value they mean, and the smallest
# number that means it.
_DEFAULT_MARKERS: Mapping[str, tuple[int | None, int]] = {
    "max_tokens": (None, -1),
    "top_k": (0, -1),
    "seed": (None, -(2**63)),
}
_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "dry_multiplier",
    "dry_base",
    "xtc_probability",
    "xtc_threshold",
    "mirostat_tau",
    "mirostat_eta",
    "timeout",
)
_OPTIONAL = frozenset({"max_tokens", "dry_penalty_last_n", "seed", "logprobs", "prompt_logprobs", "timeout"})
_FIELDS = frozenset(field.name for field in dataclasses.fields(SamplingParams))


def _without_default_marker(name: str, value: Any) -> Any:
    """`value`, or what a negative number stands for where clients write one for the default."""
    if name not in _DEFAULT_MARKERS or isinstance(value, bool) or not hasattr(value, "__index__"):
        return value
    meaning, least = _DEFAULT_MARKERS[name]
    return meaning if least <= operator.index(value) < 0 else value


def _integer(name: str, value: Any, least: int, most: int) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError  # noqa: TRY301 - True is no count
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None
    if not least <= number <= most:
        raise ParameterError(f"{name} = {number} is not allowed: {least} to {most}")
    return number


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be a bool, not {type(value).__name__}")
    return value


def _number(name: str, value: Any) -> float:
    if isinstance(value, (bool, str, bytes)) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ParameterError(f"{name} is beyond the range of numbers") from None


def _items(name: str, value: Any) -> Iterable[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence of token ids, not {type(value).__name__}")
    return value


def _strings(name: str, value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else tuple(_items(name, value) if value is not None else ())
    for string in strings:
        if not isinstance(string, str):
            raise TypeError(f"{name} must be a str or a sequence of str, not of {type(string).__name__}")
    return strings


def _suggestion(name: str, known: Iterable[str] = _FIELDS) -> str:
    import difflib  # noqa: PLC0415 - for an error only

    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
