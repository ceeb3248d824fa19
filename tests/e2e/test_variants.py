"""Variants of a round, the winner among them, the next round, and which labels made what."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny import make_run

from trueup.cli.main import main
from trueup.errors import StageError
from trueup.run.artifacts import Adapter, read_jsonl, write_json, write_jsonl
from trueup.run.lineage import Family
from trueup.run.pipeline import Pipeline
from trueup.stages import STAGES

QUICK = ("dpo.num_train_epochs=1", "kto.num_train_epochs=1", "evaluate.max_new_tokens=8", "evaluate.num_completions=1")
PREFERENCES = [
    {"prompt": f"{word} ?", "chosen": f"glad {word}", "rejected": f"sorry {word}"}
    for word in ("tent", "boot", "rope", "red")
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose judgements are a file, after sft, collect, reward and dpo."""
    place = tmp_path_factory.mktemp("variants")
    make_run(place, sharp=True)
    write_jsonl(place / "pairs.jsonl", PREFERENCES)
    run_file = place / "run.yaml"
    run_file.write_text(run_file.read_text().replace("data: {", "data: {preferences: pairs.jsonl, ", 1))
    assert trueup(place, "dpo").exit_code == 2  # collect and reward are not built
    for stage in ("collect", "reward", "dpo"):
        good(trueup(place, stage))
    return place


def trueup(folder: Path, command: str, *options: str) -> Result:
    quick = [part for override in QUICK for part in ("--set", override)]
    takes_no_run = command == "lineage"
    return CliRunner().invoke(main, [command, str(folder / "run.yaml"), *([] if takes_no_run else quick), *options])


def good(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def record(folder: Path, place: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "runs" / "tiny" / place / "record.json").read_text())
    return found


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, str]:
    """What the commands said that made a variant of DPO and one of KTO, and judged them; and dpo's record before."""
    return {
        "first": (folder / "runs/tiny/round-1/dpo/record.json").read_text(),
        "dpo": good(trueup(folder, "dpo", "--as", "beta-2", "--set", "dpo.beta=2")),
        "evaluate": good(trueup(folder, "evaluate", "--as", "beta-2")),
        "kto": good(trueup(folder, "kto", "--as", "other")),
        "evaluate kto": good(trueup(folder, "evaluate", "--as", "other")),
    }


def test_a_variant_is_built_beside_the_first_on_the_same_labels(folder: Path, said: dict[str, str]) -> None:
    first, other = record(folder, "round-1/dpo"), record(folder, "round-1/dpo@beta-2")
    assert (folder / "runs/tiny/round-1/dpo/record.json").read_text() == said["first"]
    assert other["config"]["beta"] == 2 and other["inputs"] == first["inputs"]
    assert other["fingerprint"] != first["fingerprint"]
    assert not list((folder / "runs/tiny/round-1").glob("*.partial"))


def test_a_variant_keeps_its_settings_which_are_named(folder: Path, said: dict[str, str]) -> None:
    assert "--set dpo.beta=2" in said["evaluate"]
    judged = record(folder, "round-1/evaluate@beta-2")
    assert judged["inputs"]["aligned"] == record(folder, "round-1/dpo@beta-2")["fingerprint"]
    assert "complete already" in good(trueup(folder, "dpo", "--as", "beta-2"))


def test_a_variant_may_be_of_another_method(folder: Path, said: dict[str, str]) -> None:
    next_line = said["kto"].splitlines()[-1]
    assert next_line.startswith("next: trueup evaluate ") and "variant=" not in next_line
    assert next_line.count("--as other") == 1
    aligned = record(folder, "round-1/kto@other")["fingerprint"]
    assert record(folder, "round-1/evaluate@other")["inputs"]["aligned"] == aligned


