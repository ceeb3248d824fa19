"""One pass over a source: its faults, duplicates, lengths, cut answers, addresses and keys; memory stays flat."""

from __future__ import annotations

import random
import re
from array import array
from typing import TYPE_CHECKING, Any

from trueup.data.closer import Closer, CountTokens
from trueup.data.faults import NUM_SHOWN, Faults
from trueup.data.values import same_text
from trueup.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from trueup.data.formats import Example
    from trueup.data.sources import Place, Reader

SAMPLE = 50_000  # rows looked at more closely
KEPT = 2_000  # characters of each text kept for that; all of it where tokens are counted
LONG = 200  # characters from which an answer should end with an end mark
SAY_EVERY = 20_000  # rows
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*\w")
KEY_SIGNS = ("_", "sk-", "AKIA", "glpat-", "xox", "AIza", "eyJ", "PRIVATE")  # one is in every KEY; quicker to look for
KEY = re.compile(
    r"\b(?:sk-[\w-]{20,}|AKIA[0-9A-Z]{16}|gh[pousr]_\w{36}|github_pat_\w{22,}|glpat-[\w-]{20}|xox[abprs]-[\w-]{10,}"
    r"|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


class Survey:
    """What `run` found out about one source. Places are (file, line)."""

    def __init__(
        self,
        name: str,
        reader: Reader,
        *,
        seed: int,
        full: bool,
        count_tokens: CountTokens | None,
        train_on: str = "last",
    ) -> None:
        self.name, self.reader, self.full = name, reader, full
        self._train_on = train_on
        self.too_few = ""  # a warning about all sources of the field, with the last of them
        self.warnings = Faults()
        self.error: DataError | None = None  # why the source could not be read to its end
        self.num_with_tools = 0
        self.prompt_lengths, self.answer_lengths = array("I"), array("I")  # characters
        self.closer = Closer(self.warnings, reader.place, count_tokens)
        self._kept = None if count_tokens else KEPT
        self._draw = random.Random(seed).random  # noqa: S311 - a sample, not a secret
        self._sample: list[tuple[Place, str, str, str]] = []
        self._files, self._lines = array("I"), array("I")
        self._rows, self._prompts = array("q"), array("q")  # 64-bit hashes

    def run(self, say: Callable[[str], None]) -> Survey:
        """Read the source to its end; a file that cannot be read is remembered in `error`."""
        try:
            for place, example in self.reader:
                self._add(place, example)
                if len(self._lines) % SAY_EVERY == 0:
                    say(f"{self.name}: {len(self._lines):,} rows")
        except DataError as error:
            self.error = error
        say(f"{self.name}: a closer look")
        for row in sorted(self._sample):
            self.closer.add(*row)
        self._sample.clear()
        self.closer.finish()
        self._find_duplicates()
        return self

    def _add(self, place: Place, example: Example) -> None:
        answer, rejected = example.completion or "", example.rejected or ""
        turns = [turn["content"] for turn in example.prompt if turn["role"] != "system"]
        prompt = turns[0] if len(turns) == 1 else "\n".join(turns)
        self.num_with_tools += example.has_tools
        self._files.append(place[0])
        self._lines.append(place[1])
        said = repr(example.verdicts) if example.verdicts else example.label
        self._rows.append(hash((prompt, answer, rejected, said, repr(example.tool_calls or ""))))
        self._prompts.append(hash(same_text(prompt)))
        self.prompt_lengths.append(len(prompt))
        if example.completion is not None:
            self.answer_lengths.append(len(answer))
            if sign := cut_sign(answer):
                self._warn(place, "answer may be cut", sign)
        self._warn_of_private(place, f"{prompt}\n{answer}\n{rejected}")
        if self.full:
            self.closer.add(place, prompt, answer, rejected)
        else:
            self._sample_row(place, prompt, answer, rejected)

    def _warn_of_private(self, place: Place, text: str) -> None:
        if "@" in text and EMAIL.search(text):
            self._warn(place, "e-mail address", "holds what looks like an e-mail address")
        if any(map(text.__contains__, KEY_SIGNS)) and KEY.search(text):
            self._warn(place, "key", "holds what looks like a key or token")

    def _warn(self, place: Place, kind: str, words: str) -> None:
        self.warnings.add(*place, kind, f"{self.reader.place(place)}: {words}")

    def _sample_row(self, place: Place, *texts: str) -> None:
        """Every row is in the sample with the same probability (reservoir sampling: Vitter 1985, algorithm R)."""
        spot = len(self._sample) if len(self._sample) < SAMPLE else int(self._draw() * len(self._lines))
        if spot < SAMPLE:
            prompt, answer, rejected = (text[: self._kept] for text in texts)
            self._sample[spot : spot + 1] = [(place, prompt, answer, rejected)]

    def _find_duplicates(self) -> None:
        import numpy as np

        hashes = np.frombuffer(self._rows, dtype=np.int64)
        order = np.argsort(hashes, kind="stable")
        ranked = hashes[order]
        later = np.sort(order[1:][ranked[1:] == ranked[:-1]])
        for row in later[:NUM_SHOWN].tolist():
            first = int(order[np.searchsorted(ranked, hashes[row])])
            self._warn(self._place(row), "exact duplicate", f"the same as {self.reader.place(self._place(first))}")
        if len(later):
            self.warnings.counts["exact duplicate"] = len(later)

    def _place(self, row: int) -> Place:
        return self._files[row], self._lines[row]

    def leaks_into(self, held_out: list[Survey]) -> None:
        """Warn of each row whose prompt, but for case, spaces and Unicode forms, is among the held-out ones."""
        import numpy as np

        aside = np.concatenate([np.frombuffer(other._prompts, dtype=np.int64) for other in held_out])
        found = np.flatnonzero(np.isin(np.frombuffer(self._prompts, dtype=np.int64), aside)).tolist()
        for row in found[:NUM_SHOWN]:
            self._warn(self._place(row), "prompt is held out too", "its prompt is among the held-out ones")
        if found:
            self.warnings.counts["prompt is held out too"] = len(found)

    @property
    def num_other_turns(self) -> int:
        """Assistant turns before the last one of a dialogue that `data.train_on` leaves out of training."""
        trains = self.reader.wanted in (None, "demonstrations") and self._train_on == "last"
        return self.reader.num_other_turns if trains and self.num_examples and len(self.answer_lengths) else 0

    @staticmethod
    def num_prompts(surveys: list[Survey]) -> int:
        """Distinct prompts of all these sources."""
        import numpy as np

        every = np.concatenate([np.frombuffer(one._prompts, dtype=np.int64) for one in surveys])
        return len(np.unique(every))

    @staticmethod
    def num_examples_of(surveys: list[Survey]) -> int:
        """Usable rows of all these sources, as often as their weights say."""
        return round(sum(one.num_examples * one.reader.source.weight for one in surveys))

    @property
    def num_examples(self) -> int:
        """Rows that can be used; a row of several instances counts as several."""
        return len(self._lines)


def cut_sign(answer: str) -> str:
    """What makes an answer look cut: a code block that never ends, or a long text's last words; empty if nothing."""
    if answer.count("```") % 2:
        return "a code block never ends"
    cut = len(answer) >= LONG and (answer[-1].isalnum() or answer[-1] in ",;:-–(")
    return f"ends with {answer[-20:]!r}" if cut else ""


def spread(lengths: Any) -> dict[str, int]:
    """Shortest, median, 95th percentile and longest; nothing of nothing."""
    import numpy as np

    if not len(lengths):
        return {}
    found = np.percentile(np.asarray(lengths), [0, 50, 95, 100])
    return dict(zip(("min", "median", "p95", "max"), (round(value) for value in found.tolist()), strict=True))
