"""Bugs of which adapter is the policy, the reference, the aligned one."""

from __future__ import annotations

from .bug import Bug

STEP = "tests/wiring/test_first_step.py::test_"
VERDICT = "tests/wiring/test_verdict.py"
TRAINING = "src/trueup/training/"

BUGS = [
    Bug(
        '"aligned" is SFT in the pipeline',
        "roles",
        "src/trueup/run/chain.py",
        "(self.run.method if source == ALIGNED else source), number",
        '("sft" if source == ALIGNED else source), number',
        (VERDICT + "::test_answers_are_those_of_the_adapter_they_are_shown_for",),
    ),
    Bug(
        '"aligned" is the policy the round began with, in export',
        "roles",
        "stages/export.py",
        'needs={"aligned": "aligned"}',
        'needs={"aligned": "policy"}',
        (VERDICT + "::test_what_is_exported_is_the_aligned_adapter",),
    ),
    Bug(
        '"aligned" is the policy the round began with, in evaluate',
        "roles",
        "stages/evaluate.py",
        '"aligned": "aligned", "reward"',
        '"aligned": "policy", "reward"',
        (VERDICT + "::test_answers_are_those_of_the_adapter_they_are_shown_for",),
    ),
    Bug(
        "evaluate answers with SFT for both",
        "roles",
        "src/trueup/evaluation/contestants.py",
        '"aligned": Contestant(POLICY, prompts, every)',
        '"aligned": Contestant(SFT, prompts, every)',
        (VERDICT + "::test_answers_are_those_of_the_adapter_they_are_shown_for",),
    ),
    Bug(
        "evaluate answers with the aligned adapter for both",
        "roles",
        "src/trueup/evaluation/contestants.py",
        '"sft": Contestant(SFT, prompts, every)',
        '"sft": Contestant(POLICY, prompts, every)',
        (VERDICT + "::test_answers_are_those_of_the_adapter_they_are_shown_for",),
    ),
    Bug(
        "KL to the reference is KL to SFT in a later round",
        "roles",
        "src/trueup/evaluation/compare.py",
        '"kl_to_reference_nats_per_token": found[-1]',
        '"kl_to_reference_nats_per_token": found[0]',
        (VERDICT + "::test_in_a_later_round_kl_is_to_sft_and_to_what_the_round_began_with",),
    ),
    Bug(
        "DPO's reference with its adapter off",
        "roles",
        TRAINING + "passes.py",
        'adapters.using(model, "ref")',
        "adapters.using(model, None)",
        (STEP + "dpo",),
    ),
    Bug(
        "the reward model starts from weights rounded to bf16",
        "roles",
        "stages/reward.py",
        "start=policy,\n        weighted=True",
        "weighted=True",
        (STEP + "reward",),
    ),
    Bug(
        "a later round starts from SFT",
        "roles",
        "src/trueup/run/chain.py",
        "return self.winner(number - 1), number - 1",
        'return "sft", number',
        ("tests/e2e/test_rounds.py",),
    ),
    Bug(
        "a variant built in the folder of the first",
        "roles",
        "src/trueup/run/chain.py",
        "if not variant and number == self.run.round and self.varies(stage):",
        "if False:",
        ("tests/e2e/test_variants.py",),
    ),
    Bug(
        "the winner of a round by the estimate, not by the lower end",
        "roles",
        "src/trueup/run/candidates.py",
        'won_by(self.figures)["low"]',
        'won_by(self.figures)["estimate"]',
        ("tests/e2e/test_variants.py::test_the_winner_is_the_one_whose_interval_ends_highest_at_its_lower_end",),
    ),
    Bug(
        "an adapter judged before it was built again still wins",
        "roles",
        "src/trueup/run/candidates.py",
        'verdicts.get(record.get("fingerprint"))',
        "next(iter(verdicts.values()), None)",
        ("tests/e2e/test_variants.py::test_the_winner_is_the_one_whose_interval_ends_highest_at_its_lower_end",),
    ),
    Bug(
        "a lineage that ends at the stage itself",
        "roles",
        "src/trueup/run/lineage.py",
        "todo += self.members[name].made_from",
        "todo += ()",
        ("tests/e2e/test_variants.py::test_the_lineage_of_an_adapter_leads_to_its_labels",),
    ),
]
