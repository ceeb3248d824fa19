"""What an export is measured on: the run's held-out prompts and the greedy answers of the model that was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.chat.template import Chat
from trueup.data import read_prompts
from trueup.run.run_file import RunFile
from trueup.sampling.sample import sample
from trueup.sampling.types import Sampling
from trueup.training import proof

MAX_NEW_TOKENS = 48  # of an answer: what comes later is measured by nobody
LONGEST = 1024  # tokens of a prompt and its answer
BATCH_SIZE = 32

Row = tuple[list[int], list[int]]  # token ids of a prompt, and of the answer after it


@dataclass(frozen=True)
class Texts:
    """Prompts and answers as token ids, and in words where they are from."""

    rows: list[Row]
    source: str
    conversations: list[list[dict[str, Any]]]  # the prompts as messages; none where the source is a probe

    @property
    def num_tokens(self) -> int:
        """Positions that are compared."""
        return sum(len(answer) for _, answer in self.rows)


def held_out(run: RunFile) -> list[dict[str, Any]]:
    """The held-out prompts, rows of {id, messages}; none where no file is set. Raises DataError for faults in it."""
    return read_prompts(run.data, "held_out", run.seed) if run.data.held_out else []


def answered(
    asked: list[dict[str, Any]], model: Any, tokenizer: Any, adapter: Path, num_prompts: int, seed: int
) -> Texts:
    """Greedy answers of the active adapter of `model` to at most `num_prompts` of the prompts `asked`.

    Without any the texts recorded beside `adapter` are used.
    """
    chat = Chat(tokenizer)
    most = min(LONGEST, tokenizer.model_max_length) - MAX_NEW_TOKENS
    fitting = {row["id"]: row["messages"] for row in asked if len(chat.prompt(row["messages"])) <= most}
    chosen = [messages for _, messages in sorted(fitting.items())[:num_prompts]]  # an id is a hash: a fixed choice
    if not chosen:
        why = f"all of data.held_out are longer than {most} tokens" if asked else "data.held_out is not set"
        return Texts(recorded(adapter), f"the texts recorded when the adapter was trained, since {why}", [])
    greedy = Sampling(max_new_tokens=MAX_NEW_TOKENS, temperature=0, top_p=1, batch_size=BATCH_SIZE, seed=seed)
    answers = sample(model, tokenizer, chosen, greedy)
    rows = [(chat.prompt(messages), answer.ids) for messages, answer in zip(chosen, answers, strict=True)]
    said = f"{len(rows)} of {len(asked)} held-out prompts, greedy answers of at most {MAX_NEW_TOKENS} tokens"
    if len(fitting) < len(asked):
        said += f"; {len(asked) - len(fitting)} prompts longer than {most} tokens were left out"
    return Texts([row for row in rows if row[1]], said, chosen)


def recorded(adapter: Path) -> list[Row]:
    """The conversations of the probe that was saved with an adapter; an answer begins at its first trained token."""
    probe = proof.load_probe(adapter)
    rows = []
    for ids, mask, labels in zip(probe["input_ids"], probe["attention_mask"], probe["labels"], strict=True):
        whole, trained = ids[mask.bool()].tolist(), labels[mask.bool()].tolist()
        start = next((i for i, label in enumerate(trained) if label != -100), len(whole))
        rows.append((whole[:start], whole[start:]))
    return [row for row in rows if row[0] and row[1]]
