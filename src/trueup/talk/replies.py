"""Answers in OpenAI's shape: whole, and in chunks."""

from __future__ import annotations

import json
import time
from typing import Any

from trueup.talk.answers import Answer, How, Prompt, num_sampled_tokens

FINISH = {"eos": "stop", "stop": "stop", "length": "length", "cancelled": "length"}


class Reply:
    """What is said of one request, whole or in chunks; all parts bear the same id."""

    def __init__(
        self, id: str, model: str, fingerprint: str, prompt: Prompt, how: How, best_of: dict[str, Any] | None = None
    ) -> None:
        """`best_of` says, of answers that are chosen, of how many and by what."""
        self.id, self.prompt = id, prompt
        self._common = {"id": id, "created": int(time.time()), "model": model, "system_fingerprint": fingerprint}
        self._ours = {
            "seed": how.seed,
            "temperature": how.temperature,
            "top_p": how.top_p,
            "max_tokens": how.max_tokens,
            "system_message": prompt.system,
            "notes": prompt.notes,
        } | ({} if best_of is None else {"best_of": best_of})

    def whole(self, answers: list[Answer]) -> dict[str, Any]:
        """A `chat.completion`; `trueup` says how it was sampled."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": FINISH[answer.finish],
            }
            for index, answer in enumerate(answers)
        ]
        made = {"object": "chat.completion", "choices": choices, "usage": self._usage(answers)}
        return self._common | made | {"trueup": self._ours}

    def begin(self, number: int) -> list[bytes]:
        """The first event of each choice; the first of all says how it is sampled."""
        first = [self._event([_delta(index, {"role": "assistant", "content": ""})]) for index in range(number)]
        first[0]["trueup"] = self._ours
        return [event(one) for one in first]

    def piece(self, index: int, text: str) -> bytes:
        return event(self._event([_delta(index, {"content": text})]))

    def end(self, answers: list[Answer], *, with_usage: bool) -> list[bytes]:
        """Why each choice ended, how many tokens there were where that was asked for, and the end of the stream."""
        last = [self._event([_delta(i, {}, FINISH[answer.finish])]) for i, answer in enumerate(answers)]
        if with_usage:
            last.append(self._event([]) | {"usage": self._usage(answers)})
        return [*(event(one) for one in last), b"data: [DONE]\n\n"]

    def _event(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return self._common | {"object": "chat.completion.chunk", "choices": choices}

    def _usage(self, answers: list[Answer]) -> dict[str, int]:
        prompt, drawn = len(self.prompt.ids), num_sampled_tokens(answers)
        return {"prompt_tokens": prompt, "completion_tokens": drawn, "total_tokens": prompt + drawn}


def _delta(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def event(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"
