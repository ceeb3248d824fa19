"""What is too slow for every row of a large file: near duplicates, language, tokens."""

from __future__ import annotations

import functools
import zlib
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trueup.data.faults import Faults
    from trueup.data.sources import Place

NUM_HASHES = 64
SIMILARITY = 0.8  # Jaccard, of word trigrams: what counts as nearly the same
MIN_CHARACTERS = 20  # of a text whose language is guessed
NUM_CHARACTERS = 100  # that are enough to tell a language
SURE = 0.5  # probability
BATCH = 1000  # texts tokenized at a time

CountTokens = Callable[[list[str]], list[int]]


class NearDuplicates:
    """MinHash with locality-sensitive hashing (Broder 1997; Leskovec et al. 2020, section 3.4)."""

    def __init__(self) -> None:
        from datasketch import MinHash, MinHashLSH

        self._empty = MinHash(num_perm=NUM_HASHES, hashfunc=int)  # of trigrams that are numbers already
        self._index = MinHashLSH(threshold=SIMILARITY, num_perm=NUM_HASHES)
        self._hashes: dict[Place, Any] = {}

    def add(self, place: Place, text: str) -> Place | None:
        """Where a text nearly the same was seen first; None, and remember this one, when there was none."""
        found = self._empty.copy()
        found.update_batch(_trigrams(text))
        values = found.hashvalues.astype("uint32")
        for other in sorted(self._index.query(found)):
            if (values == self._hashes[other]).mean() >= SIMILARITY:
                first: Place = other
                return first
        self._index.insert(place, found, check_duplication=False)
        self._hashes[place] = values
        return None


def _trigrams(text: str) -> list[int]:
    """A 32-bit hash for each three words in a row, a line of fewer words being one."""
    import numpy as np

    found = [zlib.crc32(word) for word in text.casefold().encode("utf-8", "replace").split()]
    words = np.array(found + [0] * (3 - len(found)), dtype=np.uint32)
    hashes: list[int] = ((words[:-2] * np.uint32(31) + words[1:-1]) * np.uint32(31) + words[2:]).tolist()
    return hashes


def language_of(text: str) -> str:
    """ISO 639 code as py3langid guesses it, offline; `unsure` where the text is short or the guess weak."""
    if len(text) < MIN_CHARACTERS:
        return "unsure"
    code, probability = _identifier().classify(text[:NUM_CHARACTERS])
    return str(code) if probability >= SURE else "unsure"


@functools.cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


class Closer:
    """A closer look at the rows given to it, one by one; `finish` comes last."""

    def __init__(self, warnings: Faults, at: Callable[[Place], str], count_tokens: CountTokens | None) -> None:
        self.num_rows = 0
        self.languages: Counter[str] = Counter()
        self.tokens: list[int] = []  # prompt and answer together, without a chat template
        self._warnings, self._at, self._count_tokens = warnings, at, count_tokens
        self._near = NearDuplicates()
        self._seen: set[int] = set()
        self._waiting: list[str] = []

    def add(self, place: Place, prompt: str, answer: str, rejected: str) -> None:
        """Look at one row. Texts that are exactly the same count as exact duplicates, elsewhere, not as near ones."""
        self.num_rows += 1
        self.languages[language_of(answer or prompt)] += 1
        text = f"{prompt}\n{answer}\n{rejected}"
        if (key := hash(text)) not in self._seen:
            self._seen.add(key)
            first = self._near.add(place, text)
            if first is not None:
                words = f"{self._at(place)}: nearly the same as {self._at(first)}"
                self._warnings.add(*place, "near duplicate", words)
        if self._count_tokens is not None:
            self._waiting.append(f"{prompt}\n{answer}")
            if len(self._waiting) == BATCH:
                self.finish()

    def finish(self) -> None:
        """Count the tokens of what waits for it."""
        if self._count_tokens is not None and self._waiting:
            self.tokens += self._count_tokens(self._waiting)
            self._waiting.clear()
