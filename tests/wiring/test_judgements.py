"""From what people said to pairs and rows: polarity, splits, weights, the last word, and what must not matter."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import plain
import pytest
from click.testing import CliRunner
from judged import judge, judged_pairs, judged_thumbs
from tiny import copy_of, open_run

from trueup.cli.main import main
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Waiting

Judged = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def frozen(run: Pipeline) -> Judged:
    return plain.rows(run.path("collect") / "pairs.jsonl"), plain.rows(run.path("collect") / "rows.jsonl")


def facts(judged: Judged, swap: bool = False) -> tuple[Counter[Any], Counter[Any]]:
    """What trains, whatever the order and the names: pairs and rows as counted tuples; `swap` turns each over."""
    pairs, rows = judged
    sides = ("rejected", "chosen") if swap else ("chosen", "rejected")
    return (
        Counter((p["prompt"][-1]["content"], *(p[s] for s in sides), p["split"], round(p["weight"], 9)) for p in pairs),
        Counter(
            (r["prompt"][-1]["content"], r["completion"], r["label"] ^ swap, r["split"], round(r["weight"], 9))
            for r in rows
        ),
    )


def test_each_judgement_is_there_with_its_side_and_its_weight(judged: Pipeline) -> None:
    pairs, rows = frozen(judged)
    num_pairs = Counter(row["prompt"] for row in judged_pairs())
    said = {(r["prompt"], r["chosen"], r["rejected"]): 1 / num_pairs[r["prompt"]] for r in judged_pairs()}
    found = {(p["prompt"][-1]["content"], p["chosen"], p["rejected"]): p["weight"] for p in pairs}
    assert found == pytest.approx(said)
    votes = Counter((str(r["prompt"]), str(r["completion"]), bool(r["label"])) for r in judged_thumbs())
    votes += Counter(
        (r["prompt"], r[side], side == "chosen") for r in judged_pairs() for side in ("chosen", "rejected")
    )
    assert Counter((r["prompt"][-1]["content"], r["completion"], r["label"]) for r in rows) == votes
    for row in rows:  # the share of those who agree
        key = (row["prompt"][-1]["content"], row["completion"])
        assert row["weight"] == pytest.approx(
            votes[(*key, row["label"])] / (votes[(*key, True)] + votes[(*key, False)])
        )


def test_a_prompt_is_on_one_side_of_the_split_and_both_sides_hold_some(judged: Pipeline) -> None:
    sides: dict[str, set[str]] = {}
    for row in [row for part in frozen(judged) for row in part]:
        sides.setdefault(row["prompt"][-1]["content"], set()).add(row["split"])
    assert all(len(found) == 1 for found in sides.values())
    held_out = sum(found == {"held_out"} for found in sides.values())
    assert held_out == round(0.3 * len(sides))


def test_the_order_of_judgements_does_not_matter(judged: Pipeline, pipeline: Pipeline, tmp_path: Path) -> None:
    pairs, thumbs = judged_pairs(), judged_thumbs()
    random.Random(1).shuffle(pairs)
    random.Random(2).shuffle(thumbs)
    assert facts(frozen(judge(pipeline, tmp_path / "run", pairs, thumbs))) == facts(frozen(judged))


def test_swapped_sides_are_swapped_and_nothing_else_is(judged: Pipeline, pipeline: Pipeline, tmp_path: Path) -> None:
    pairs = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in judged_pairs()]
    thumbs = [row | {"label": not row["label"]} for row in judged_thumbs()]
    assert facts(frozen(judge(pipeline, tmp_path / "run", pairs, thumbs)), swap=True) == facts(frozen(judged))


def test_votes_for_and_against_are_counted(pipeline: Pipeline, tmp_path: Path) -> None:
    pairs = [
        {"prompt": "red", "chosen": "yes", "rejected": "no", "votes_for": 3, "votes_against": 1},
        {"prompt": "blue", "chosen": "yes", "rejected": "no", "votes_for": 1, "votes_against": 2},
    ]
    found, rows = frozen(judge(pipeline, tmp_path / "run", pairs, []))  # type: ignore[arg-type]
    assert {(p["prompt"][-1]["content"], p["chosen"]) for p in found} == {("red", "yes"), ("blue", "no")}
    # 2 p - 1 for the soft label p, as Furuta et al. 2024 (arXiv:2409.06691) scale a pair's gradient
    assert {p["prompt"][-1]["content"]: p["weight"] for p in found} == pytest.approx({"red": 0.5, "blue": 1 / 3})
    weights = {(r["prompt"][-1]["content"], r["completion"], r["label"]): r["weight"] for r in rows}
    assert weights["red", "yes", True] == weights["red", "no", False] == 0.75
    assert weights["blue", "no", True] == weights["blue", "yes", False] == pytest.approx(2 / 3)


def rewrite(run: Pipeline, name: str, change: Any) -> None:
    path = run.path("collect") / name
    path.write_text("".join(json.dumps(change(row)) + "\n" for row in plain.rows(path)))


def trained(folder: Path, stage: str, name: str = "", change: Any = None, *more: str) -> dict[str, Any]:
    """The adapter a stage makes of the frozen judgements of a run, changed row by row; with `more` settings."""
    run = open_run(folder, f"{stage}.num_train_epochs=1", f"{stage}.learning_rate=0.002", *more)
    if change is not None:
        rewrite(run, name, change)
    run.execute(stage, use_stale=True)  # the files of collect were changed by hand
    return plain.saved(run.path(stage))


@pytest.mark.parametrize(
    ("stage", "name", "change"),
    [
        ("dpo", "pairs.jsonl", lambda row: row | {"weight": 2 * row["weight"]}),
        ("reward", "pairs.jsonl", lambda row: row | {"weight": 2 * row["weight"]}),
        ("dpo", "pairs.jsonl", lambda row: row | {"prompt_id": f"renamed {row['prompt_id']}"}),
        ("kto", "rows.jsonl", lambda row: row | {"prompt_id": f"renamed {row['prompt_id']}"}),
    ],
    ids=["dpo, weights doubled", "reward, weights doubled", "dpo, prompts renamed", "kto, prompts renamed"],
)
def test_what_must_not_matter_does_not(judged: Pipeline, tmp_path: Path, stage: str, name: str, change: Any) -> None:
    alone = ("reward.thumbs_weight=0",)  # beside thumbs, the weight of pairs matters
    expected = trained(copy_of(judged, tmp_path / "one"), stage, "", None, *alone)
    found = trained(copy_of(judged, tmp_path / "other"), stage, name, change, *alone)
    assert plain.differ(found, expected) < 1e-6


@pytest.mark.parametrize(
    ("stage", "name"),
    [("dpo", "pairs.jsonl"), ("kto", "rows.jsonl"), ("reward", "pairs.jsonl"), ("reward", "rows.jsonl")],
)
def test_held_out_judgements_change_no_weight(judged: Pipeline, tmp_path: Path, stage: str, name: str) -> None:
    """What is held out is turned over: an adapter that saw it would be another one."""

    def turned(row: dict[str, Any]) -> dict[str, Any]:
        if row["split"] == "train":
            return row
        if name == "rows.jsonl":
            return row | {"label": not row["label"], "completion": "red red"}
        return row | {"chosen": row["rejected"], "rejected": row["chosen"]}

    expected = trained(copy_of(judged, tmp_path / "one"), stage)
    found = trained(copy_of(judged, tmp_path / "other"), stage, name, turned)
    assert plain.differ(found, expected) < 1e-6


THUMB = {"from_name": "thumb", "to_name": "response", "type": "choices"}


def test_the_last_word_of_a_person_counts_and_no_secret_is_said(
    sharp: Pipeline, labelstudio: Path, tmp_path: Path
) -> None:
    """Through the command line, with a real server: one person judges a text twice, and edits an earlier verdict."""
    folder = copy_of(sharp, tmp_path / "run")
    secrets = json.loads((labelstudio / "credentials.json").read_text())
    where = [f"labelstudio.url={secrets['url']}", f"labelstudio.data_dir={labelstudio}", "collect.held_out_fraction=0"]
    options = [part for override in where for part in ("--set", override)]
    said = [CliRunner().invoke(main, ["collect", str(folder / "run.yaml"), *options])]
    assert said[0].exit_code == 3
    run = open_run(folder, *where)
    completions = plain.rows(run.path("sample") / "completions.jsonl")
    headers = {"Authorization": f"Token {secrets['token']}"}
    with httpx.Client(base_url=secrets["url"], headers=headers, trust_env=False, timeout=60) as person:
        projects = json.loads((run.folder / "store" / "projects.json").read_text())
        number = next(iter(projects.values()))["id"]
        tasks = person.get(f"/api/tasks/?project={number}&page_size=100").json()["tasks"]
        by_uid = {task["data"]["uid"]: task["id"] for task in tasks}

        def judge_as(uid: str, verdict: str, annotation: int | None = None) -> int:
            result = {"result": [THUMB | {"value": {"choices": [verdict]}}]}
            if annotation is not None:
                return int(person.patch(f"/api/annotations/{annotation}/", json=result).json()["id"])
            return int(person.post(f"/api/tasks/{by_uid[uid]}/annotations/", json=result).json()["id"])

        twice, edited, *others = [row["uid"] for row in completions]
        judge_as(twice, "up")
        first = judge_as(edited, "down")
        said.append(CliRunner().invoke(main, ["collect", str(folder / "run.yaml"), *options]))
        assert said[-1].exit_code == 3  # both are in the store now, and are about to change
        for number, uid in enumerate(others):
            judge_as(uid, "up" if number % 2 else "down")
        judge_as(twice, "down")
        judge_as(edited, "up", first)
    for words in (["collect", str(folder / "run.yaml")], ["status", str(folder / "run.yaml")]):
        said.append(CliRunner().invoke(main, [*words, *options]))
        assert said[-1].exit_code == 0, said[-1].output
    said.append(CliRunner().invoke(main, ["labelstudio", "status", "--data-dir", str(labelstudio)]))
    said.append(CliRunner().invoke(main, ["labelstudio", "start", "--data-dir", str(labelstudio)]))
    assert secrets["url"] in said[-1].output

    _, rows = frozen(run)
    labels = {row["uid"]: [] for row in rows}
    for row in rows:
        labels[row["uid"]].append(row["label"])
    assert labels[twice] == [False]
    assert labels[edited] == [True]
    assert all(labels[uid] == [bool(number % 2)] for number, uid in enumerate(others))

    assert not (folder / "runs" / "tiny" / "credentials.json").exists()
    kept = [path for path in folder.rglob("*") if path.is_file()] + [labelstudio / "server.log"]
    texts = [result.output for result in said] + [path.read_bytes().decode(errors="replace") for path in kept]
    for secret in (secrets["password"], secrets["token"]):
        assert not any(secret in text for text in texts)


def test_waiting_says_how_far_people_are(sharp: Pipeline, labelstudio: Path, tmp_path: Path) -> None:
    url = json.loads((labelstudio / "credentials.json").read_text())["url"]
    run = open_run(copy_of(sharp, tmp_path / "run"), f"labelstudio.url={url}", f"labelstudio.data_dir={labelstudio}")
    with pytest.raises(Waiting, match="waiting 0/20"):
        run.execute("collect")
