"""dpo: (Adapter, Feedback) -> Adapter. The policy it starts from is the reference."""

import math

from pydantic import PositiveFloat, PositiveInt

from trueup.run.artifacts import Adapter, Feedback
from trueup.run.section import Section
from trueup.run.stage import Context, Metrics, Stage


class Config(Section):
    """Field names are trl.DPOConfig's own."""

    beta: PositiveFloat = 0.1  # KL coefficient: the pull toward the reference
    learning_rate: PositiveFloat = 5e-5
    num_train_epochs: PositiveFloat = 2
    per_device_train_batch_size: PositiveInt = 4
    gradient_accumulation_steps: PositiveInt = 2
    gradient_checkpointing: bool = False  # less memory, a third more time
    max_length: PositiveInt = 512  # tokens, prompt + completion
    save_steps: PositiveInt = 10  # optimizer steps between checkpoints: what a killed run loses at most


def run(config: Config, context: Context, policy: Adapter, feedback: Feedback) -> Metrics:
    """Minimize eq. 7 of Rafailov et al. 2023 after the reference proof; save the adapter."""
    from datasets import Dataset
    from trl import DPOConfig

    from trueup.chat import preflight
    from trueup.training import common, proof, weighted

    pairs = weighted.mean_one(feedback.pairs("train"))
    rows = [_conversational(pair, i) for i, pair in enumerate(pairs)]
    model, tokenizer = common.load_policy(context, policy)
    trainer = weighted.WeightedDPOTrainer(
        model=model,  # no ref_model: TRL freezes a copy of this adapter, on the same base
        processing_class=tokenizer,
        args=DPOConfig(
            **common.trainer_args(context),
            **config.model_dump(),
            precompute_ref_log_probs=False,
        ),
        train_dataset=Dataset.from_list(rows),
    )
    checked = preflight.check(trainer, rows, context)
    common.make_ready(trainer, policy)
    proven = proof.prove(trainer.model, policy.path)
    trainer.data_collator = weighted.Weights(trainer.data_collator)
    weighted.precompute_reference(trainer)
    proven["first_loss"] = proof.prove_loss(weighted.first_loss(trainer), math.log(2), policy.path)
    metrics = common.train(trainer)
    common.save_adapter(trainer.model, context.out)
    probes = [{"messages": pair["prompt"], "completion": pair["chosen"]} for pair in pairs]
    proof.record_probe(trainer.model, tokenizer, probes, context.out)
    return metrics | {"reference_proof": proven, "num_pairs": len(trainer.train_dataset), "preflight": checked}


def _conversational(pair: dict[str, object], number: int) -> dict[str, object]:
    return {
        "id": f"{pair['prompt_id']}/{number}",
        "prompt": pair["prompt"],
        "chosen": [{"role": "assistant", "content": pair["chosen"]}],
        "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        "weight": pair["weight"],
    }


STAGE = Stage(
    name="dpo",
    config=Config,
    makes=Adapter,
    run=run,
    needs={"policy": "policy", "feedback": "collect"},
    alignment=True,
)
