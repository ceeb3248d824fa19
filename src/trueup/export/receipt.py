"""The receipt of an export: how far each way of loading it is from the trained model, and which one to ship."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from trueup.export.measuring import Distance
from trueup.run.files import file_sha256, write_text

NAME = "receipt.json"
FAR = 0.25  # of what alignment moved the model by: a way that is further from it has lost much of the alignment
NEAR = 0.002  # nats per token: what rounding alone costs; ways this near to each other are equally good
OURS = {"README.md", "record.json", "plan.json", NAME}  # of the stage's folder, no part of what is exported


class Way(BaseModel):
    """One way of loading what was exported. `kl` and `agreement` are None where `why_not` says why."""

    name: str  # adapter_4bit, adapter_16bit, merged, gguf_q8_0 ...
    path: str  # in the export's folder
    how: str  # in words: who loads what
    stands_alone: bool  # whether it needs no base beside it
    kl_nats_per_token: float | None = None
    agreement: float | None = None
    why_not: str | None = None

    def in_words(self) -> str:
        """How far it is from the trained model, in a line."""
        if self.kl_nats_per_token is None or self.agreement is None:
            return f"{self.path}, {self.how}: not measured, {self.why_not}"
        return (
            f"{self.path}, {self.how}: KL {self.kl_nats_per_token:.5f} nats per token, the same token chosen in "
            f"{self.agreement:.1%}"
        )

    def measured(self, distance: Distance) -> Way:
        """With the figures of a measurement."""
        return self.model_copy(update={"kl_nats_per_token": distance.kl, "agreement": distance.agreement})

    def unmeasured(self, why: str) -> Way:
        """Without figures, and why."""
        return self.model_copy(update={"why_not": why})


class Tokens(BaseModel):
    """The tokenizers that were exported against the one trained with, token for token."""

    folders: list[str]
    num_conversations: int  # rendered by each chat template, with and without an answer
    same: bool
    end_tokens: list[str]  # where generation stops, the trained one first
    end_ids: list[int]


class File(BaseModel):
    """A file of the export."""

    path: str
    num_bytes: int
    sha256: str


class Receipt(BaseModel):
    """What left, and how well it was measured. KL is that of the trained model from the way it is loaded."""

    version: int = 1
    trained_as: str  # the model that was trained and judged, in words
    base: str  # owner/name on the hub, or ./FOLDER
    base_revision: str | None
    texts: str  # what was measured on
    num_tokens: int  # positions compared
    arithmetic: str  # the dtype of hidden states while it was measured
    rounding_kl: float | None  # what 16-bit arithmetic alone moves the trained model by on this machine, nats per token
    moved_by_alignment: float | None  # KL of the trained model from the one before alignment, measured like the ways
    ways: list[Way]
    tokens: Tokens
    ship: str | None  # name of a way
    advice: list[str]
    notes: list[str]
    files: list[File] = []

    def way(self, name: str) -> Way | None:
        """The way of that name, if there is one."""
        return next((way for way in self.ways if way.name == name), None)

    def write(self, out: Path) -> None:
        """Write receipt.json into the export's folder."""
        write_text(out / NAME, self.model_dump_json(indent=2) + "\n")


def choose(ways: Sequence[Way], moved: float | None) -> tuple[str | None, list[str]]:
    """(name of the way to ship, advice in sentences): the nearest, and of equally near ones the first that needs no
    base. `moved` is what alignment moved the model by, measured like the ways; a way that is further from the trained
    model than FAR of it is warned of. KL in nats per token."""
    known = {way.name: way.kl_nats_per_token for way in ways if way.kl_nats_per_token is not None}
    if not known:
        return None, ["Nothing was measured, so that nothing is recommended."]
    least = min(known.values())
    near = [way for way in ways if way.name in known and known[way.name] <= least + NEAR]
    nearest = min(near, key=lambda way: known[way.name])
    best = next((way for way in near if way.stands_alone), nearest)
    said = [f"Ship {best.path}, {best.how}: {known[best.name]:.5f} nats per token from the model that was trained."]
    for way in ways:
        if not is_far(way, moved):
            continue
        measured = (
            f"{known[way.name]:.4f} nats per token from the trained model; alignment moved the model by {moved:.4f}"
        )
        if way is best:
            said.append(f"No way is nearer, but this one is {measured}.")
        else:
            said.append(f"Do not ship {way.path}, {way.how}: it is {measured}.")
    return best.name, said


def is_far(way: Way, moved: float | None) -> bool:
    """Whether it is known to be further from the trained model than FAR of `moved`, in nats per token."""
    kl = way.kl_nats_per_token
    return moved is not None and kl is not None and kl > FAR * moved


def preferred_gguf(ways: Sequence[Way], moved: float | None) -> Way:
    """The one of several GGUF files for a Modelfile: q8_0, half of 16 bits, unless much of the alignment is lost there
    and less elsewhere."""
    near = [way for way in ways if not is_far(way, moved)]
    if not near:
        return min(ways, key=lambda way: way.kl_nats_per_token or 0.0)
    return next((way for way in near if way.name == "gguf_q8_0"), near[0])


def files_of(out: Path) -> list[File]:
    """Every file of the export with its size and SHA-256, sorted by path."""
    return [
        File(path=str(path.relative_to(out)), num_bytes=path.stat().st_size, sha256=file_sha256(path))
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in OURS
    ]
