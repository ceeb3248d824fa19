"""PPO against trl 1.12.0's PPOTrainer, the last TRL had: episodes/s, bytes of weights, peak RSS. Last line: JSON.

SmolLM2-135M, the same prompts, 48 new tokens, 16 completions a rollout, 4 epochs of one minibatch. Ours: one NF4 base
with four adapters (policy, reference, reward, value). The peer: three dense models, LoRA on the policy, in bf16 or,
where the CPU has no bf16 and would be a hundred times slower, in fp32; its bytes of weights are those of bf16 either
way. Each side is a process; timed: everything from loading the model to the last update.

    pip install --no-deps --target TRL_DIR trl==1.12.0
    python benchmarks/ppo.py TRL_DIR [--steps 2]
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import common
from common import BASE

BATCH, NEW_TOKENS, EPOCHS, MICRO = 16, 48, 4, 16
VALUE_ON = "trunk"
TOPICS = ["tea", "rain", "maps", "wool", "salt", "boats", "clocks", "bread", "glass", "snow", "kites", "stone"]
PROMPTS = [f"{ask} {topic}." for topic in TOPICS for ask in ("Tell me about", "Give me one tip for", "Why do we like")]
LORA = {"r": 16, "lora_alpha": 32}


def ours(steps: int) -> dict[str, Any]:
    import json

    import torch

    from trueup.chat.template import Chat
    from trueup.models import adapters, base
    from trueup.online import rewards
    from trueup.online.ppo import loop, roles
    from trueup.online.prompts import encode
    from trueup.online.settings import Settings
    from trueup.run.run_file import AdapterConfig
    from trueup.training import proof

    folder = Path(tempfile.mkdtemp())
    tokenizer = base.load_tokenizer(BASE)
    rows = [{"id": str(i), "messages": [{"role": "user", "content": text}]} for i, text in enumerate(PROMPTS)]
    torch.manual_seed(0)
    model = adapters.new_adapter(
        base.load_base(BASE, four_bit=True, num_labels=1), AdapterConfig(), task_type="SEQ_CLS"
    )
    _perturb(model)
    model.save_pretrained(folder / "reward")
    model = adapters.new_adapter(base.load_base(BASE, four_bit=True), AdapterConfig())
    _perturb(model)
    model.save_pretrained(folder / "policy")
    probes = [Chat(tokenizer).answer(row["messages"], "Yes.") for row in rows]
    proof.record_probe(model, tokenizer, probes, folder / "policy")
    del model
    began = time.monotonic()
    model = adapters.load_adapter(base.load_base(BASE, four_bit=True), folder / "policy", trainable=True)
    options = {"reward": folder / "reward", "value_on": VALUE_ON, "temperature": 1.0}
    on_base = roles.build(model, tokenizer, policy=folder / "policy", **options)
    prompts, _ = encode(tokenizer, rows, 256)
    part = rewards.Part("reward_model", 1.0, rewards.OfModel(model, on_base.score_head, tokenizer, BATCH))
    settings = Settings(
        num_steps=steps,
        rollout_batch_size=BATCH,
        max_new_tokens=NEW_TOKENS,
        num_ppo_epochs=EPOCHS,
        micro_batch_size=MICRO,
    )
    out = folder / "run"
    out.mkdir()
    found = loop.train(on_base, prompts, [part], settings, start=folder / "policy", out=out, seed=0, name="benchmark")
    seconds = time.monotonic() - began
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "rate": steps * BATCH / seconds,
        "weights_bytes": base.weights_bytes(model)
        + 4 * (on_base.score_head.weight.numel() + on_base.value_head.weight.numel()),
        "tokens": sum(row["num_tokens"] for row in lines),
        "rollout_s": sum(row["rollout_s"] for row in lines),
        "update_s": sum(row["update_s"] for row in lines),
        "mean_abs_logp_drift": found["reference_proof"]["mean_abs_logp_drift"],
    }


def _perturb(model: Any) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)


def peer(steps: int) -> dict[str, Any]:
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    from trueup.models import base

    tokenizer = base.load_tokenizer(BASE)
    tokenizer.padding_side = "left"
    began = time.monotonic()
    source, options = base.locate(BASE), {"dtype": base.compute_dtype()}
    policy = AutoModelForCausalLM.from_pretrained(source, **options)
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(source, num_labels=1, **options) for _ in range(2)
    )
    ids = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for text in PROMPTS
    ]
    args = PPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        report_to="none",
        save_strategy="no",
        num_sample_generations=0,
        per_device_train_batch_size=MICRO,
        gradient_accumulation_steps=BATCH // MICRO,
        num_mini_batches=1,
        num_ppo_epochs=EPOCHS,
        local_rollout_forward_batch_size=BATCH,
        total_episodes=steps * BATCH,
        response_length=NEW_TOKENS,
        stop_token="eos",  # noqa: S106 - a kind of token
        temperature=1.0,
        gradient_checkpointing=False,
    )
    rows = Dataset.from_dict({"input_ids": ids})
    trainer = PPOTrainer(
        args=args,
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=rows,
        eval_dataset=rows,
        peft_config=LoraConfig(**LORA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    models = (trainer.policy_model, reward, value)
    weights = {p.data_ptr(): p.numel() * torch.bfloat16.itemsize for m in models for p in m.parameters()}
    trainer.train()
    return {
        "rate": steps * BATCH / (time.monotonic() - began),
        "weights_bytes": sum(weights.values()),
        "versions": {"trl (peer)": trl.__version__, "dtype (peer)": str(options["dtype"])},
    }


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("trl_dir", help="where trl 1.12.0 was installed")
    parser.add_argument("--steps", type=int, default=2)
    asked = parser.parse_args()
    if asked.side:
        common.say((ours if asked.side == "ours" else peer)(asked.steps))
        return
    options = [asked.trl_dir, "--steps", str(asked.steps)]
    us, them = common.run(__file__, "ours", options), common.run(__file__, "peer", options, asked.trl_dir)
    common.compare("ppo", "episodes/s", us, them)


if __name__ == "__main__":
    main()
