"""What the tests of this folder share: the run that they build."""

import torch

EMULATED = torch.version.cuda is None  # the device of tests/gpu_emulated: it has no memory and no speed
STAGES = ("sft", "sample", "collect", "reward", "dpo", "kto", "ppo", "grpo", "evaluate", "export")
RUN = """name: tiny
model: {{base: {base}}}
data: {{demonstrations: d.jsonl, prompts: p.jsonl, held_out: h.jsonl, preferences: c.jsonl}}
sft: {{learning_rate: 0.01, num_train_epochs: 3}}
sample: {{num_completions: 2, max_new_tokens: 8}}
reward: {{learning_rate: 0.001, num_train_epochs: 1}}
dpo: {{num_train_epochs: 1, save_steps: 2, gradient_accumulation_steps: 1}}
kto: {{num_train_epochs: 1, gradient_accumulation_steps: 1}}
ppo: {{num_steps: 2, rollout_batch_size: 8, max_new_tokens: 8, micro_batch_size: 4}}
grpo: {{max_steps: 2, num_generations: 4, per_device_train_batch_size: 8, max_completion_length: 8}}
evaluate: {{num_completions: 1, max_new_tokens: 8}}
export: {{num_prompts: 4}}
"""
