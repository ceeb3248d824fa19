"""Bugs of what is handed from one part to another."""

from __future__ import annotations

from .bug import Bug

STEP = "tests/wiring/test_first_step.py::test_"
ONLINE = "tests/wiring/test_online_steps.py::test_"
ENSEMBLE = "tests/wiring/test_ensemble.py::test_"
VERDICT = "tests/wiring/test_verdict.py"
ADAPTERS = "tests/wiring/test_adapters.py"
JUDGEMENTS = "tests/wiring/test_judgements.py"
TRAINING = "src/trueup/training/"
COMMON = TRAINING + "common.py"
PPO = "src/trueup/online/ppo/"

BUGS = [
    Bug(
        "chosen and rejected swapped where DPO's rows are made",
        "wiring",
        "src/trueup/chat/rows.py",
        '"chosen_ids": chosen.answer, "rejected_ids": rejected.answer}',
        '"chosen_ids": rejected.answer, "rejected_ids": chosen.answer}',
        (STEP + "dpo",),
    ),
    Bug(
        "chosen and rejected swapped where the reward's rows are made",
        "wiring",
        "src/trueup/chat/rows.py",
        '{"chosen_ids": chosen.ids, "rejected_ids": rejected.ids}',
        '{"chosen_ids": rejected.ids, "rejected_ids": chosen.ids}',
        (STEP + "reward", VERDICT + "::test_the_reward_model_prefers_what_people_did_on_held_out_prompts"),
    ),
    Bug(
        "KTO's label inverted",
        "wiring",
        "src/trueup/chat/rows.py",
        '"label": row["label"], "weight"',
        '"label": not row["label"], "weight"',
        (STEP + "kto",),
    ),
    Bug(
        "DPO trained on held-out pairs",
        "wiring",
        "stages/dpo.py",
        'feedback.pairs("train")',
        'feedback.pairs("train") + feedback.pairs("held_out")',
        (STEP + "dpo", JUDGEMENTS + "::test_held_out_judgements_change_no_weight"),
    ),
    Bug(
        "KTO trained on held-out thumbs",
        "wiring",
        "stages/kto.py",
        'feedback.rows("train")',
        'feedback.rows("train") + feedback.rows("held_out")',
        (STEP + "kto", JUDGEMENTS + "::test_held_out_judgements_change_no_weight"),
    ),
    Bug(
        "the reward model trained on held-out pairs",
        "wiring",
        "stages/reward.py",
        'config.disputed_pairs) for split in ("train", "held_out"))',
        'config.disputed_pairs) for split in ("held_out", "train"))',
        (STEP + "reward", JUDGEMENTS + "::test_held_out_judgements_change_no_weight"),
    ),
    Bug(
        "the reward's accuracy measured on what it trained on",
        "wiring",
        "stages/reward.py",
        "eval_dataset=Dataset.from_list(held_out.rows) if",
        "eval_dataset=Dataset.from_list(mean_one(prepared.rows)) if",
        (VERDICT + "::test_the_accuracy_is_of_held_out_pairs",),
    ),
    Bug(
        "SFT trained on what it is measured on",
        "wiring",
        "stages/sft.py",
        "if splits[prompt] == split]",
        'if split == "train" or splits[prompt] == split]',
        (STEP + "sft", ADAPTERS + "::test_the_epoch_that_is_reported_is_the_one_that_is_kept"),
    ),
    Bug(
        "SFT trained on prompts as well",
        "wiring",
        "src/trueup/chat/rows.py",
        '"labels": one.labels}',
        '"labels": one.ids}',
        (STEP + "sft",),
    ),
    Bug(
        "the last epoch kept and the best reported",
        "wiring",
        "stages/sft.py",
        '"load_best_model_at_end": True',
        '"load_best_model_at_end": False',
        (ADAPTERS + "::test_the_epoch_that_is_reported_is_the_one_that_is_kept",),
    ),
    Bug(
        "adapters saved in bf16",
        "wiring",
        COMMON,
        "    model.save_pretrained(str(out), selected",
        "    import torch\n\n    model.to(torch.bfloat16).save_pretrained(str(out), selected",
        (ADAPTERS + "::test_small_updates_survive_in_what_is_saved",),
    ),
    Bug(
        "adapters trained in bf16",
        "wiring",
        COMMON,
        "    adapters.trainable_to_fp32(model)\n    if start is not None:",
        "    if start is not None:",
        (ADAPTERS + "::test_small_updates_survive_in_what_is_saved",),
    ),
    Bug(
        "the seed set after the adapter is drawn",
        "wiring",
        COMMON,
        "    set_seed(run.seed)",
        "    run.seed",
        (ADAPTERS + "::test_a_seed_decides_the_weights",),
    ),
    Bug(
        "the value head not trained",
        "wiring",
        PPO + "roles.py",
        "return [*own, *self.value_head.parameters()]",
        "return own",
        (ONLINE + "ppo",),
    ),
    Bug(
        "the value's adapter not trained",
        "wiring",
        PPO + "roles.py",
        "return [*own, *self.value_head.parameters()]",
        "return [*self.value_head.parameters()]",
        (ONLINE + "ppo",),
    ),
    Bug(
        "no generation prompt in PPO",
        "wiring",
        "src/trueup/online/prompts.py",
        'ids = chat.prompt(row["messages"])',
        'ids = chat.tokens(chat.text(row["messages"]))',
        (ONLINE + "ppo",),
    ),
    Bug(
        "GRPO minimizes its reward",
        "wiring",
        "src/trueup/online/watch.py",
        "            return scores\n\n        reward.",
        "            return [-score for score in scores]\n\n        reward.",
        (ONLINE + "grpo",),
    ),
    Bug(
        "the mean of a reward model not taken off",
        "wiring",
        "src/trueup/online/rewards.py",
        "(score - self.mean) / self.spread",
        "score / self.spread",
        ("tests/e2e/test_ppo_details.py::test_the_reward_model_is_normalized_on_sft_samples_and_functions_are_not",),
    ),
    Bug(
        "the largest reward of the members in place of the smallest",
        "wiring",
        "src/trueup/models/combining.py",
        "scores.amin(0)",
        "scores.amax(0)",
        (ENSEMBLE + "what_is_optimized",),
    ),
    Bug(
        "variance over the members rewarded",
        "wiring",
        "src/trueup/models/combining.py",
        "scores.mean(0) - self",
        "scores.mean(0) + self",
        (ENSEMBLE + "what_is_optimized",),
    ),
    Bug(
        "members combined on scales of their own",
        "wiring",
        "src/trueup/models/scoring.py",
        "((raw - head.mean) / head.spread).T",
        "raw.T",
        (ENSEMBLE + "what_is_optimized",),
    ),
    Bug(
        "PPO takes the mean whatever combine says",
        "wiring",
        "stages/ppo.py",
        "combine=config.combination(),",
        "",
        (ENSEMBLE + "what_is_optimized",),
    ),
    Bug(
        "labels drawn for a member, not prompts",
        "wiring",
        TRAINING + "ensemble.py",
        "torch.unique(prompt, return_inverse=True)",
        "torch.unique(torch.arange(len(prompt)), return_inverse=True)",
        (ENSEMBLE + "each_head_is_fitted_to_whole_prompts_drawn_with_replacement",),
    ),
    Bug(
        "every member trained from the same seed",
        "wiring",
        TRAINING + "ensemble.py",
        "(context.run.seed + place) % SEEDS",
        "context.run.seed",
        (ENSEMBLE + "a_member_is_what_its_seed_alone_makes_and_a_killed_stage_goes_on",),
    ),
]
