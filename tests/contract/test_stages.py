"""Every stage has one shape, and those that train by a TRL trainer take their steps in one order."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from judged import judge, judged_pairs, judged_thumbs
from tiny import copy_of, open_run

from trueup.chat import preflight
from trueup.run.artifacts import Adapter, Artifact, RewardModel
from trueup.run.chain import EARLIER_REWARD
from trueup.run.pipeline import Pipeline
from trueup.run.section import Section, TrainerSection
from trueup.run.stage import Context, Metrics, Stage
from trueup.stages import STAGES
from trueup.training import common, passes, proof, steps

EACH = pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)


@EACH
def test_a_stage_is_a_module_of_its_name(stage: Stage) -> None:
    module = importlib.import_module(f"trueup.stages.{stage.name}")
    assert (module.STAGE, module.Config, module.run) == (stage, stage.config, stage.run)
    first = (module.__doc__ or "").splitlines()[0]
    said = re.fullmatch(r"(\w+): \(([^)]*)\) -> (\w+)\. .*\.", first)
    assert said, first
    assert (said[1], said[3]) == (stage.name, stage.makes.__name__)
    assert issubclass(stage.config, Section) and stage.config.__doc__
    assert stage.run.__doc__ and stage.help.endswith(".") and "\n" not in stage.help


@EACH
def test_run_takes_what_the_stage_needs_and_the_docstring_says_so(stage: Stage) -> None:
    module = importlib.import_module(f"trueup.stages.{stage.name}")
    types = typing.get_type_hints(stage.run)
    parameters = list(inspect.signature(stage.run).parameters)
    assert parameters[:2] == ["config", "context"]
    assert (types["config"], types["context"], types["return"]) == (stage.config, Context, Metrics)
    made_by = {other.name: other.makes for other in STAGES} | {"policy": Adapter, "aligned": Adapter}
    made_by |= {EARLIER_REWARD: RewardModel}
    assert set(parameters[2:]) == {*stage.needs, *(["earlier"] if stage.all_rounds else [])}
    assert set(stage.all_rounds) <= set(stage.needs)
    for parameter in stage.all_rounds:
        assert types["earlier"] == made_by[stage.needs[parameter]]
        assert inspect.signature(stage.run).parameters["earlier"].kind is inspect.Parameter.VAR_KEYWORD
    inputs = (module.__doc__ or "").partition("(")[2].partition(")")[0]
    for parameter, source in stage.needs.items():
        kinds = [kind for kind in (typing.get_args(types[parameter]) or (types[parameter],)) if kind is not type(None)]
        assert kinds == [made_by[source]] and issubclass(made_by[source], Artifact)
        assert made_by[source].__name__ in inputs
    for field in stage.reads:
        assert field.replace("_", "-").rstrip("s") in inputs


@EACH
def test_keys_that_others_read_are_keys_of_its_section(stage: Stage) -> None:
    keys = {key for key in (stage.batch, stage.length, *stage.cure, *stage.two_steps) if key}
    assert keys <= stage.config.model_fields.keys()
    if stage.batch:
        values = stage.config().model_dump()
        assert 1 <= stage.smallest_batch(values) <= values[stage.batch]
    assert not stage.trains or (stage.batch and stage.length and stage.plan)


class Reached(Exception):
    """The steps were about to begin."""


@pytest.fixture(scope="module")
def run(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The tiny run with judgements; GRPO is rewarded by a function, and needs completions."""
    folder = tmp_path_factory.mktemp("shapes") / "run"
    made = judge(pipeline, folder, judged_pairs(), judged_thumbs())
    (folder / "likes.py").write_text("def short(prompts, completions):\n    return [-len(c) for c in completions]\n")
    made.execute("sample")
    return made


OF_TRAINERS = [stage.name for stage in STAGES if issubclass(stage.config, TrainerSection)]
GRPO = (
    "grpo={reward_model_weight: 0, reward_functions: {'likes:short': 1}, per_device_train_batch_size: 8, max_steps: 1}"
)


@pytest.mark.parametrize("name", OF_TRAINERS)
def test_a_stage_by_a_trl_trainer_trains_by_the_one_order(
    run: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def reached(*args: Any, **kwargs: Any) -> Metrics:
        raise Reached

    monkeypatch.setattr(steps, "train", reached)
    with pytest.raises(Reached):
        open_run(copy_of(run, tmp_path / "run"), GRPO).execute(name, rebuild=True)


def test_the_order(run: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def watch(module: Any, name: str) -> None:
        usual = getattr(module, name)

        def noted(*args: Any, **kwargs: Any) -> Any:
            order.append(name)
            return usual(*args, **kwargs)

        monkeypatch.setattr(module, name, noted)

    for module, name in (
        (preflight, "check"),
        (common, "make_ready"),
        (proof, "prove"),
        (passes, "precompute_reference"),
        (passes, "first_loss"),
        (common, "train"),
        (common, "sort_targets"),  # the last that saving does
        (proof, "record_probe"),
    ):
        watch(module, name)
    run.execute("dpo")
    before = ["check", "make_ready", "prove", "precompute_reference", "first_loss"]
    assert order == [*before, "train", "sort_targets", "record_probe"]
