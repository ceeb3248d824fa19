"""What a stage is made of, and what is said of each change to it. Nothing is trained here."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from trueup.run.artifacts import write_json, write_jsonl
from trueup.run.changes import changes
from trueup.run.hashes import Hashes
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.run.standing import Standing
from trueup.stages import STAGES

SECTIONS = {stage.name: stage.config for stage in STAGES}
REWARD = "def reward(prompts, completions):\n    return [1.0 for _ in completions]\n"
TEXT = """name: x
model: {base: model}
data: {demonstrations: d.jsonl, prompts: [p.jsonl, more.jsonl], held_out: p.jsonl}
grpo: {reward_functions: {"rewards:reward": 1.0}, reward_model_weight: 0}
method: grpo
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "model.safetensors", "README.md"):
        (model / name).write_text("{}")
    for name in ("d", "p", "more"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"prompt": str(i)} for i in range(3)])
    (tmp_path / "rewards.py").write_text(REWARD)
    (tmp_path / "run.yaml").write_text(TEXT)
    return tmp_path


def pipeline(folder: Path, *overrides: str) -> Pipeline:
    return Pipeline(load(folder / "run.yaml", SECTIONS, overrides), STAGES, folder / "runs", overrides)


def record(folder: Path, stage: str, *overrides: str) -> dict[str, Any]:
    """What a stage is made of, as its record keeps it: through JSON."""
    here = pipeline(folder, *overrides)
    made: dict[str, Any] = json.loads(json.dumps(Standing(here).made_of(here.stages[stage], {})))
    return made


def said(folder: Path, stage: str, then: dict[str, Any], *overrides: str, strict: bool = False) -> list[str]:
    here = pipeline(folder, *overrides)
    standing = Standing(here)
    now = standing.made_of(here.stages[stage], {})
    return changes(then, now, here.run, here.stages[stage], folder, lambda *_: "", strict=strict)


def test_the_same_is_no_change(folder: Path) -> None:
    for stage in STAGES:
        assert said(folder, stage.name, record(folder, stage.name)) == []


def test_the_code_of_a_reward_function_is_part_of_a_stage_and_only_of_those_that_call_it(folder: Path) -> None:
    before = {name: record(folder, name) for name in ("grpo", "sft")}
    (folder / "rewards.py").write_text(REWARD.replace("1.0", "2.0"))
    assert said(folder, "grpo", before["grpo"]) == ["reward function rewards:reward: rewards.py was changed"]
    assert said(folder, "sft", before["sft"]) == []
    package = folder / "scores"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "length.py").write_text(REWARD)
    inner = 'grpo.reward_functions={"scores.length:reward": 1.0}'
    before["grpo"] = record(folder, "grpo", inner)
    (package / "length.py").write_text(REWARD + "\n")
    found = said(folder, "grpo", before["grpo"], inner)
    assert found == ["reward function scores.length:reward: scores/length.py was changed"]


def test_contents_of_the_base_count_and_its_readme_does_not(folder: Path) -> None:
    then, texts = record(folder, "sft"), record(folder, "collect")
    (folder / "model" / "README.md").write_text("new")
    assert said(folder, "sft", then) == []
    (folder / "model" / "model.safetensors").write_text("other")
    (folder / "model" / "tokenizer.json").write_text("{}")
    found = said(folder, "sft", then)
    assert found == ["the base model has other contents: model.safetensors was changed, tokenizer.json is new"]
    assert said(folder, "collect", texts) == []  # people judge texts
    (folder / "copy").mkdir()
    (folder / "copy" / "config.json").write_text("{}")
    (folder / "copy" / "model.safetensors").write_text("{}")
    assert said(folder, "sft", then, "model.base=copy") == []  # the same model by another name


def test_a_file_of_data_is_named_with_its_lines_and_what_is_read_of_it(folder: Path) -> None:
    then = record(folder, "sample")
    write_jsonl(folder / "more.jsonl", [{"prompt": "0"}])
    assert said(folder, "sample", then) == ["the prompts file more.jsonl changed (3 lines -> 1)"]
    write_jsonl(folder / "more.jsonl", [{"prompt": str(i)} for i in (2, 1, 0)])
    assert said(folder, "sample", then) == ["the prompts file more.jsonl changed (3 lines, as before)"]
    (folder / "more.jsonl").unlink()
    assert said(folder, "sample", then) == ["the prompts file more.jsonl is missing"]
    write_jsonl(folder / "more.jsonl", [{"prompt": str(i)} for i in range(3)])
    (folder / "more.jsonl").rename(folder / "renamed.jsonl")
    assert said(folder, "sample", then, "data.prompts=[p.jsonl, renamed.jsonl]") == []  # the same rows
    thinner = "data.prompts=[p.jsonl, {path: renamed.jsonl, weight: 0.5}]"
    assert said(folder, "sample", then, thinner) == ["weight of renamed.jsonl 1.0 -> 0.5"]
    assert said(folder, "sample", then, "data.prompts=p.jsonl") == ["data.prompts p.jsonl, more.jsonl -> p.jsonl"]
    assert said(folder, "sample", then, "data.prompts=hub:owner/name") == [
        "data.prompts p.jsonl, more.jsonl -> hub:owner/name"
    ]