@pytest.mark.usefixtures("said")
def test_status_shows_each_with_its_own_verdict(folder: Path) -> None:
    shown = trueup(folder, "status", "--json")
    said = json.loads(shown.stdout)
    by_name = {one["adapter"]: one for one in said["candidates"]}
    assert set(by_name) == {"dpo", "dpo@beta-2", "kto@other"}
    assert by_name["dpo"]["win_rate_over_sft"] is None
    for name, place in (("dpo@beta-2", "evaluate@beta-2"), ("kto@other", "evaluate@other")):
        assert by_name[name]["kl_nats_per_token"] == record(folder, f"round-1/{place}")["metrics"]["kl_nats_per_token"]
    assert by_name["dpo@beta-2"]["overrides"].count("dpo.beta=2") == 1
    text = good(trueup(folder, "status"))
    assert "not evaluated" in text and "dpo@beta-2" in text and "kto@other" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "│" in line)


@pytest.mark.usefixtures("said")
def test_ship_decides_by_the_evaluation_of_the_variant(folder: Path) -> None:
    shown = trueup(folder, "ship", "--as", "beta-2", "--json", "--set", "goal.kl=1e-9")
    said = json.loads(shown.stdout)
    outcomes = {check["name"]: check["outcome"] for check in said["checks"]}
    assert (shown.exit_code, said["decision"]) == (4, "DON'T SHIP")
    assert outcomes["KL from SFT"] == "failed" and outcomes["judge"] == "undecided"
    assert trueup(folder, "ship", "--as", "beta-2").exit_code == 5
    missing = trueup(folder, "ship")
    assert missing.exit_code == 2 and "evaluate is missing" in missing.output


def pipeline(folder: Path, **changes: Any) -> Pipeline:
    from trueup.run.run_file import load

    run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
    return Pipeline(run.model_copy(update=changes), STAGES, folder / "runs")


