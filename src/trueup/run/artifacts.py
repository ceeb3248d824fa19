"""The typed things on disk. A folder with a record.json is complete; its record says what it was made of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trueup.errors import DataError, StageError
from trueup.run import naming
from trueup.run.files import file_sha256, read_jsonl, write_json, write_jsonl
from trueup.run.record import read_record

__all__ = [
    "MEMBERS", "ORDER", "Adapter", "Artifact", "Completions", "Export", "Feedback", "Report", "RewardModel",
    "everything", "file_sha256", "member_folders", "read_jsonl", "records", "write_json", "write_jsonl",
]  # fmt: skip


MEMBERS = "members.safetensors"  # of a reward model with several members: their heads, and the scale of each

# the folders of the stages of a round, in the order of the pipeline
ORDER = ("sft", "sample", "collect", "reward", "dpo", "kto", "ppo", "grpo", "evaluate", "export")


def records(run_dir: Path, number: int, before: str, variant: str = "") -> list[dict[str, Any]]:
    """The record of every complete stage of a run that comes before the stage `before` of round `number`, in order.

    The order is that of the rounds, and within a round that of the pipeline; times of files say nothing, since a copy
    has others. Of round `number` only the `variant` is told of, of earlier ones all are. Rebuilt and half-built stages
    are left out. Raises StageError when a record cannot be read.
    """
    places = [(n, place) for n in range(number + 1) for place in range(len(ORDER))]  # 0: the stages of the run itself
    earlier = [place for place in places if place < (number, ORDER.index(before))]
    found = [artifact for n, place in earlier for artifact in _at(run_dir, n, ORDER[place])]
    return [
        artifact.record()
        for artifact in found
        if artifact.path.parent.name != f"round-{number}" or _is_of(artifact.path.name, variant)
    ]


def everything(run_dir: Path) -> list[Artifact]:
    """Every complete stage of a run, in the order of `records`, the variants of a stage by name."""
    numbers = [int(path.name[6:]) for path in run_dir.glob("round-*") if path.name[6:].isdecimal()]
    return [
        artifact for n in (0, *sorted(numbers)) for stage in _order(run_dir, n) for artifact in _at(run_dir, n, stage)
    ]


def _order(run_dir: Path, number: int) -> list[str]:
    """The stages of a round: those of ORDER, and before `evaluate` the methods that somebody has added."""
    folder, last = run_dir / (f"round-{number}" if number else ""), ORDER.index("evaluate")
    added = {naming.stage_of(path.parent.name) for path in folder.glob("*/record.json")} - {*ORDER}
    return [*ORDER[:last], *sorted(added), *ORDER[last:]]


def _at(run_dir: Path, number: int, stage: str) -> list[Artifact]:
    """The complete stage of this name in a round, and its variants."""
    folder = run_dir / (f"round-{number}" if number else "")
    found = [folder / stage, *sorted(folder.glob(f"{stage}@*"))]
    done = [path for path in found if ".old-" not in path.name and not path.name.endswith(".partial")]
    return [artifact for path in done if (artifact := Artifact(path)).is_there()]


def _is_of(folder: str, variant: str) -> bool:
    """Whether a stage's folder belongs to a variant; stages before the alignment belong to all."""
    stage, own = naming.split(folder)
    return own == variant or ORDER.index(stage) < ORDER.index("dpo")


@dataclass(frozen=True)
class Artifact:
    """A complete stage folder."""

    path: Path

    FILES: ClassVar[tuple[str, ...]] = ()  # overridden: what must be there, and what the fingerprint is made of
    MADE_AGAIN: ClassVar[str] = "{stage} was built again"  # what is said of it to those that were made from the last

    def is_there(self) -> bool:
        """True when the folder holds a record, whole or not."""
        return (self.path / "record.json").exists()

    def record(self) -> dict[str, Any]:
        """The record.json. Raises StageError when the folder is not complete, or its record cannot be read."""
        value = read_record(self.path / "record.json")
        if value is None:
            stage, variant = naming.split(self.path.name)
            command = f"trueup {stage} RUN.yaml" + f" --as {variant}" * bool(variant)
            raise StageError(
                str(self.path),
                found="record.json holds no record: it is empty or torn" if self.is_there() else "no record.json",
                expected="a complete stage folder",
                next_step=command + " --rebuild" * self.is_there(),
            )
        return value

    def hashes(self, sha256: Callable[[Path], str] = file_sha256) -> dict[str, str]:
        """The SHA-256 of each of the artifact's files."""
        return {name: sha256(self.path / name) for name in self.files()}

    def files(self) -> tuple[str, ...]:
        """The files that the artifact is made of, relative to its folder."""
        return self.FILES

    def fingerprint(self, sha256: Callable[[Path], str] = file_sha256) -> str:
        """SHA-256 over the names and contents of the artifact's files."""
        digest = hashlib.sha256()
        for name, found in self.hashes(sha256).items():
            digest.update(f"{name}\0{found}\n".encode())
        return digest.hexdigest()

    def altered(self, sha256: Callable[[Path], str] = file_sha256) -> list[str]:
        """What is no longer as the stage left it, in words. Raises StageError as `record` does."""
        record = self.record()
        then, before = record.get("files"), str(record.get("fingerprint", ""))
        if not isinstance(then, dict) and len(before) != 64:
            return []  # put here by other code, without a word on its files
        wanted = dict.fromkeys((*self.files(), *(then if isinstance(then, dict) else ())))
        if lost := [f"{name} is missing" for name in wanted if not (self.path / name).is_file()]:
            return lost
        if isinstance(then, dict):
            return [f"{name} was changed" for name, found in self.hashes(sha256).items() if then.get(name) != found]
        return ["its files were changed"] if self.fingerprint(sha256) != before else []  # before version 1


