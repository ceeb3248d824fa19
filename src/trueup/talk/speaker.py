"""One base in memory with the adapters of a run: it answers messages as any of its models, one request at a time."""

from __future__ import annotations

import copy
import secrets
import threading
from collections.abc import Callable
from typing import Any

from trueup.chat.ending import end_ids
from trueup.chat.template import ANSWER, Chat
from trueup.chat.tokens import KINDS
from trueup.data import in_context
from trueup.data.dialogue import Messages
from trueup.errors import StageError
from trueup.run.pipeline import Pipeline
from trueup.sampling.sample import as_sampled
from trueup.sampling.types import Sampling
from trueup.talk import chooser
from trueup.talk.answers import Answer, How, Prompt
from trueup.talk.best import Best
from trueup.talk.roster import Model, Roster
from trueup.talk.spoken import Spoken
from trueup.talk.usable import refuse_another

Heard = Callable[[int, str], None]  # (which answer, the next piece of its text)
Counted = Callable[[int, int], None]  # (tokens drawn for all answers so far, answers that ended by themselves)
SEEDS = 2**32  # seeds are taken modulo this


class Gone(Exception):
    """Nobody waits for the answer any more."""


class Speaker:
    """The models of a run, ready to answer. Adapters are loaded when they are first asked for, and stay."""

    def __init__(self, pipeline: Pipeline, roster: Roster) -> None:
        """Load the base and one adapter. Raises ModelError or DeviceError where they cannot be loaded."""
        from trueup.models import adapters, base

        self.run, self.roster = pipeline.run, roster
        self.tokenizer = base.load_tokenizer(self.run.model)
        self.chat = Chat(self.tokenizer)
        self._reader = Chat(copy.deepcopy(self.tokenizer))  # a tokenizer serves one thread: another one is answering
        self._reading = threading.Lock()
        known = self.run.model
        bare = base.load_base(known.base, four_bit=self.run.adapter.kind != "lora", dtype=known.dtype)
        first = roster.find(roster.default)
        assert first.path is not None  # noqa: S101 - a roster has an adapter, and the base comes first
        self._model = adapters.load_adapter(bare, first.path, trainable=False)
        self._names = {first.name: "default"}  # of models -> of adapters in memory
        self._engine: tuple[str, Any] | None = None  # (name of the model, what samples as it)
        self._one = threading.Lock()
        self.ends = end_ids(self.tokenizer, self._model)
        self._context = chooser.context(pipeline)
        self._best: Best | None = None  # what chooses among several answers, once it is loaded

    @property
    def context(self) -> int:
        """How many tokens a prompt and its answer may have together."""
        return int(self.tokenizer.model_max_length)

    def prompt(self, asked: Messages) -> Prompt:
        """Messages as the model gets them. Raises Refused where the chat template does not take them."""
        messages = in_context(self.run.data, asked)
        with self._reading:
            encoded, ids = self._reader.answer(messages, ANSWER), self._reader.prompt(messages)
        notes = [KINDS[kind].says for kind in encoded.notes]
        special = [token for token in self.tokenizer.all_special_tokens if any(token in m["content"] for m in asked)]
        if special:
            notes.append(f"{KINDS['text'].says}: {', '.join(special)}")
        own = asked[0]["role"] == "system"
        system = "the request" if own else "data.system" if self.run.data.system else "none"
        return Prompt(messages=messages, ids=ids, notes=notes, system=system)

    def room(self, prompt: Prompt, max_tokens: int, *, exactly: bool) -> int:
        """How many tokens an answer may have: `max_tokens`, or what the context leaves of them unless `exactly`.

        Raises StageError where the context of the base has no room.
        """
        left = self.context - len(prompt.ids)
        if left < (max_tokens if exactly else 1):
            wanted = f" and max_tokens {max_tokens}" if exactly else ""
            raise StageError(
                "messages",
                found=f"a prompt of {len(prompt.ids)} tokens{wanted}",
                expected=f"at most the context of the base, {self.context} tokens together",
                next_step="shorten the messages" + (", or lower max_tokens" if exactly else ""),
            )
        return min(left, max_tokens)

    def answer(
        self,
        model: Model,
        prompt: Prompt,
        how: How,
        *,
        number: int = 1,
        heard: Heard = lambda which, piece: None,
        counted: Counted = lambda tokens, ended: None,
        gone: Callable[[], bool] = lambda: False,
        keep: bool = False,
    ) -> list[Answer]:
        """`number` answers, sampled in one batch; `heard` is told of their texts in pieces as they grow.

        When `gone` says so, sampling ends: raises Gone, or with `keep` returns the answers as far as they came.
        """
        from trueup.models import adapters

        growing = [Spoken(self.chat, prompt.ids, self.ends, how.stops) for _ in range(number)]
        num_tokens = num_ended = 0

        def hear(which: int, token: int) -> bool:
            nonlocal num_tokens, num_ended
            if gone() and not keep:
                raise Gone
            ended = growing[which].hear(token)
            if piece := growing[which].take():
                heard(which, piece)
            num_tokens, num_ended = num_tokens + 1, num_ended + ended
            counted(num_tokens, num_ended)
            return ended or gone()

        with self._one:
            if gone() and not keep:
                raise Gone
            name = self._adapter(model)
            with adapters.using(self._model, name):
                run = self._ready(model, how, number)
                done = run([prompt.ids] * number, how.seed % SEEDS, hear=hear)
            found = [as_sampled(self._model, self.tokenizer, prompt.ids, one) for one in done]
        answers = []
        for which, (spoken, sampled) in enumerate(zip(growing, found, strict=True)):
            cut = "cancelled" if gone() and sampled.num_tokens < how.max_tokens else "length"
            finish = "stop" if spoken.stopped else "eos" if sampled.finish == "eos" else cut
            if rest := spoken.take(whole=True):
                heard(which, rest)
            answers.append(
                Answer(model=model, prompt=prompt, how=how, text=spoken.text, sampled=sampled, finish=finish)
            )
        return answers

    def choose(self, answers: list[Answer], keep: int = 1) -> list[Answer]:
        """The `keep` best of several answers to one prompt, the best first.

        Raises TrueupError as `Roster.chooses` and `Best` do; what chooses is loaded when it is first asked for.
        """
        by = self.roster.chooses()
        with self._one:
            if self._best is None:
                self._best = Best(by, self._context, self._model, self.tokenizer)
            return self._best.of(answers, keep)

    def _adapter(self, model: Model) -> str | None:
        """The name of a model's adapter in memory, loaded now if it is not there; None of the base.

        Raises ModelError when the adapter is another one than the roster found.
        """
        from trueup.models import adapters

        if model.path is None:
            return None
        if model.name not in self._names:
            refuse_another(model.name, model.path, model.fingerprint)
            name = f"adapter_{len(self._names)}"
            adapters.load_frozen(self._model, model.path, name)
            self._names[model.name] = name
        return self._names[model.name]

    def _ready(self, model: Model, how: How, number: int) -> Any:
        """What samples as `model`, whose adapter is in use. That of the last request alone is kept: it may be large."""
        from trueup.sampling.engines import own

        sampling = Sampling(
            max_new_tokens=how.max_tokens,
            temperature=how.temperature,
            top_p=how.top_p,
            batch_size=number,
            seed=how.seed % SEEDS,
        )
        if self._engine is None or self._engine[0] != model.name:
            self._engine = None  # before another one is made
            self._engine = (model.name, own(self._model, self.tokenizer, sampling))
        self._engine[1].sampling = sampling
        return self._engine[1]


def drawn_seed() -> int:
    """A seed that nobody can foresee, for whoever gave none."""
    return secrets.randbelow(SEEDS)
