"""All that an export writes, and how far each way of loading it is from the model that was trained.

One base is in memory at a time: the one that was trained on, then the merged weights, then the 16-bit base.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trueup.export import adapter, fit, gguf, gguf_lora, merging, ollama, origin, room, serving, texts
from trueup.export.checks import Known
from trueup.export.measuring import Distance, Trained
from trueup.export.receipt import Way, preferred_gguf
from trueup.export.texts import Texts
from trueup.models import adapters, base
from trueup.run.building import release
from trueup.run.files import read_json
from trueup.run.run_file import RunFile

FOLDERS = ("adapter", "merged", "gguf", "ollama")
PAGES = ("README.md", "receipt.json")
SCRATCH = ".scratch"  # of what is made on the way and not wanted
EXPORTED = "exported"  # the exported adapter, beside the one that was trained
START = "start"  # the adapter that alignment started from, beside it too
AS_F32 = 4  # bytes of a weight while a GGUF file is read
ROOM = 1.25  # times the weights, for what is computed with them


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to write; the fields are those of the stage's section."""

    to: Sequence[str]
    gguf_types: Sequence[str]
    adapter_for: str
    base: str | None
    num_prompts: int


def num_parts(wanted: Wanted, known: Known) -> int:
    """How many parts an export `says` that it goes through."""
    to = set(wanted.to)
    on_16_bits = "adapter" in to and known.four_bit and not known.saved_in_4_bits
    gguf_files = 1 + len(wanted.gguf_types) if to & {"gguf", "ollama"} else 0
    return 1 + (to != {"adapter"}) + ("merged" in to) + on_16_bits + gguf_files


