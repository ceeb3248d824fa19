"""Bugs of what is typed and printed."""

from __future__ import annotations

from .bug import Bug

DOCUMENT = "tests/unit/test_document.py::test_"

BUGS = [
    Bug(
        "what a library in C prints is among the JSON",
        "commands",
        "src/trueup/cli/document.py",
        "os.dup2(sys.stderr.fileno(), number)",
        "number",
        (DOCUMENT + "standard_output_is_the_document_alone",),
    ),
    Bug(
        "what people wait for is told beside the JSON",
        "commands",
        "src/trueup/cli/group.py",
        "click.echo(str(error), err=DOCUMENT in ctx.meta)",
        "click.echo(str(error))",
        (DOCUMENT + "standard_output_is_the_document_alone",),
    ),
    Bug(
        "bars in a pipe",
        "commands",
        "src/trueup/progress.py",
        "disable = not console.is_terminal",
        "disable = False",
        (DOCUMENT + "standard_output_is_the_document_alone",),
    ),
    Bug(
        "data check ignores --set",
        "commands",
        "src/trueup/cli/data.py",
        "load(file, {stage.name: stage.config for stage in STAGES}, overrides)",
        "load(file, {stage.name: stage.config for stage in STAGES})",
        (DOCUMENT + "commands_that_look_at_data",),
    ),
    Bug(
        "samples of the tokens shown at every stage",
        "commands",
        "src/trueup/chat/preflight.py",
        'return not any("preflight" in record',
        'return bool("preflight") or any("preflight" in record',
        ("tests/e2e/test_terminal.py::test_in_a_pipe_a_stage_is_quiet_and_its_figures_are_json",),
    ),
    Bug(
        "a new run file keeps batches that do not fit",
        "commands",
        "src/trueup/planning/starting.py",
        "changes |= cure",
        "changes |= {}",
        ("tests/unit/test_init.py::test_what_it_writes_loads_and_fits",),
    ),
    Bug(
        "defaults rounded in the help of a stage",
        "commands",
        "src/trueup/cli/completion.py",
        'written = f"{value:g}"',
        'written = f"{value:.1g}"',
        ("tests/contract/test_commands.py::test_help_of_a_stage_lists_its_settings_with_defaults_and_meanings",),
    ),
    Bug(
        "the loss of a step lost where an evaluation follows",
        "commands",
        "src/trueup/training/step_log.py",
        'found.setdefault(log["step"], {"step": log["step"]}).update(kept)',
        'found[log["step"]] = {"step": log["step"], **kept}',
        ("tests/unit/test_curves.py::test_a_trainers_log_becomes_a_row_a_step",),
    ),
    Bug(
        "curves of a stage that was put aside",
        "commands",
        "src/trueup/training/curves.py",
        'if ".old-" not in log.parent.name',
        'if ".older-" not in log.parent.name',
        ("tests/unit/test_curves.py::test_all_stages_of_all_rounds_are_on_the_page_in_order",),
    ),
]