@pytest.mark.usefixtures("said")
def test_the_winner_is_the_one_whose_interval_ends_highest_at_its_lower_end(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    chain = pipeline(tmp_path, round=2)
    for place, low in (("evaluate@beta-2", 0.3), ("evaluate@other", 0.4)):
        path = tmp_path / "runs/tiny/round-1" / place / "record.json"
        found = json.loads(path.read_text())
        wins = {
            "estimate": 0.9 - low,
            "low": low,
            "high": 0.95,
            "num_prompts": 4,
        }  # the estimates are the other way round
        found["metrics"]["win_rate"] = wins
        write_json(path, found)
    assert chain.where("policy") == ("kto@other", 1)
    assert pipeline(tmp_path, round=2, winner={1: "dpo@beta-2"}).where("policy") == ("dpo@beta-2", 1)
    # built again since it was evaluated: nothing is known of it
    path = tmp_path / "runs/tiny/round-1/kto@other/record.json"
    write_json(path, json.loads(path.read_text()) | {"fingerprint": "another"})
    assert pipeline(tmp_path, round=2).where("policy") == ("dpo@beta-2", 1)
    with pytest.raises(StageError, match=r"trueup grpo RUN.yaml --as x --set round=1"):
        pipeline(tmp_path, round=2, winner={1: "grpo@x"}).artifact("policy", "sample")


@pytest.mark.slow
@pytest.mark.usefixtures("said")
def test_the_next_round_starts_from_the_winner_and_goes_on_where_it_was_begun(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    winner = "  1: dpo@beta-2\n"
    run_file = tmp_path / "run.yaml"
    run_file.write_text(run_file.read_text() + "winner:\n" + winner)
    good(trueup(tmp_path, "next-round", "--set", "export.to=adapter"))
    started = record(tmp_path, "round-2/dpo")["inputs"]
    assert started["policy"] == record(tmp_path, "round-1/dpo@beta-2")["fingerprint"]
    assert record(tmp_path, "round-2/evaluate")["inputs"]["reference"] == started["policy"]
    shutil.rmtree(tmp_path / "runs/tiny/round-2/evaluate")
    assert "round 2, from dpo@beta-2 of round 1" in good(trueup(tmp_path, "next-round", "--set", "export.to=adapter"))
    assert not (tmp_path / "runs/tiny/round-3").exists()


def test_without_an_evaluation_there_is_no_next_round(pipeline_folder: Path) -> None:
    said = trueup(pipeline_folder, "next-round")
    assert said.exit_code == 2 and "round 1 is not evaluated yet" in said.output


@pytest.fixture
def pipeline_folder(tmp_path: Path) -> Path:
    make_run(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["a/b", "", "x.old-1", "x.partial", "-x", "x" * 101])
def test_a_name_that_no_folder_may_bear_is_refused(folder: Path, name: str) -> None:
    said = trueup(folder, "dpo", "--as", name)
    assert said.exit_code == 2 and "--as" in said.output


@pytest.mark.parametrize("winner", ["sft", "dpo@", "foo", "dpo@a/b"])
def test_a_winner_that_is_no_aligned_adapter_is_refused(folder: Path, winner: str) -> None:
    said = trueup(folder, "status", "--set", f"winner={{1: '{winner}'}}")
    assert said.exit_code == 2 and "such as dpo or dpo@beta-0.3" in said.output


@pytest.mark.parametrize(
    ("winner", "found"),
    [
        ("{0: dpo}", "winner.0: found '0'; expected: a whole number greater than 0"),
        ("{one: dpo}", "winner.one: found 'one'; expected: a whole number greater than 0"),
        ("{1:dpo}", "expected: a whole number greater than 0; put a space after the colon"),
    ],
)
def test_a_winner_of_what_is_no_round_is_refused(folder: Path, winner: str, found: str) -> None:
    said = trueup(folder, "status", "--set", f"winner={winner}")
    assert said.exit_code == 2 and found in said.output


@pytest.mark.usefixtures("said")
def test_a_winner_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    nobody = "winner={1: dpo@nobody, 4: kto}"
    shown = good(trueup(folder, "status", "--set", nobody))
    assert "winner of round 1: dpo@nobody is not complete; that round has dpo, dpo@beta-2, kto@other" in shown
    assert "winner of round 4: kto, and nothing of that round is aligned yet" in shown
    refused = trueup(folder, "sample", "--set", "round=2", "--set", nobody)
    assert refused.exit_code == 2 and "sample, winner of round 1: dpo@nobody is not complete" in refused.output
    assert "; round 1 has dpo, dpo@beta-2, kto@other" in refused.output
    assert refused.output.count("round=") == 1 and "--as nobody --set round=1" in refused.output
    missing = trueup(folder, "evaluate", "--as", "nobody")
    assert "dpo@nobody; round 1 has dpo, dpo@beta-2, kto@other" in missing.output
    assert "--as nobody" in missing.output.splitlines()[-1] and "variant=" not in missing.output


@pytest.mark.usefixtures("said")
def test_the_lineage_of_an_adapter_leads_to_its_labels(folder: Path) -> None:
    family = Family(folder / "runs" / "tiny")
    members = family.ancestors(family.find("dpo@beta-2"))
    assert [one.name for one in members] == ["sft", "round-1/collect", "round-1/dpo@beta-2"]
    frozen = list(read_jsonl(folder / "runs/tiny/round-1/collect/annotations.jsonl"))
    assert sum(members[1].judgements.values()) == len(frozen) > 0
    said = good(trueup(folder, "lineage", "dpo@beta-2"))
    assert "round-1/collect" in said and "reward" not in said
    unknown = trueup(folder, "lineage", "ppo")
    assert unknown.exit_code == 2 and "no complete stage called ppo" in unknown.output


@pytest.mark.usefixtures("said")
def test_a_persons_judgements_are_followed_to_what_was_made_of_them(folder: Path) -> None:
    family = Family(folder / "runs" / "tiny")
    frozen = list(read_jsonl(folder / "runs/tiny/round-1/collect/annotations.jsonl"))
    found = {one.name for one in family.of_person(frozen[0]["annotator"])}
    assert {"round-1/collect", "round-1/reward", "round-1/dpo", "round-1/evaluate@other"} <= found
    assert "sft" not in found
    assert trueup(folder, "lineage", "dpo", "--person", frozen[0]["annotator"]).exit_code == 2
    unknown = trueup(folder, "lineage", "--person", "nobody")
    assert unknown.exit_code == 2 and "no frozen judgement of nobody" in unknown.output
    adapter = Adapter(folder / "runs/tiny/round-1/dpo")
    assert family.members["round-1/dpo"].fingerprint == adapter.fingerprint()
