"""The one way from messages, and from sampled ids, to token ids and label masks.

Sampling, training, the reference proof, KL, reward scores and export all take their tokens from here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from trueup.chat.losses import left_out
from trueup.chat.tokens import IGNORED, KINDS, first_index, last_index
from trueup.errors import PreflightError

Message = dict[str, Any]  # role (system | user | assistant | tool), content, and perhaps tool_calls
Tools = list[dict[str, Any]] | None


class Refused(PreflightError):
    """A conversation that cannot become tokens. `kind` is a key of `tokens.KINDS`, `detail` says more."""

    def __init__(self, kind: str, detail: str = "") -> None:
        self.kind, self.detail = kind, detail
        more = f" ({detail})" if detail else ""
        super().__init__("chat template", found=f"{KINDS[kind].says}{more}", next_step=KINDS[kind].cure)


@dataclass(frozen=True)
class Encoded:
    """A conversation as token ids. `ids[:start]` is the prompt exactly as it is sampled from, the rest the answer.

    `labels` are as long as `ids`, -100 where nothing is trained. `notes` are the kinds (keys of `tokens.KINDS`) of what
    the chat template left out. `finished` is False for an answer that was cut when it was sampled: it has no end token.
    """

    ids: list[int]
    labels: list[int]
    start: int
    finished: bool = True
    notes: tuple[str, ...] = ()
    num_bos_written: int = 1  # by the template, as text; some use it to begin every turn
    end: int | None = None  # where a sampled answer's end token is: it may be another than the template's
    is_sampled: bool = False

    @property
    def prompt(self) -> list[int]:
        return self.ids[: self.start]

    @property
    def answer(self) -> list[int]:
        return self.ids[self.start :]


class Chat:
    """A tokenizer's chat template. The tokenizer is one of `models.base.load_tokenizer`: its eos_token ends a turn."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def text(self, messages: Sequence[Message], tools: Tools = None, *, generation_prompt: bool = False) -> str:
        """The conversation as the template writes it. Raises Refused where it does not take the messages."""
        from jinja2.exceptions import TemplateError

        try:
            written: str = self.tokenizer.apply_chat_template(
                list(messages), tools=tools, add_generation_prompt=generation_prompt, tokenize=False
            )
        except (TemplateError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise Refused("refused", f"{error}") from error
        return written

    def tokens(self, text: str) -> list[int]:
        """The ids of a templated text; nothing is added to it."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt(self, messages: Sequence[Message], tools: Tools = None) -> list[int]:
        """The ids an answer is sampled after: the messages and the generation prompt."""
        return self.tokens(self.text(messages, tools, generation_prompt=True))

    def answer(
        self, messages: Sequence[Message], answer: Message | str, tools: Tools = None, *, finished: bool = True
    ) -> Encoded:
        """The prompt and a written answer to it, with all that the template writes after the prompt labelled.

        An answer that was cut (`finished` False) ends before its end token. Raises Refused.
        """
        message = {"role": "assistant", "content": answer} if isinstance(answer, str) else answer
        before = self.text(messages, tools, generation_prompt=True)
        whole = self.text([*messages, message], tools)
        prompt, ids = self.tokens(before), self.tokens(whole)
        if ids[: len(prompt)] != prompt:
            ids = prompt + self._after(prompt, before, whole)
        if not finished:
            end = last_index(ids, self.tokenizer.eos_token_id, len(prompt))
            ids = ids[:end]
        rest = whole[len(before) :] if whole.startswith(before) else whole
        notes = left_out(messages, message, tools, whole=whole, answer=rest)
        return self._labelled(prompt, ids[len(prompt) :], finished, notes, whole)

    def sampled(self, messages: Sequence[Message], ids: list[int], tools: Tools = None, *, finished: bool) -> Encoded:
        """The prompt and the `ids` that were sampled after it, as they are.

        After a sampled end token comes what the template writes there, so that all conversations end alike.
        """
        before = self.text(messages, tools, generation_prompt=True)
        ended_as_trained = finished and bool(ids) and ids[-1] == self.tokenizer.eos_token_id
        answer = [*ids, *(self._tail if ended_as_trained else [])]
        encoded = self._labelled(self.tokens(before), answer, finished, (), before)
        return replace(encoded, end=encoded.start + len(ids) - 1 if finished else None, is_sampled=True)

    def dialogue(self, messages: Sequence[Message], tools: Tools = None, *, first: int = 0) -> Encoded:
        """The whole dialogue with every assistant turn from messages[first] on labelled, its end token included.

        A turn begins where the prompt before it ends, if the template writes that prompt as the dialogue's own
        beginning; else the template's generation marks say where. Raises Refused where there are none.
        """
        encoded = self.answer(messages[:-1], messages[-1], tools)
        earlier = [i for i, m in enumerate(messages[:-1]) if m["role"] == "assistant" and i >= first]
        labels, notes = list(encoded.labels), set(encoded.notes)
        for i in earlier:
            begun = self.prompt(messages[:i], tools)
            end = first_index(encoded.ids, self.tokenizer.eos_token_id, len(begun))
            if encoded.ids[: len(begun)] != begun or end is None or end >= encoded.start:
                return self._marked(messages, tools, encoded, first)
            labels[len(begun) : end + 1] = encoded.ids[len(begun) : end + 1]
            written = self.decode(encoded.ids[len(begun) : end])
            notes.update(left_out((), messages[i], None, whole=written, answer=written))
        return replace(encoded, labels=labels, notes=tuple(sorted(notes)))

    def encode(self, row: dict[str, Any], name: str = "completion") -> Encoded:
        """A row of `sample` or `collect`: `prompt` or `messages`, the text `name`, perhaps `tools`; and where they are
        known the sampled `<name>_ids` and `<name>_finish` ("length": it was cut), or `ids` and `finish` alone.
        """
        messages = row["prompt"] if "prompt" in row else row["messages"]
        finished = row.get(f"{name}_finish", row.get("finish")) != "length"
        ids = row.get(f"{name}_ids", row.get("ids"))
        if ids is not None:
            return self.sampled(messages, ids, row.get("tools"), finished=finished)
        return self.answer(messages, row[name], row.get("tools"), finished=finished)

    def shown(self, prompt: list[int], ids: list[int]) -> str:
        """The text of sampled `ids` (no end token) as a message's content, with its own white space.

        What the template itself writes around an answer is taken off: a space in Mistral's, an empty thought in
        Qwen3's.
        """
        before = self.decode(prompt, skip_special_tokens=True)
        whole = self.decode([*prompt, *ids], skip_special_tokens=True)
        alone = self.decode(ids, skip_special_tokens=True)
        text = whole[len(before) :] if whole.startswith(before) else alone
        return text.removeprefix(self._lead).removesuffix(self._trail)

    def settled(self, prompt: list[int], ids: list[int]) -> str:
        """The beginning of what is `shown` of the `ids` sampled so far that no later token changes.

        Half a character waits for its rest, and what may become the template's own text around the answer waits, too.
        Byte tokens in a row wait for the token after them: one that fits nowhere makes all of them U+FFFD.
        """
        number = len(ids)
        while number and self._waits(ids[number - 1]):
            number -= 1
        text = self.shown(prompt, ids[:number])
        if self._lead.startswith(text):
            return ""
        text = text.rstrip("\ufffd")
        begun = next((n for n in range(len(self._trail) - 1, 0, -1) if text.endswith(self._trail[:n])), 0)
        return text[: len(text) - begun]

    def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
        """The text of `ids`, exactly as the tokenizer decodes it."""
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return text

    def _labelled(
        self, prompt: list[int], answer: list[int], finished: bool, notes: tuple[str, ...], text: str
    ) -> Encoded:
        bos = self.tokenizer.bos_token
        labels = [IGNORED] * len(prompt) + answer
        return Encoded(prompt + answer, labels, len(prompt), finished, notes, text.count(bos) if bos else 0)

    def _after(self, prompt: list[int], before: str, whole: str) -> list[int]:
        """Ids of what `whole` has after `before`, where tokens would merge across the border between the two.

        They are tokenized apart, as they are sampled, so that prompt and answer together read as the whole text does.
        """
        if not whole.startswith(before):
            written = next((i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(whole))
            raise Refused("prefix", f"the prompt ends with {before[max(0, written - 10) :][:60]!r}")
        rest, wanted = whole[len(before) :], self.decode(self.tokens(whole))
        for anchor in ("", self.tokenizer.eos_token, "a", "\n"):  # an anchor takes the space that some put first
            begun, ids = self.tokens(anchor) if anchor else [], self.tokens(anchor + rest)
            answer = ids[len(begun) :]
            if ids[: len(begun)] == begun and self.decode(prompt + answer) == wanted:
                return answer
        raise Refused("prefix", f"no tokens after the prompt read as {rest[:60]!r}")

    def _marked(self, messages: Sequence[Message], tools: Tools, encoded: Encoded, first: int) -> Encoded:
        """Labels by the template's own {% generation %} marks, which must hold each assistant turn and its end."""
        written = self.tokenizer.get_chat_template(tools=tools)
        if "{% generation" not in written and "{%- generation" not in written:
            raise Refused("turns")
        found = self.tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        ids, mask = found["input_ids"], found["assistant_masks"]
        starts = [i for i, kept in enumerate(mask) if kept and not (i and mask[i - 1])]
        turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
        if ids != encoded.ids or len(starts) != len(turns):
            raise Refused("marks", f"{len(starts)} marked spans for {len(turns)} assistant turns")
        labels = [IGNORED] * len(ids)
        for turn, begin in zip(turns, starts, strict=True):
            end = next((i for i in range(begin, len(ids)) if not mask[i]), len(ids))
            if last_index(ids[:end], self.tokenizer.eos_token_id, begin) is None:
                raise Refused("marks", "they leave the end token out")
            if turn >= first:
                labels[begin:end] = ids[begin:end]
        labels[encoded.start :] = encoded.labels[encoded.start :]
        return replace(encoded, labels=labels)

    def _waits(self, token: int) -> bool:
        """Whether what is shown of a token depends on those after it: bytes do, and special tokens are left out."""
        return token in self._special or bool(BYTE.fullmatch(self.tokenizer.convert_ids_to_tokens(token) or ""))

    @functools.cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    @functools.cached_property
    def _probe(self) -> tuple[str, str]:
        """(what the template writes before, and after, the content of a short conversation's answer)."""
        messages = [{"role": "user", "content": "a"}]
        before = self.text(messages, generation_prompt=True)
        whole = self.text([*messages, {"role": "assistant", "content": ANSWER}])
        at = whole.rindex(ANSWER)
        lead = whole[len(before) : at] if whole.startswith(before) else ""
        return lead, whole[at + len(ANSWER) :]

    @property
    def _lead(self) -> str:
        return self._probe[0]

    @property
    def _trail(self) -> str:
        return self._probe[1].partition(self.tokenizer.eos_token)[0]

    @functools.cached_property
    def _tail(self) -> list[int]:
        """The ids that the template writes after an answer's end token."""
        ids = self.answer([{"role": "user", "content": "a"}], ANSWER).ids
        end = last_index(ids, self.tokenizer.eos_token_id, 0)
        return [] if end is None else ids[end + 1 :]


ANSWER = "trueup"  # an answer that no template contains
BYTE = re.compile("<0x[0-9A-F]{2}>")  # a token of one byte, for characters that the vocabulary lacks