class Adapter(Artifact):
    """LoRA weights, and the log-probabilities of a probe batch recorded when they were saved."""

    FILES = ("adapter_config.json", "adapter_model.safetensors", "probe.safetensors")


class RewardModel(Artifact):
    """A sequence-classification adapter with its score head in the same safetensors file.

    With several members also the file MEMBERS, and a folder for each further adapter; see `models.scoring`.
    """

    FILES = ("adapter_config.json", "adapter_model.safetensors")

    def files(self) -> tuple[str, ...]:
        members = (MEMBERS,) if (self.path / MEMBERS).exists() else ()
        return (
            *self.FILES,
            *members,
            *(f"{one.name}/{name}" for one in member_folders(self.path) for name in self.FILES),
        )


def member_folders(reward: Path) -> list[Path]:
    """The folders of a reward model's further members, in order: those after the first, where each has an adapter."""
    return sorted(reward.glob("member-*"), key=lambda path: int(path.name[7:]))


# What every row of a file has, in every version of trueup.
COMPLETION = {"uid": str, "prompt_id": str, "messages": list, "completion": str}
PAIR = {"prompt_id": str, "split": str, "prompt": list, "chosen": str, "rejected": str}
LABELLED = {"prompt_id": str, "split": str, "prompt": list, "completion": str, "label": bool}


def read_rows(path: Path, shape: Mapping[str, type]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that trueup wrote. Raises DataError on one that lacks what the `shape` names."""
    for number, row in enumerate(read_jsonl(path), start=1):
        if lost := [name for name, kind in shape.items() if not isinstance(row.get(name), kind)]:
            raise DataError(
                f"{path}:{number}",
                found=f"no {', '.join(lost)}",
                expected="the file as trueup wrote it",
                next_step="build the stage that wrote it again with --rebuild, or restore the file",
            )
        yield row


class Completions(Artifact):
    """completions.jsonl: uid, prompt_id, messages, completion, num_tokens, logp (nats, sum), finish (eos|length), ids.

    `ids` are the sampled tokens, the end token included; runs before 0.5 lack them.
    """

    FILES = ("completions.jsonl",)
    MADE_AGAIN = "the completions were sampled again"

    def rows(self) -> list[dict[str, Any]]:
        return list(read_rows(self.path / "completions.jsonl", COMPLETION))


class Feedback(Artifact):
    """A frozen snapshot: annotations.jsonl, and the pairs.jsonl and rows.jsonl made of them.

    pairs: prompt_id, split (train|held_out), prompt (messages), chosen, rejected, weight, margin, kind.
    rows: prompt_id, split, prompt (messages), completion, label (bool), weight, uid, annotator, kind.
    Of sampled completions also chosen_ids, rejected_ids, completion_ids (token ids) and chosen_finish and so on.
    """

    FILES = ("annotations.jsonl", "pairs.jsonl", "rows.jsonl")
    MADE_AGAIN = "the judgements were frozen again"

    def pairs(self, split: str) -> list[dict[str, Any]]:
        return [row for row in read_rows(self.path / "pairs.jsonl", PAIR) if row["split"] == split]

    def rows(self, split: str) -> list[dict[str, Any]]:
        return [row for row in read_rows(self.path / "rows.jsonl", LABELLED) if row["split"] == split]


class Report(Artifact):
    """report.json and answers.jsonl of an evaluation; `trueup report` shows them."""

    FILES = ("report.json", "answers.jsonl")


class Export(Artifact):
    """The adapter, the merged weights and the model card."""

    FILES = ("README.md",)