def test_what_a_pattern_matches_is_looked_into(folder: Path) -> None:
    pattern = "data.prompts='[pm]o*.jsonl'"
    then = record(folder, "sample", pattern)
    assert said(folder, "sample", then, pattern) == []
    write_jsonl(folder / "more.jsonl", [{"prompt": "0"}])
    assert said(folder, "sample", then, pattern) == ["the prompts file [pm]o*.jsonl changed (3 lines -> 1)"]
    write_jsonl(folder / "more.jsonl", [{"prompt": str(i)} for i in range(3)])
    write_jsonl(folder / "poor.jsonl", [{"prompt": "poor"}])
    assert said(folder, "sample", then, pattern) == ["the prompts file [pm]o*.jsonl changed (3 lines -> 4)"]


def test_a_default_of_ours_that_changed_makes_nothing_stale_and_a_half_built_stage_is_strict(folder: Path) -> None:
    then = record(folder, "sample")
    then["config"]["temperature"] = 0.7  # our default then
    assert said(folder, "sample", then) == []
    assert said(folder, "sample", then, strict=True) == ["sample.temperature 0.7 -> 1.0"]
    assert said(folder, "sample", then, "sample.temperature=1.0") == ["sample.temperature 0.7 -> 1.0"]  # asked for now
    then["given"]["config"] = ["temperature"]  # asked for then
    assert said(folder, "sample", then) == ["sample.temperature 0.7 -> 1.0"]


def test_an_option_that_came_later_is_no_change_until_it_is_set(folder: Path) -> None:
    then = record(folder, "sample")
    del then["config"]["top_p"]
    then["config"]["an_option_we_dropped"] = 3
    assert said(folder, "sample", then) == []
    assert said(folder, "sample", then, "sample.top_p=0.5") == ["sample.top_p not set -> 0.5"]


def test_the_name_and_the_license_that_an_export_gives_its_base_are_settings_of_it(folder: Path) -> None:
    """`base` is kept elsewhere in the section `model` alone."""
    then = record(folder, "export", "export.base=ada/first")
    assert said(folder, "export", then, "export.base=ada/first") == []
    assert said(folder, "export", then, "export.base=ada/other") == ["export.base ada/first -> ada/other"]
    assert said(folder, "export", then) == ["export.base ada/first -> None"]
    assert said(folder, "export", then, "export.base=ada/first", "export.license=mit") == ["export.license None -> mit"]


def test_a_record_of_before_version_1_is_read_with_the_defaults_of_then(folder: Path) -> None:
    old: dict[str, Any] = record(folder, "evaluate")
    for key in ("version", "given", "base", "read", "data_config"):
        del old[key]
    old |= {"model": {"base": "model"}, "data": {k: rows["sha256"] for k, rows in old["data"].items()}}
    assert said(folder, "evaluate", old) == []
    old["config"]["max_new_tokens"] = 64  # the default of then, whatever it is now
    assert said(folder, "evaluate", old) == []
    old["config"]["max_new_tokens"] = 63
    found = said(folder, "evaluate", old)
    assert len(found) == 1
    assert found[0].startswith("evaluate.max_new_tokens 63 -> ")
    old["model"]["base"] = "/elsewhere/model"
    assert said(folder, "evaluate", old)[-1] == "model.base /elsewhere/model -> model"


def test_a_hub_model_is_its_commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))
    cache, first, second = folder / "hub" / "models--owner--name", "a1" * 20, "b2" * 20
    for commit in (first, second):
        (cache / "snapshots" / commit).mkdir(parents=True)
        (cache / "snapshots" / commit / "config.json").write_text("{}")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(first)
    then = record(folder, "sft", "model.base=owner/name")
    assert then["base"] == {"name": "owner/name", "commit": first}
    (cache / "refs" / "main").write_text(second)
    moved = f"the base is owner/name of commit {second}, and was owner/name of commit {first}"
    assert said(folder, "sft", then, "model.base=owner/name") == [moved]
    assert said(folder, "sft", then, "model.base=owner/name", f"model.revision={first}") == []
    assert said(folder, "sft", then, "model.base=else/where") == ["model.base owner/name -> else/where"]


def test_a_file_is_hashed_again_when_it_changed_and_only_then(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr("trueup.run.hashes.file_sha256", lambda path: read.append(path) or path.read_text())
    monkeypatch.setattr("trueup.run.hashes.SETTLED_NS", -1)
    file, kept = folder / "rewards.py", folder / ".hashes.json"
    for _ in range(2):
        hashes = Hashes(kept)
        assert hashes.of(file) == REWARD
        hashes.save()
    assert len(read) == 1
    before = file.stat()
    file.write_text(REWARD.replace("1.0", "2.0"))  # as long as before
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # and as old
    assert Hashes(kept).of(file) == REWARD.replace("1.0", "2.0")
    kept.write_text('{"sha256 ')
    assert Hashes(kept).of(file) == REWARD.replace("1.0", "2.0")
    monkeypatch.setattr("trueup.run.hashes.SETTLED_NS", 10**18)
    young = Hashes(folder / "young.json")
    young.of(file)
    young.save()
    assert not (folder / "young.json").exists()  # it could change again within its time stamp


def test_a_record_can_be_read_back_from_where_it_was_written(folder: Path) -> None:
    then = record(folder, "grpo")
    write_json(folder / "record.json", then)
    assert then["inputs"] == {}
    assert then["read"]["reward function rewards:reward"]["path"] == "rewards.py"
    assert then["given"]["config"] == ["reward_functions", "reward_model_weight"]
    assert str(folder) not in json.dumps(then)  # a record names no place on this machine