@dataclass
class Written:
    """An export as it grows."""

    run: RunFile
    source: Path  # the adapter that was trained
    start: Path | None  # the one that alignment started from, after fine-tuning, where it still exists
    out: Path
    known: Known
    wanted: Wanted
    say: Callable[[str], None] = lambda text: None  # hears of what is going on
    origin: origin.Origin = field(init=False)
    texts: Texts = field(init=False)
    trained: Trained = field(init=False)
    moved: Distance | None = field(init=False, default=None)  # of `start` from the trained model
    settings: Any = field(init=False)  # the base's generation settings
    ways: list[Way] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.origin = origin.of(self.run.model.base, self.wanted.base)
        self.notes += self.origin.notes

    def write(self) -> None:
        """Write every form that is wanted, and measure it."""
        for name in (*FOLDERS, SCRATCH):  # what a killed export left
            shutil.rmtree(self.out / name, ignore_errors=True)
        for name in PAGES:  # as well, or the receipt would list an earlier card
            (self.out / name).unlink(missing_ok=True)
        try:
            self._write()
        finally:
            shutil.rmtree(self.out / SCRATCH, ignore_errors=True)
        adapter.open_modes(self.out)

    def _write(self) -> None:
        to, tokenizer = self.wanted.to, self.known.tokenizer
        asked = texts.held_out(self.run)  # before the base: what is wrong with it is said at once
        self.say("the model that was trained")
        bare = self._base(four_bit=self.known.four_bit)
        model = adapters.load_adapter(bare, self.source, trainable=False).eval()
        self.texts = texts.answered(asked, model, tokenizer, self.source, self.wanted.num_prompts, self.run.seed)
        self.trained = Trained.of(model, self.texts.rows, tokenizer.pad_token_id)
        self.moved = self._moved(model)
        self.settings = bare.generation_config
        if "adapter" in to:
            self._adapter(model)
        merged = self.out / ("merged" if "merged" in to else SCRATCH) if set(to) != {"adapter"} else None
        if merged is not None:
            self.say("merging")
            merging.write(model, merged, saved_in_4_bits=self.known.saved_in_4_bits, end_ids=self.known.end_ids)
            adapter.write_tokenizer(tokenizer, merged)
        del bare, model
        if "merged" in to:
            way = Way(name="merged", path="merged", how="whole weights in bf16", stands_alone=True)
            self._measure(way, self._bytes_per_weight, lambda: self._base(self.out / "merged"))
        if "adapter" in to and self.known.four_bit:
            self._on_16_bits()
        if merged is not None and {"gguf", "ollama"} & set(to):
            self._gguf(merged)

    def _base(self, folder: Path | None = None, *, four_bit: bool = False) -> Any:
        """The base of the run, or the model in `folder`; measured in the dtype that the run computes in."""
        known = self.run.model
        return base.load_base(str(folder or known.base), four_bit=four_bit, dtype=known.dtype)

    @property
    def _bytes_per_weight(self) -> int:
        return base.compute_dtype(self.run.model.dtype).itemsize

    def _moved(self, model: Any) -> Distance | None:
        """How far alignment moved the model: the distance of the adapter it started from, measured like the ways."""
        if self.start is None:
            self.notes.append(
                "How far alignment moved the model is not known, since the adapter that it started from, sft/, is "
                "missing. No distance was therefore compared with it."
            )
            return None
        adapters.load_frozen(model, self.start, START)
        with adapters.using(model, START):
            return self.trained.distance(model)

    def _adapter(self, model: Any) -> None:
        """adapter/, and how far it is on the base that it was trained on."""
        folder, source = self.out / "adapter", self.source
        fitted = self.wanted.adapter_for == "16bit"
        if fitted:
            source = self.out / SCRATCH / "fitted"
            fit.write(model, self.source, source, None)
        adapter.write(source, folder, self.origin, None if fitted else adapter.quantization_of(model))
        adapter.write_tokenizer(self.known.tokenizer, folder)
        adapter.write_generation(self.settings, self.known.end_ids, folder)
        config = read_json(folder / "adapter_config.json") or {}
        if why := serving.refusals(config):
            self.notes.append(f"vLLM cannot serve adapter/ as an adapter: {'; '.join(why)}. Serve merged/.")
        elif (rank := serving.max_rank(config)) is not None:
            self.notes.append(f"vLLM serves adapter/ with --max-lora-rank {rank}.")
        adapters.load_frozen(model, folder, EXPORTED)
        bits = "4" if self.known.four_bit else "16"
        how = f"the adapter on the base in {bits} bits"
        way = Way(name=f"adapter_{bits}bit", path="adapter", how=how, stands_alone=False)
        with adapters.using(model, EXPORTED):
            self.ways.append(way.measured(self.trained.distance(model)))

    def _on_16_bits(self) -> None:
        """How far the adapter is on a base that is not quantized, where most would put it."""
        how = "the adapter on the base in 16 bits"
        way = Way(name="adapter_16bit", path="adapter", how=how, stands_alone=False)
        if self.known.saved_in_4_bits:
            self.ways.append(way.unmeasured("the base's own files are in 4 bits"))
            return

        def load() -> Any:
            bare = self._base()
            return adapters.load_adapter(bare, self.out / "adapter", trainable=False).eval()

        self._measure(way, self._bytes_per_weight, load)

    def _measure(self, way: Way, bytes_per_weight: int, load: Callable[[], Any]) -> None:
        """Load a model and compare it, where there is memory for it."""
        self.say(f"measuring {way.how}")
        release()  # what was measured before this
        needed, free = ROOM * bytes_per_weight * self.known.num_parameters, room.memory_bytes()
        if needed > free:
            why = f"it takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} were free"
            self.ways.append(way.unmeasured(why))
        else:
            self.ways.append(way.measured(self.trained.distance(load())))

    def _gguf(self, merged: Path) -> None:
        """gguf/ and ollama/, from the merged weights."""
        self.say("GGUF files")
        found = gguf.write(merged, self.out / "gguf", self.wanted.gguf_types, self.run.name)
        conversations = [prompt + answer for prompt, answer in self.trained.rows]
        for kind, path in found.items():
            self.say(f"measuring GGUF {kind}")
            how = f"GGUF {kind}, as {gguf.reader()} reads it"
            way = Way(name=f"gguf_{kind}", path=str(path.relative_to(self.out)), how=how, stands_alone=True)
            if ROOM * AS_F32 * self.known.num_parameters > room.memory_bytes():
                self.ways.append(way.unmeasured("there is not memory enough to read it"))
            else:
                self.ways.append(way.measured(self.trained.distance_of_logps(gguf.logps(path, conversations))))
        config = read_json(self.out / "adapter" / "adapter_config.json")
        if config is not None and not serving.refusals(config):
            path = gguf_lora.write(self.out / "adapter", merged, self.out / "gguf", self.run.name)
            how = "the adapter alone, on a GGUF file of its base"
            way = Way(name="gguf_lora", path=str(path.relative_to(self.out)), how=how, stands_alone=False)
            self.ways.append(way.unmeasured("no GGUF file of the base is part of this export"))
        if "ollama" in self.wanted.to:
            measured = [way for way in self.ways if way.name.removeprefix("gguf_") in found]
            best = self.out / preferred_gguf(measured, self.moved.kl if self.moved else None).path
            ends, system, judged = self.known.end_ids, self.run.data.system, self.run.section("evaluate")
            sampling = {key: getattr(judged, key) for key in ("temperature", "top_p")}
            ollama.write(self.out / "ollama", best, self.known.tokenizer, ends, system, **sampling)
