"""What the tests of PPO and GRPO share: the roles on the tiny policy, a reward it can learn, and a quick run."""

from pathlib import Path
from typing import Any

import torch
from tiny import WORDS

from trueup.models import adapters, base
from trueup.online import rewards
from trueup.online.ppo import loop, roles
from trueup.online.prompts import Prompt, encode
from trueup.online.settings import Settings
from trueup.run.artifacts import RewardModel
from trueup.run.pipeline import Pipeline

QUICK = {
    "num_steps": 14,
    "rollout_batch_size": 64,
    "max_new_tokens": 6,
    "micro_batch_size": 64,
    "learning_rate": 0.002,  # 0.005 diverges on one seed in six
    "value_learning_rate": 0.003,
    "kl_coef": 0.0,
    "missing_eos_penalty": 0.0,
}

LIKES_GEAR = """
def likes_gear(prompts, completions):
    words = [completion.split() for completion in completions]
    return [sum(word in ("rope", "boot", "tent") for word in row) / max(len(row), 1) for row in words]
"""
gear: dict[str, Any] = {}
exec(LIKES_GEAR, gear)  # the same text is imported from a file where a run file names the reward
likes_gear = gear["likes_gear"]

CONVERSATIONS = [
    [{"role": "user", "content": "red tent"}, {"role": "assistant", "content": answer}]
    for answer in ("rope rope", "no", "glad red tent boot")
]


def build(pipeline: Pipeline, **options: Any) -> roles.Roles:
    """The roles on the SFT policy of `pipeline`."""
    folder = pipeline.path("sft")
    bare = base.load_base(pipeline.run.model.base, four_bit=True)
    model = adapters.load_adapter(bare, folder, trainable=True)
    chosen = {"policy": folder, "reward": None, "value_on": "adapter", "temperature": 1.0} | options
    return roles.build(model, base.load_tokenizer(pipeline.run.model.base), **chosen)


def prompts(on_base: roles.Roles) -> list[Prompt]:
    rows = [{"id": w, "messages": [{"role": "user", "content": w}]} for w in WORDS]
    return encode(on_base.tokenizer, rows, 64)[0]


def train(
    pipeline: Pipeline, out: Path, seed: int = 0, score: Any = likes_gear, keep_checkpoints: int = 2, **changes: Any
) -> dict[str, Any]:
    settings = Settings(**(QUICK | changes))
    on_base = build(pipeline, value_on=settings.value_on)
    out.mkdir(parents=True, exist_ok=True)
    return loop.train(
        on_base,
        prompts(on_base),
        [rewards.Part("test", 1.0, score)],
        settings,
        start=pipeline.path("sft"),
        out=out,
        seed=seed,
        name="test",
        keep_checkpoints=keep_checkpoints,
    )


def move(on_base: roles.Roles, size: float = 0.05) -> None:
    """Push the policy away from its reference, so that KL is not 0."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in on_base.policy_parameters():
            parameter += size * torch.randn(parameter.shape, generator=generator)


def reward_model(pipeline: Pipeline, folder: Path) -> tuple[RewardModel, torch.Tensor]:
    """A classifier whose weights were drawn, saved as the reward stage saves it, and its scores of CONVERSATIONS."""
    bare = base.load_base(pipeline.run.model.base, four_bit=True, num_labels=1)
    tokenizer = base.load_tokenizer(pipeline.run.model.base)
    bare.config.pad_token_id = tokenizer.pad_token_id
    model = adapters.new_adapter(bare, pipeline.run.adapter, task_type="SEQ_CLS").eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    model.save_pretrained(folder)
    score = model.get_base_model().score
    score.register_forward_pre_hook(lambda module, inputs: (inputs[0].float(), *inputs[1:]))
    with torch.no_grad():
        rows = [tokenizer.apply_chat_template(c, return_tensors="pt", return_dict=True) for c in CONVERSATIONS]
        return RewardModel(folder), torch.cat([model(**row).logits.float().squeeze(-1) for row in rows])
