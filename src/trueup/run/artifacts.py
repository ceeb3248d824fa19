"""The typed things on disk. A folder with a record.json is complete; its record says what it was made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trueup.errors import DataError, StageError


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON Lines file that trueup wrote. Raises DataError on a broken line."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{path}:{number}", found=f"not JSON ({error.msg})") from error


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows beside `path`, then rename: a reader sees all of the file or none."""
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    aside.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write one JSON value beside `path`, then rename."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    aside.replace(path)


def file_sha256(path: Path) -> str:
    """The hex SHA-256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def records(run_dir: Path) -> list[dict[str, Any]]:
    """The record of every complete stage of a run, oldest first; rebuilt and half-built ones are left out."""
    paths = [*run_dir.glob("*/record.json"), *run_dir.glob("round-*/*/record.json")]
    whole = [path for path in paths if not path.parent.name.endswith(".partial") and ".old-" not in path.parent.name]
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(whole, key=lambda p: p.stat().st_mtime)]


@dataclass(frozen=True)
class Artifact:
    """A complete stage folder."""

    path: Path

    FILES: ClassVar[tuple[str, ...]] = ()  # overridden: what must be there, and what the fingerprint is made of

    def record(self) -> dict[str, Any]:
        """The record.json. Raises StageError when the folder is not complete."""
        try:
            value: dict[str, Any] = json.loads((self.path / "record.json").read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise StageError(
                str(self.path), found="no record.json", expected="a complete stage folder", next_step="trueup status"
            ) from error
        return value

    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of the artifact's files."""
        digest = hashlib.sha256()
        for name in self.files():
            digest.update(f"{name}\0{file_sha256(self.path / name)}\n".encode())
        return digest.hexdigest()

    @classmethod
    def files(cls) -> tuple[str, ...]:
        return cls.FILES


class Adapter(Artifact):
    """LoRA weights, and the log-probabilities of a probe batch recorded when they were saved."""

    FILES = ("adapter_config.json", "adapter_model.safetensors", "probe.safetensors")


class RewardModel(Artifact):
    """A sequence-classification adapter with its score head in the same safetensors file."""

    FILES = ("adapter_config.json", "adapter_model.safetensors")


class Completions(Artifact):
    """completions.jsonl: uid, prompt_id, messages, completion, num_tokens, logp (nats, sum), finish (eos|length), ids.

    `ids` are the sampled tokens, the end token included; runs before 0.5 lack them.
    """

    FILES = ("completions.jsonl",)

    def rows(self) -> list[dict[str, Any]]:
        return list(read_jsonl(self.path / "completions.jsonl"))


class Feedback(Artifact):
    """A frozen snapshot: annotations.jsonl, and the pairs.jsonl and rows.jsonl made of them.

    pairs: prompt_id, split (train|held_out), prompt (messages), chosen, rejected, weight, annotator.
    rows: prompt_id, split, prompt (messages), completion, label (bool), weight, uid.
    Of sampled completions also chosen_ids, rejected_ids, completion_ids (token ids) and chosen_finish and so on.
    """

    FILES = ("annotations.jsonl", "pairs.jsonl", "rows.jsonl")

    def pairs(self, split: str) -> list[dict[str, Any]]:
        return [row for row in read_jsonl(self.path / "pairs.jsonl") if row["split"] == split]

    def rows(self, split: str) -> list[dict[str, Any]]:
        return [row for row in read_jsonl(self.path / "rows.jsonl") if row["split"] == split]


class Report(Artifact):
    """report.json and answers.jsonl of an evaluation; report.html shows them."""

    FILES = ("report.json", "answers.jsonl")


class Export(Artifact):
    """The adapter, the merged weights and the model card."""

    FILES = ("README.md",)
