"""Where a reward model of several members is used after it was trained: evaluate, chat, and the probe of the plan.

What each member says is computed by plain transformers from the tensors of the reward model, and what is made of it by
the formulas of Coste et al. 2024, section 3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import plain
import pytest
import torch
from safetensors.torch import load_file
from test_ensemble import combined, members
from tiny import copy_of, open_run
from torch import Tensor

from trueup.models import scoring
from trueup.planning import probe
from trueup.run.artifacts import Adapter, RewardModel
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import STAGES, evaluate
from trueup.talk.answers import How
from trueup.talk.roster import roster
from trueup.talk.speaker import Speaker

RULE, COST = "mean_minus_variance", 0.7
METHOD = ("method=ppo", f"ppo.combine={RULE}", f"ppo.variance_coefficient={COST}")
BF16 = {"atol": 0.15, "rtol": 0.03}  # hidden states are rounded, and a plain forward is in fp32
FAR = 0.6  # of what another rule would say, from what this one says


@pytest.fixture(scope="module")
def run(judged: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = copy_of(judged, tmp_path_factory.mktemp("members") / "run")
    made = open_run(folder, "reward.kind=head", "reward.members=3", *METHOD)
    made.execute("reward")
    return made


def by_hand(run: Pipeline, conversations: list[list[int]]) -> tuple[Tensor, list[Tensor]]:
    """(the reward of each conversation, what the first member alone and what the members' mean would say)."""
    of = members(run)
    scores = torch.stack([of(ids) for ids in conversations])
    assert scores.shape[1] >= 2
    return combined(scores, RULE, COST), [scores[:, 0], scores.mean(1)]


def test_evaluate_compares_by_all_members(run: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    sft = Adapter(run.path("sft"))
    figures = evaluate.run(
        run.run.section("evaluate").model_copy(update={"temperature": 2.0, "num_completions": 2}),
        Context(run=run.run, run_dir=run.folder, out=tmp_path / "out"),
        sft=sft,
        reference=sft,
        aligned=sft,
        reward=RewardModel(run.path("reward")),
    )
    answers = plain.rows(tmp_path / "out" / "answers.jsonl")
    tok = plain.tokenizer(run.run.model.base)
    told, wins = [], []
    for row in answers:
        for label in ("sft", "aligned"):
            before, ids = plain.encode(tok, row["messages"], "")[0], row["ids"][label]
            told.append([*before, *ids, *(tok("\n")["input_ids"] if ids[-1] == tok.eos_token_id else [])])
        ours, theirs = row["reward"]["aligned"], row["reward"]["sft"]
        wins.append(1.0 if ours > theirs else 0.5 if ours == theirs else 0.0)
    found = torch.tensor([row["reward"][label] for row in answers for label in ("sft", "aligned")])
    expected, others = by_hand(run, told)
    torch.testing.assert_close(found, expected, **BF16)
    assert all((other - expected).abs().max() > FAR for other in others)
    assert figures["win_rate_by_reward_model"]["estimate"] == pytest.approx(sum(wins) / len(wins))


def test_chat_gives_the_answer_that_all_members_score_best(run: Pipeline) -> None:
    speaker, apart = Speaker(run, roster(run)), [False, False]
    model, tok = speaker.roster.find(speaker.roster.default), speaker.tokenizer
    for number, word in enumerate(("red", "tent", "rope")):
        prompt = speaker.prompt([{"role": "user", "content": word}])
        how = How(temperature=3.0, top_p=1.0, max_tokens=8, seed=number)
        answers = speaker.answer(model, prompt, how, number=8)
        line_end = tok("\n")["input_ids"]
        told = [[*prompt.ids, *one.sampled.ids, *(line_end if one.finish == "eos" else [])] for one in answers]
        expected, others = by_hand(run, told)
        (best,) = speaker.choose(answers)
        assert expected[[one.sampled.ids for one in answers].index(best.sampled.ids)] > expected.max() - FAR / 2
        for which, other in enumerate(others):
            apart[which] |= bool(expected[int(other.argmax())] < expected.max() - FAR)
    assert all(apart)  # another rule would have chosen another answer


@pytest.mark.parametrize(("kind", "number"), [("head", 2), pytest.param("lora", 3, marks=pytest.mark.slow)])
def test_the_probe_measures_the_method_on_as_many_adapters_as_it_will_have(
    run: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, number: int
) -> None:
    """In this process, where the probe takes two of its own; of heads two, whose number changes no memory."""
    heard: list[tuple[list[list[int]], list[float]]] = []
    usual = scoring.scores

    def listen(model: Any, head: scoring.Head, conversations: Any) -> Tensor:
        found = usual(model, head, conversations)
        heard.append(([list(ids) for ids in conversations], found.tolist()))
        return found

    monkeypatch.setattr(scoring, "scores", listen)
    monkeypatch.setattr(probe, "_in_own_process", lambda *what: probe.child(STAGES, *what))
    sizes = ("ppo.rollout_batch_size=4", "ppo.max_new_tokens=4", "ppo.max_prompt_tokens=64", "ppo.num_ppo_epochs=1")
    asked = open_run(run.run_file_dir, f"reward.kind={kind}", "reward.members=3", *METHOD, *sizes)
    assert probe.measure(asked, "ppo", tmp_path)["seconds"] > 0
    (folder,) = tmp_path.glob("runs/*/round-1/reward")
    saved = load_file(folder / "members.safetensors")
    assert len(saved["weight"]) == number
    assert len([*folder.glob("member-*")]) == (number - 1 if kind == "lora" else 0)
    probed = open_run(run.run_file_dir)
    probed = type(probed)(probed.run.model_copy(update={"name": "probe"}), STAGES, tmp_path / "runs")
    conversations, found = heard[0]
    apart = (torch.tensor(found) - by_hand(probed, conversations)[0]).abs()
    assert (
        apart.mean() < BF16["atol"] / 2 and apart.max() < FAR
    )  # members that learned next to nothing are far rescaled
