"""export: (Adapter) -> Export. The adapter, merged bf16 weights, and a model card with the lineage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trueup.planning import loads
from trueup.run.artifacts import Adapter, Export, records
from trueup.run.identity import relative
from trueup.run.run_file import RunFile
from trueup.run.section import Section
from trueup.run.stage import Context, Metrics, Stage

if TYPE_CHECKING:
    from trueup.planning.lengths import Lengths


class Config(Section):
    """What is written for those who will use the model."""

    merged: bool = True
    """Whether the base with the adapter merged into it is written as well, in bf16."""


def run(config: Config, context: Context, aligned: Adapter) -> Metrics:
    """Copy the adapter; dequantize the base, merge, save as bf16 safetensors; measure what merging cost."""
    import shutil

    import torch

    from trueup.chat import preflight
    from trueup.chat.ending import end_ids
    from trueup.export import card, merging
    from trueup.models import adapters, base, causal, families, head
    from trueup.training import proof

    shutil.copytree(
        aligned.path, context.out / "adapter", ignore=shutil.ignore_patterns("checkpoints"), dirs_exist_ok=True
    )
    cost, checked = None, None
    if config.merged:
        four_bit = context.run.adapter.kind != "lora"
        in_4_bits = bool(families.quantization(base.checked_config(context.run.model.base, four_bit=four_bit)))
        bare = base.load_base(context.run.model.base, four_bit=four_bit)
        model = adapters.load_adapter(bare, aligned.path, trainable=False).eval()
        probe = proof.load_probe(aligned.path)
        with torch.no_grad():
            policy = causal.labelled_states(model, probe)
        tokenizer = base.load_tokenizer(context.run.model)
        ends = list(end_ids(tokenizer, model))  # the trained end among them
        merging.write(model, aligned.path, context.out / "merged", saved_in_4_bits=in_4_bits, end_ids=ends)
        del bare, model
        merged = base.load_base(str(context.out / "merged"), four_bit=False)  # measured as it was written
        with torch.no_grad():
            after = causal.labelled_states(merged, probe)
            cost = head.kl(policy, after, causal.output_layer(merged)).mean().item()
        tokenizer.save_pretrained(context.out / "merged")
        checked = preflight.check_export(tokenizer, context.out / "merged", context.run.data.system)
    named = context.run.model.base
    if Path(named).is_absolute():  # a folder: the card names it as seen from the run file
        named = relative(Path(named), context.run_file_dir)
    text = card.write(named, context.run.method, records(context.run_dir), cost)
    (context.out / "README.md").write_text(text, encoding="utf-8")
    return {"merge_kl_nats_per_token": cost, "preflight": checked}


def says(metrics: Metrics, run: RunFile) -> list[str]:
    """What merging cost."""
    cost = metrics["merge_kl_nats_per_token"]
    return [] if cost is None else [f"merged weights: KL from the 4-bit policy {cost:.4f} nats per token"]


def plan(values: loads.Values, lengths: Lengths, run: RunFile) -> loads.Planned | None:
    """What it holds in memory and computes."""
    return (loads.Load(copy="dequantized"), loads.Work()) if values["merged"] else None


STAGE = Stage(
    name="export",
    config=Config,
    makes=Export,
    run=run,
    needs={"aligned": "aligned"},
    help="The adapter, merged weights and a model card.",
    plan=plan,
    cure={"merged": False},
    says=says,
)
