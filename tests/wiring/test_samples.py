"""What `sample` and `evaluate` draw, against plain greedy decoding and plain log-probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plain
import pytest
from tiny import copy_of, open_run

from trueup.errors import ModelError
from trueup.run.pipeline import Pipeline

ENGINES = ["auto", "merged", "generate"]


def sampled(run: Pipeline) -> list[dict[str, Any]]:
    run.execute("sample", rebuild=True, use_stale=True)  # of another seed than sft
    return plain.rows(run.path("sample") / "completions.jsonl")


def greedy(run: Pipeline, rows: list[dict[str, Any]]) -> list[str]:
    tok, policy = plain.tokenizer(run.run.model.base), plain.model(run.run.model.base, run.path("sft"))
    return [plain.greedy(policy, tok, row["messages"], 8) for row in rows]


def agree(found: list[str], expected: list[str]) -> float:
    return sum(a == b for a, b in zip(found, expected, strict=True)) / len(expected)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("nucleus", [False, True])
def test_greedy_and_a_tiny_nucleus_give_what_plain_greedy_decoding_gives(
    sharp: Pipeline, tmp_path: Path, engine: str, nucleus: bool
) -> None:
    """A prompt without its generation prompt, a forgotten top-p, another adapter: each gives other answers."""
    settings = ["sample.temperature=3", "sample.top_p=0.000001"] if nucleus else ["sample.temperature=0"]
    run = open_run(copy_of(sharp, tmp_path / "run"), f"sample.engine={engine}", *settings)
    rows = sampled(run)
    expected = greedy(run, rows)
    assert agree([row["completion"] for row in rows], expected) >= 0.9  # bf16 may tip a near tie
    if nucleus:
        hot = open_run(tmp_path / "run", f"sample.engine={engine}", "sample.temperature=3")
        assert agree([row["completion"] for row in sampled(hot)], expected) < 0.5


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_log_probabilities_are_those_of_a_plain_forward(
    sharp: Pipeline, tmp_path: Path, engine: str, temperature: float
) -> None:
    """The sum over the tokens drawn, the end-of-turn token included, under the sampling temperature."""
    run = open_run(copy_of(sharp, tmp_path / "run"), f"sample.engine={engine}", f"sample.temperature={temperature}")
    plain.check_logps(run.run.model.base, run.path("sft"), sampled(run), temperature)


def test_a_copy_that_was_asked_for_is_not_replaced_by_generate(
    sharp: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEUP_CPU", "portable")  # as a model that our decoder does not know
    with pytest.raises(ModelError, match="engine: merged: our decoder does not know this model"):
        sampled(open_run(copy_of(sharp, tmp_path / "run"), "sample.engine=merged"))


def test_finish_says_whether_the_answer_ended(sharp: Pipeline, tmp_path: Path) -> None:
    folder = copy_of(sharp, tmp_path / "run")
    rows = sampled(open_run(folder, "sample.temperature=0", "sample.max_new_tokens=2"))
    assert {row["finish"] for row in rows} == {"length"}
    assert {row["num_tokens"] for row in rows} == {2}
    rows = sampled(open_run(folder, "sample.temperature=0", "sample.max_new_tokens=32"))
    assert {row["finish"] for row in rows} == {"eos"}


def test_a_seed_decides_what_is_drawn(sharp: Pipeline, tmp_path: Path) -> None:
    folder = copy_of(sharp, tmp_path / "run")
    drawn = [
        [row["completion"] for row in sampled(open_run(folder, "sample.temperature=2", f"seed={seed}"))]
        for seed in (0, 0, 1)
    ]
    assert drawn[0] == drawn[1]
    assert agree(drawn[0], drawn[2]) < 0.5
    halves = drawn[0][::2], drawn[0][1::2]  # two completions of each prompt
    assert agree(*halves) < 0.5
