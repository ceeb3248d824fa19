"""How well a model predicts a general text, one that it was not aligned with: what it may lose while it is aligned."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from trueup import ranks
from trueup.errors import ConfigError
from trueup.run.files import read_appended
from trueup.run.goal import FEWEST

Row = dict[str, Any]
KEY = "evaluate.general_text"
MOST_DOCUMENTS = 400  # of the user's text, evenly spaced; a longer text takes minutes and tells no more
MOST_TOKENS = 512  # of each
OWN_DOCUMENTS, OWN_TOKENS = 32, 48  # of the text that every run has: seconds on two CPU cores
BATCH_TOKENS = 2048
WHO = {"base": None, "sft": "sft", "aligned": "default"}  # adapters by label; None is the bare base
CORRECT = "correct the file or its name, or leave the key out for a text that every Python has"
SPLITS = 1000  # random halves, of which the noise floor is the median


@dataclass(frozen=True)
class Text:
    """Documents that are independent of each other, and where they are from; each is read up to `max_tokens`."""

    name: str
    documents: list[str]
    max_tokens: int
    num_left_out: int = 0


def read(given: Path | None, folder: Path) -> Text | None:
    """The text that the run file names, beside which it is in `folder`, or that of every Python; None of neither.

    A .txt holds a document in each paragraph, a .jsonl one in the field `text` of each line. Raises ConfigError, with
    all faults at once, where there is none, it cannot be read, or it has fewer documents than a claim takes.
    """
    if given is None:
        return _of_python()
    path = folder / given.expanduser()
    documents = [document for document in _documents(path) if document]
    if len(documents) < FEWEST:
        raise ConfigError(
            KEY,
            found=f"{path}: {len(documents)} documents",
            expected=f"{FEWEST} at least: paragraphs of a .txt with an empty line between them, or lines of a .jsonl",
            next_step="add documents, or leave the key out for a text that every Python has",
        )
    kept = _spaced(documents, MOST_DOCUMENTS)
    return Text(str(given), kept, MOST_TOKENS, len(documents) - len(kept))


def _of_python() -> Text | None:
    """The reference of the language, whose topics are what `help()` shows; None where Python is installed without."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return None
    import sys

    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    texts = [text.strip() for _, text in sorted(topics.items())]
    kept = _spaced([text for text in texts if len(text) > 10 * OWN_TOKENS], OWN_DOCUMENTS)
    return Text(f"the language reference of Python {version}", kept, OWN_TOKENS)


def _documents(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        what = "not UTF-8" if isinstance(error, ValueError) else getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            KEY, found=f"{path}: {what}", expected="a .txt or .jsonl file in UTF-8", next_step=CORRECT
        ) from None
    if path.suffix == ".txt":
        return [paragraph.strip() for paragraph in text.replace("\r\n", "\n").split("\n\n")]
    if path.suffix != ".jsonl":
        raise ConfigError(KEY, found=f"{path}", expected="a file whose name ends in .txt or .jsonl", next_step=CORRECT)
    rows, num_broken = read_appended(path)
    wrong = [number for number, row in enumerate(rows, start=1) if not isinstance(row.get("text"), str)]
    if wrong or num_broken:
        lines = ", ".join(map(str, wrong[:10])) + (f" and {len(wrong) - 10} more" if len(wrong) > 10 else "")
        faults = [f"no text in rows {lines}"] * bool(wrong) + [f"{num_broken} lines are no JSON"] * bool(num_broken)
        raise ConfigError(
            KEY, found=f"{path}: {'; '.join(faults)}", expected='lines of the form {"text": "..."}', next_step=CORRECT
        )
    return [row["text"].strip() for row in rows]


def _spaced(documents: list[str], most: int) -> list[str]:
    """At most so many of them, evenly spaced."""
    number = min(most, len(documents))
    return [documents[i * len(documents) // number] for i in range(number)]


def measure(
    model: Any, tokenizer: Any, text: Text, who: Mapping[str, str | None], advance: Callable[[int], None]
) -> Row:
    """JSON: of each document the number of tokens predicted, and under each adapter its negative log-likelihood, nats.

    `who` maps a label to the name of an adapter, None for the bare base. Every token after a document's first is
    predicted; documents are text as it is, without a chat template. `advance` hears of each document.
    """
    whole = [tokenizer(document, verbose=False)["input_ids"] for document in text.documents]
    ids = [row[: text.max_tokens] for row in whole]
    order = [i for i in sorted(range(len(ids)), key=lambda i: len(ids[i])) if len(ids[i]) > 1]
    rows = max(1, BATCH_TOKENS // text.max_tokens)
    batches = [order[start : start + rows] for start in range(0, len(order), rows)]
    nll: dict[str, list[float]] = {}
    for label, name in who.items():
        own = []
        for batch in ranks.share(batches):
            own.append(_nll(model, tokenizer, name, [ids[i] for i in batch]))
            advance(len(batch))
        nll[label] = [value for found in ranks.put_together(own, len(batches)) for value in found]
    return {
        "text": text.name,
        "num_tokens": [len(ids[i]) - 1 for i in order],
        "nll": nll,
        "num_cut": sum(len(one) > text.max_tokens for one in whole),
        "num_left_out": text.num_left_out + len(ids) - len(order),
    }


def _nll(model: Any, tokenizer: Any, name: str | None, rows: list[list[int]]) -> list[float]:
    import torch

    from trueup.chat.batch import pad
    from trueup.models import adapters, causal

    batch = pad([(row[:1], row[1:]) for row in rows], tokenizer.pad_token_id)
    with torch.no_grad(), adapters.using(model, name):
        logps = causal.token_logps(model, batch)
    return [-value for value in logps.double().sum(1).tolist()]


def noise_floor(nll: Sequence[float], num_tokens: Sequence[int], seed: int = 0) -> float:
    """How far one model is from itself, nats per token: the median change from half of the documents to the others.

    Of SPLITS random halves. A change of the aligned model that is smaller may be sure, since it is paired, and yet is
    one that the choice of the text outweighs.
    """
    draw, order, half = random.Random(seed), list(range(len(nll))), len(nll) // 2  # noqa: S311 - no secret
    found = []
    for _ in range(SPLITS):
        draw.shuffle(order)
        one, other = (
            sum(nll[i] for i in some) / sum(num_tokens[i] for i in some)
            for some in (order[:half], order[half : 2 * half])
        )
        found.append(abs(one - other))
    return median(found)


def figures(found: Row) -> Row:
    """For the record: each model's nats per token, the aligned model's paired changes with intervals, the noise floor.

    The intervals are clustered by document.
    """
    from trueup.evaluation.intervals import change

    tokens, nll = found["num_tokens"], found["nll"]
    over = {
        label: change([a - b for a, b in zip(nll["aligned"], values, strict=True)], tokens)
        for label, values in nll.items()
        if label != "aligned"
    }
    return {
        "text": found["text"],
        "num_documents": len(tokens),
        "num_tokens": sum(tokens),
        "num_cut": found["num_cut"],
        "num_left_out": found["num_left_out"],
        "nll_nats_per_token": {label: sum(values) / sum(tokens) for label, values in nll.items()},
        "change_from": over,
        "noise_floor": noise_floor(nll["sft"], tokens),
    }
