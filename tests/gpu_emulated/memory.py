"""The peak memory of the stages of large models, on a GPU that is not there: python memory.py CASES.json

CASES.json holds {"capability": [8, 0], "cases": [{"stage": "sft", "config": {...}, "run": {...}}, ...]}: for each stage
the base's config.json and sections of a run file. They run in order in one run folder: the adapter of `sft` is what the
others start from, on any base whose layers are of its shape. The last line printed is JSON: of each case the peak of
its tensors in bytes, what was largest then, and what `plan` predicts.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import shapes

sys.path.insert(0, str(Path(__file__).parents[1]))
NUM_STEPS = 2
TOTAL_BYTES = 80 * 2**30


def main() -> None:
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    shapes.install(tuple(asked["capability"]), TOTAL_BYTES)
    nothing_is_proven()
    with tempfile.TemporaryDirectory() as folder:
        found = [measured(case, Path(folder)) for case in asked["cases"]]
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def nothing_is_proven() -> None:
    """Without values there are no log-probabilities to compare, and no rewards that differ."""
    import torch

    from trueup.models import scoring
    from trueup.online.ppo import rollout
    from trueup.sampling import sample
    from trueup.sampling.types import Generated
    from trueup.training import passes, proof

    usual, first_loss = scoring.scores, passes.first_loss
    proof._fail = lambda *args: None
    proof.prove_loss = lambda loss, *args: loss

    def scores(model: Any, head: Any, conversations: Any, *args: Any) -> Any:
        usual(model, head, conversations, *args)
        return torch.arange(len(conversations)).float()

    def engine(model: Any, tokenizer: Any, sampling: Any, *args: Any) -> Any:
        """Answers as long as they may be; sampling is not measured here."""
        ids = [5] * sampling.max_new_tokens
        return lambda prompts, seed: [Generated(ids, [0.0] * len(ids)) for _ in prompts]

    def loss(trainer: Any) -> float:
        with contextlib.suppress(ZeroDivisionError):
            first_loss(trainer)
        return 0.0

    passes.first_loss = loss
    scoring.scores, rollout.engine, sample.engine = scores, engine, engine


def measured(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The peak of a stage, and its prediction."""
    import tiny

    from trueup.planning import lengths, loads, memory, probe, table
    from trueup.planning import shapes as plan_shapes
    from trueup.planning.devices import GPUS
    from trueup.run.pipeline import Pipeline
    from trueup.run.run_file import load
    from trueup.stages import STAGES

    name, base = case["stage"], folder / "model"
    if not base.exists():
        tiny.make_model(base)
    (base / "config.json").write_text(json.dumps(case["config"]))
    data = {"demonstrations": "demonstrations.jsonl", "prompts": "prompts.jsonl", "held_out": "prompts.jsonl"}
    run_file = folder / "run.json"
    run_file.write_text(json.dumps({"name": "case", "model": {"base": str(base)}, "data": data, **case["run"]}))
    pipeline = Pipeline(load(run_file, {s.name: s.config for s in STAGES}), STAGES, folder / "runs")
    values = pipeline.run.section(name).model_dump()
    texts = probe._Texts(pipeline.run, values["max_prompt_tokens"] if name == "ppo" else values["max_length"] - 4)
    rows = NUM_STEPS * values.get("per_device_train_batch_size", 0) * values.get("gradient_accumulation_steps", 1)
    if name == "sft":
        texts.demonstrations(folder, rows + 1)  # one is held out
    texts.prompts(folder, values.get("rollout_batch_size", 2))
    if name == "ppo":
        probe._put(pipeline, "sample", {"completions.jsonl": texts.completions(4)})
    elif name != "sft":
        probe._put(pipeline, "collect", texts.feedback(rows))
    before = shapes.LEDGER.now
    shapes.LEDGER.start()
    pipeline.execute(name, use_stale=True, rebuild=True)
    shape = plan_shapes.from_config(case["config"], "config.json")
    planned = loads.plan(pipeline.stages[name], pipeline.run, lengths.Lengths(longest_prompt=texts.limit))
    assert planned is not None
    terms = memory.peak(shape, table.setup_of(pipeline, shape, GPUS["80gb"]), planned[0])
    return {
        "stage": name,
        "before": before,
        "peak": shapes.LEDGER.peak,
        "where": shapes.LEDGER.where,
        "largest": sorted(shapes.LEDGER.at_peak.items(), key=lambda item: -item[1])[:12],
        "terms": terms,
    }


if __name__ == "__main__":
    main()
