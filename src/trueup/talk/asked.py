"""What a request may ask for, in OpenAI's words: a parameter is honoured, or refused by name; none is ignored."""

from __future__ import annotations

import json
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trueup.data.dialogue import Messages, turns
from trueup.data.faults import RowFault
from trueup.data.values import refuse_half_characters
from trueup.errors import visible

MOST_ANSWERS = 16  # of one request
MOST_STOPS = 4  # as OpenAI allows
ROLES = ("system", "developer", "user", "assistant")
LONGEST_TEXT = 100_000  # characters of a comment or a better answer
# Parameters of OpenAI's that are not honoured, and with which values they change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}


class BadRequest(Exception):
    """A request that is refused: the status, and OpenAI's error object."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {"error": {"message": visible(str(self)), "type": kind, "param": self.param, "code": self.code}}


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class StreamOptions(_Body):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Asked(_Body):
    """`POST /v1/chat/completions`. Of `best_of` sampled answers the `n` best are given, the best first."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    n: int | None = Field(default=None, ge=1, le=MOST_ANSWERS)
    best_of: int | None = Field(default=None, ge=1, le=MOST_ANSWERS)
    user: str | None = Field(default=None, max_length=100)

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which an answer ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def most_tokens(self) -> int | None:
        """How long an answer may be, in tokens, where the request says so."""
        return self.max_completion_tokens or self.max_tokens


class Said(_Body):
    """`POST /v1/feedback`: what somebody says of one answer."""

    model_config = ConfigDict(extra="forbid")

    completion_id: str
    choice: int = Field(default=0, ge=0, lt=MOST_ANSWERS)
    thumb: Literal["up", "down"] | None = None
    score: int | None = Field(default=None, ge=1, le=5)
    better_answer: str | None = Field(default=None, max_length=LONGEST_TEXT)
    comment: str | None = Field(default=None, max_length=LONGEST_TEXT)
    who: str | None = None


Body = TypeVar("Body", bound=_Body)


def decoded(data: bytes) -> Any:
    """The JSON value of a body. Raises BadRequest where it is none."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    try:
        return json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # bytes that are no UTF-8 are a ValueError, too
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise BadRequest(f"the body is not JSON: {said}") from None


def read(kind: type[Body], value: Any) -> Body:
    """A body as `kind`. Raises BadRequest, naming every fault at once."""
    if not isinstance(value, dict):
        raise BadRequest(f"the body is a JSON {type(value).__name__}, expected an object")
    _refuse_halves(value)
    try:
        found = kind.model_validate(value)
    except ValidationError as error:
        faults = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors(include_url=False)]
        first = faults[0][0].partition(".")[0]
        raise BadRequest("; ".join(f"{where}: {said}" for where, said in faults[:20]), param=first) from None
    unknown = {name: value for name, value in (found.model_extra or {}).items() if not _neutral(name, value)}
    if unknown:
        raise BadRequest(
            f"not supported here: {', '.join(sorted(unknown))[:500]}. Leave {'it' if len(unknown) == 1 else 'them'} "
            f"out; supported are {', '.join(kind.model_fields)}",
            param=min(unknown),
            code="unsupported_parameter",
        )
    if isinstance(found, Asked):
        _refuse_contradictions(found)
    return found


def messages_of(asked: Asked) -> Messages:
    """The messages, whose last is the user's. Raises BadRequest where they are no dialogue, or not of text alone."""
    plain = []
    for number, message in enumerate(asked.messages, start=1):
        name = f"messages {number}"
        if message.get("role") not in ROLES:
            raise BadRequest(
                f"{name} is of role {message.get('role')!r}, expected {', '.join(ROLES)}", param="messages"
            )
        if more := sorted(key for key, value in message.items() if key not in ("role", "content") and value):
            raise BadRequest(f"{name} has {', '.join(more)[:200]}, which is not supported here", param="messages")
        role = "system" if message["role"] == "developer" else message["role"]
        plain.append({"role": role, "content": message.get("content")})
    try:
        found = turns(plain, "messages")
    except RowFault as fault:
        raise BadRequest(str(fault), param="messages") from None
    if found[-1]["role"] != "user":
        raise BadRequest("the last message is the assistant's, expected the user's", param="messages")
    return found


def _neutral(name: str, value: Any) -> bool:
    """Whether a parameter that is not honoured has a value with which it would change nothing."""
    return value is None or any(type(value) is type(one) and value == one for one in _values(name))


def _values(name: str) -> tuple[Any, ...]:
    known = NEUTRAL.get(name, ())
    return (*known, *(float(one) for one in known if type(one) is int))


def _refuse_contradictions(asked: Asked) -> None:
    if asked.max_tokens and asked.max_completion_tokens and asked.max_tokens != asked.max_completion_tokens:
        raise BadRequest("max_tokens and max_completion_tokens differ: give one of them", param="max_tokens")
    if asked.stream_options is not None and not asked.stream:
        raise BadRequest("stream_options without stream: true", param="stream_options")
    if len(asked.stops) > MOST_STOPS or "" in asked.stops:
        raise BadRequest(f"stop: expected at most {MOST_STOPS} texts, none of them empty", param="stop")
    if asked.best_of is not None and asked.best_of < (asked.n or 1):
        raise BadRequest(
            f"best_of is {asked.best_of} and n is {asked.n}: of best_of answers the n best are given, so that best_of "
            "has to be at least n",
            param="best_of",
        )


def _refuse_halves(value: Any) -> None:
    """Raises BadRequest on half a surrogate pair anywhere, which JSON can carry and no file can hold."""
    texts = [value]
    while texts:
        one = texts.pop()
        if isinstance(one, str):
            try:
                refuse_half_characters(one, "the body")
            except RowFault as fault:
                raise BadRequest(str(fault)) from None
        elif isinstance(one, dict):
            texts += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            texts += one
