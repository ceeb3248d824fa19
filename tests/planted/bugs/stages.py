"""Bugs of the shape and the order of the stages."""

from __future__ import annotations

from .bug import Bug

STAGES = "tests/contract/test_stages.py"
ROUNDS = "tests/e2e/test_rounds.py"
TRAINING = "src/trueup/training/"

BUGS = [
    Bug(
        "the reference is not proven",
        "stages",
        TRAINING + "steps.py",
        'proven = metrics["reference_proof"] = proof.prove(trainer.model, reference.path)',
        'proven = metrics["reference_proof"] = {}',
        (STAGES + "::test_the_order",),
    ),
    Bug(
        "the probe is recorded before the adapter is saved",
        "stages",
        TRAINING + "steps.py",
        """    save(model, out)
    if probe:
        proof.record_probe(model, tokenizer, list(probe), out, longest)""",
        """    if probe:
        proof.record_probe(model, tokenizer, list(probe), out, longest)
    save(model, out)""",
        (STAGES + "::test_the_order",),
    ),
    Bug(
        "KTO trains by steps of its own",
        "stages",
        "stages/kto.py",
        "metrics = steps.train(",
        "metrics = {} if common.make_ready(trainer, policy) else dict(",
        (STAGES + "::test_a_stage_by_a_trl_trainer_trains_by_the_one_order",),
    ),
    Bug(
        "a stage that only a needless stage needs is built",
        "stages",
        "src/trueup/run/chain.py",
        "            if len(kept) == len(chosen):\n                return kept",
        "            return kept",
        (ROUNDS + "::test_functions_alone_are_the_judge_and_nobody_is_asked",),
    ),
    Bug(
        "reward functions judge the wrong way round",
        "stages",
        "src/trueup/online/rewards.py",
        "return [sum(scores) for scores",
        "return [-sum(scores) for scores",
        (ROUNDS + "::test_functions_alone_are_the_judge_and_nobody_is_asked",),
    ),
    Bug(
        "a new run file names the methods of this release",
        "stages",
        "src/trueup/run/template.yaml",
        "METHODS",
        "dpo, kto, ppo or grpo",
        ("tests/contract/test_new_method.py::test_the_commands_know_it",),
    ),
]
