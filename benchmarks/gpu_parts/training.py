"""SFT, DPO, reward and PPO by our own stages; SFT, DPO and the reward model by plain TRL beside them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from gpu_parts.workbench import Workbench, forget_peak, now, peak, speed, step_timer, tokens_a_step

SHOWN = ("train_loss", "reference_proof", "accuracy", "kl_nats_per_token")
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def ours(part: str, bench: Workbench, kept: Path) -> dict[str, Any]:
    """The stage, from loading the base to the adapter on disk; timed by step."""
    from trueup.models import base
    from trueup.run.artifacts import read_jsonl

    tokens = tokens_a_step(base.load_tokenizer(str(bench.base)), part, bench.size)
    if part == "sft":
        pipeline = bench.pipeline("long.jsonl")
    else:
        pipeline = bench.begun(kept, "ppo" if part == "ppo" else "dpo")
        if part == "ppo":
            pipeline.execute("reward")
            _complete(bench, pipeline)
    shutil.rmtree(pipeline.path(part), ignore_errors=True)
    times = step_timer()
    forget_peak()
    began = now()
    pipeline.execute(part)
    found = {"stage_s": round(now() - began, 1)} | peak()
    metrics = pipeline.stages[part].makes(pipeline.path(part)).record()["metrics"]
    found |= {key: metrics[key] for key in SHOWN if key in metrics}
    if part != "ppo":
        return found | speed(times, tokens)
    last = list(read_jsonl(pipeline.path("ppo") / "metrics.jsonl"))[-1]
    keys = ("rollout_s", "update_s", "tokens_per_s", "engine_mismatch", "num_tokens")
    return found | {key: round(last[key], 4) for key in keys if key in last}


def _complete(bench: Workbench, pipeline: Any) -> None:
    """Answers of the policy, of which PPO takes the reward's mean and spread."""
    from trueup.run.artifacts import Completions

    rows = [
        {"uid": str(i), "prompt_id": str(i), "messages": pair["prompt"], "completion": pair["chosen"][: 20 + 9 * i]}
        for i, pair in enumerate(bench.texts.pairs)
    ]
    bench.put(pipeline, "sample", {"completions.jsonl": rows}, Completions)


def peer(part: str, bench: Workbench, kept: Path) -> dict[str, Any]:
    """TRL as its documentation has it: the same 4-bit base, LoRA, texts and micro-batches."""
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    from trueup.models import base

    cuda = torch.cuda.is_available()
    half = base.compute_dtype()
    options: dict[str, Any] = {"dtype": half, "device_map": {"": 0} if cuda else None}
    if part == "reward":
        model = AutoModelForSequenceClassification.from_pretrained(bench.base, num_labels=1, **options)
    else:
        model = AutoModelForCausalLM.from_pretrained(bench.base, **options)
    base.cure_cpu_repacking(model)  # on some CPUs gradients are wrong without it
    tokenizer = base.load_tokenizer(str(bench.base))
    if part == "reward":
        tokenizer.pad_token = tokenizer.bos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    times = step_timer()
    forget_peak()
    task = "SEQ_CLS" if part == "reward" else "CAUSAL_LM"
    arguments = {
        "output_dir": str(bench.folder / f"trl-{part}"),
        "max_length": bench.size.length,
        "num_train_epochs": 1,
        "gradient_accumulation_steps": 4,
        "per_device_train_batch_size": 2 if part == "sft" else 1,
        "gradient_checkpointing": True,
        "report_to": "none",
        "use_cpu": not cuda,
        "bf16": cuda and half == torch.bfloat16,
        "fp16": cuda and half == torch.float16,
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": 1,
        "seed": 0,
    }
    made = _trainer(
        part,
        arguments,
        bench,
        model=model,
        processing_class=tokenizer,
        peft_config=LoraConfig(**LORA, task_type=task),
    )
    if half == torch.float16:  # GradScaler refuses gradients in fp16, which TRL leaves a score head
        for parameter in made.model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    loss = made.train().training_loss
    tokens = tokens_a_step(tokenizer, part, bench.size)
    return {"train_loss": loss} | peak() | speed(times, tokens)


def _trainer(part: str, arguments: dict[str, Any], bench: Workbench, **more: Any) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

    def said(text: str, role: str = "assistant") -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    if part == "sft":
        demonstrations = bench.texts.rows_of("sft")
        rows = [{"prompt": said(d["prompt"], "user"), "completion": said(d["response"])} for d in demonstrations]
        return SFTTrainer(args=SFTConfig(**arguments), train_dataset=Dataset.from_list(rows), **more)
    rows = [
        {"prompt": pair["prompt"], "chosen": said(pair["chosen"]), "rejected": said(pair["rejected"])}
        for pair in bench.texts.pairs
    ]
    config, trainer = (RewardConfig, RewardTrainer) if part == "reward" else (DPOConfig, DPOTrainer)
    return trainer(args=config(**arguments), train_dataset=Dataset.from_list(rows), **more)
