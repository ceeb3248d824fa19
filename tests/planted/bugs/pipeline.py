"""Bugs of when a finished stage is stale."""

from __future__ import annotations

from .bug import Bug

ADAPTERS = "tests/wiring/test_adapters.py"

BUGS = [
    Bug(
        "a changed seed is no drift",
        "pipeline",
        "src/trueup/run/identity.py",
        '        "seed": run.seed,\n',
        "",
        (ADAPTERS + "::test_a_finished_stage_is_stale_after_a_change[seed]",),
    ),
    Bug(
        "a changed adapter is no drift",
        "pipeline",
        "src/trueup/run/identity.py",
        'always | {"model": run.model, "adapter": run.adapter}',
        'always | {"model": run.model}',
        (ADAPTERS + "::test_a_finished_stage_is_stale_after_a_change[rank]",),
    ),
    Bug(
        "a changed section is no drift",
        "pipeline",
        "src/trueup/run/identity.py",
        '{"config": run.section(stage.name), "data_config": run.data}',
        '{"data_config": run.data}',
        (ADAPTERS + "::test_a_finished_stage_is_stale_after_a_change[beta]",),
    ),
    Bug(
        "a changed system prompt is no drift",
        "pipeline",
        "src/trueup/run/identity.py",
        '        "system": data.system,\n',
        "",
        (ADAPTERS + "::test_a_finished_stage_is_stale_after_a_change[system prompt]",),
    ),
    Bug(
        "changed data are no drift",
        "pipeline",
        "src/trueup/run/identity.py",
        '"data": {name: _rows_of(data.sources(name), folder, hashes) for name in read}',
        '"data": {}',
        (ADAPTERS + "::test_judgements_that_changed_make_collect_stale[pairs.jsonl]",),
    ),
    Bug(
        "changed inputs are no drift",
        "pipeline",
        "src/trueup/run/identity.py",
        'artifact.record().get("fingerprint") for',
        '"" for',
        (ADAPTERS + "::test_a_stage_is_stale_after_its_input_was_built_again",),
    ),
    Bug(
        "the oldest checkpoints of PPO kept",
        "pipeline",
        "src/trueup/online/ppo/state.py",
        "[:-keep]:",
        "[keep:]:",
        ("tests/e2e/test_ppo.py::test_a_run_cut_off_resumes_and_equals_the_uninterrupted_one",),
    ),
    Bug(
        "an alignment that was killed behind its last checkpoint is refused",
        "pipeline",
        "src/trueup/training/along.py",
        "begins = state.global_step == 0",
        "begins = True",
        ("tests/e2e/test_goes_on.py",),
    ),
]
