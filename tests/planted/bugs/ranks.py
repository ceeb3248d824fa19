"""Bugs of training in several processes."""

from __future__ import annotations

from .bug import Bug

RANKS = "tests/distributed/test_equal.py::"
TRAINING = "src/trueup/training/"
TRAINERS = TRAINING + "trainers.py"
PPO = "src/trueup/online/ppo/"

BUGS = [
    Bug(
        "KTO's KL of each rank's rows alone",
        "ranks",
        TRAINERS,
        "kl = ranks.mean((mismatched - reference_mismatched).detach(), counts).clamp(min=0)",
        "kl = (mismatched - reference_mismatched).detach()[counts].mean().nan_to_num().clamp(min=0)",
        (RANKS + "test_two_processes_train_what_one_does",),
    ),
    Bug(
        "KTO's mismatched answers taken from each rank's rows alone",
        "ranks",
        "stages/kto.py",
        "config.per_device_train_batch_size * ranks.count())",
        "config.per_device_train_batch_size)",
        (RANKS + "test_two_processes_log_and_measure_what_one_does",),
    ),
    Bug(
        "advantages whitened by rank",
        "ranks",
        PPO + "rollout.py",
        "advantages=mathematics.whiten(advantages, mask),",
        "advantages=sum(mathematics.whiten(advantages, mask & (torch.arange(len(mask)) % ranks.count() == n)[:, None]) "
        "for n in range(ranks.count())),",
        (RANKS + "test_two_processes_train_what_one_does",),
    ),
    Bug(
        "the mean over tokens taken on each rank",
        "ranks",
        TRAINING + "lean.py",
        "fused_lm_head=True, num_items_in_batch=num_items_in_batch)",
        "fused_lm_head=True, num_items_in_batch=(inputs['labels'][:, 1:] >= 0).sum() "
        "* self.args.gradient_accumulation_steps * self.args.world_size)",
        (RANKS + "test_two_processes_train_what_one_does",),
    ),
    Bug(
        "rows that fill up a share count",
        "ranks",
        TRAINING + "sharing.py",
        "[(batch[0], 0.0)]",
        "[(batch[0], factor)]",
        (RANKS + "test_two_processes_train_what_one_does",),
    ),
    Bug(
        "a smaller last batch averaged as a whole one",
        "ranks",
        TRAINING + "sharing.py",
        "factor = share * ranks.count() / len(batch)",
        "factor = 1.0",
        (RANKS + "test_two_processes_train_what_one_does",),
    ),
    Bug(
        "PPO's gradients not added up",
        "ranks",
        PPO + "update.py",
        'ranks.add_up_gradients(p for group in optimizer.param_groups for p in group["params"])',
        "pass",
        (RANKS + "test_two_processes_train_what_one_does",),
    ),
    Bug(
        "answers of the ranks one behind the other",
        "ranks",
        "src/trueup/ranks.py",
        "return [shares[i % count()][i // count()] for i in range(total)]",
        "return [value for one in shares for value in one]",
        ("tests/distributed/test_ranks.py::test_ranks_exchange_values_in_order",),
    ),
    Bug(
        "a rank with other files trains",
        "ranks",
        "src/trueup/run/building.py",
        'alike.refuse_different(stage.name, {"versions": versions} | computes | standing.made_of(stage, inputs))',
        "pass",
        ("tests/distributed/test_ranks.py::test_ranks_with_other_data_are_refused_before_anything_trains",),
    ),
]
