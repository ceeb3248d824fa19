"""Several reward models as one: members on one scale, combined by Coste et al.'s formulas, in PPO and GRPO as trained.

What each member says of a conversation is computed by plain transformers from the files of the stage.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import judged
import numpy as np
import plain
import pytest
import torch
from safetensors.torch import load_file
from test_frozen_head import by_scikit_learn, labels
from tiny import open_run
from torch import Tensor

from trueup.errors import ConfigError, FeedbackError
from trueup.evaluation.held_out import accuracy
from trueup.models import adapters, scoring
from trueup.models.combining import Combination
from trueup.online.settings import RewardSettings
from trueup.planning import loads
from trueup.planning.lengths import Lengths
from trueup.run.artifacts import RewardModel
from trueup.run.pipeline import Pipeline
from trueup.stages import reward
from trueup.training import ensemble, frozen_head

HEADS = ("reward.kind=head", "reward.members=3")
ADAPTERS = ("reward.members=2", "reward.learning_rate=0.05", "reward.save_steps=2")


@pytest.fixture(scope="module")
def with_labels(sharp: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("ensemble") / "run"
    return judged.judge(sharp, folder, judged.judged_pairs(), judged.judged_thumbs())


@pytest.fixture(scope="module", params=["head", "lora"])
def built(request: pytest.FixtureRequest, with_labels: Pipeline) -> tuple[Path, tuple[str, ...]]:
    """(folder of a run whose reward model has several members, the settings it was built with)."""
    options = HEADS if request.param == "head" else ADAPTERS
    folder = with_labels.folder.parents[1]
    begin(with_labels, request.param)
    open_run(folder, name := f"name={request.param}", *options).execute("reward")
    return folder, (name, *options)


def begin(with_labels: Pipeline, name: str) -> None:
    """Another run on the same SFT policy, completions and labels."""
    for stage in ("sft", "round-1/sample", "round-1/collect"):
        place = with_labels.folder.with_name(name) / stage
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.exists():
            place.symlink_to(with_labels.folder / stage)


def members(run: Pipeline) -> Any:
    """What maps token ids of a conversation to each member's score, by its own adapter, (members,)."""
    folder = run.path("reward")
    saved = load_file(folder / "members.safetensors")
    apart = sorted(folder.glob("member-*"))
    of = []
    for one in (folder, *apart):
        classifier = plain.classifier(run.run.model.base, one)
        plain.put(classifier, {plain.plain_name(n): t.float() for n, t in plain.saved(one).items()})
        of.append(classifier)

    def scores(ids: list[int]) -> Tensor:
        with torch.no_grad():
            states = [one.get_base_model().model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1] for one in of]
        if len(states) == 1:
            states *= len(saved["weight"])
        raw = torch.stack([w @ s for w, s in zip(saved["weight"], states, strict=True)])
        found: Tensor = (raw - saved["mean"]) / saved["spread"]
        return found

    return scores


def combined(scores: Tensor, rule: str, coefficient: float) -> Tensor:
    """(conversations, members) -> (conversations,), as section 3 of Coste et al. writes it."""
    if rule == "min":
        return torch.tensor([min(row) for row in scores.tolist()])
    mean = scores.sum(1) / scores.shape[1]
    if rule == "mean":
        return mean
    return mean - coefficient * ((scores - mean[:, None]) ** 2).sum(1) / scores.shape[1]


def test_the_formulas() -> None:
    scores = torch.tensor([[1.0, 4.0], [3.0, 0.0], [2.0, 2.0]])  # three members, two conversations
    assert Combination()(scores).tolist() == [2, 2]
    assert Combination("min")(scores).tolist() == [1, 0]
    # variances 2/3 and 8/3
    assert Combination("mean_minus_variance", 0.3)(scores).tolist() == pytest.approx([1.8, 1.2])


def test_each_head_is_fitted_to_whole_prompts_drawn_with_replacement() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(60, 4))
    pairs = [(i, i + 1, 1.0 + i % 2) for i in range(0, 60, 2)]
    made = labels(pairs, [])
    made = type(made)(**vars(made) | {"prompt": torch.arange(30) // 3})  # ten prompts of three pairs
    counts = ensemble.bootstrap(made.prompt, 4, 5, lambda rows: True)
    assert counts.reshape(4, 10, 3).eq(counts.reshape(4, 10, 3)[:, :, :1]).all()  # a prompt comes whole
    assert counts.sum(1).tolist() == [30] * 4  # as many prompts as there are
    assert len({tuple(row) for row in counts.tolist()}) == 4 and counts.max() > 1 and counts.min() == 0
    found = frozen_head.fit_members(torch.tensor(features, dtype=torch.float32), made, 0, 0.05, 4, 5).numpy()
    for head, count in zip(found, counts.tolist(), strict=True):
        repeated = [pair for pair, times in zip(pairs, count, strict=True) for _ in range(times)]
        np.testing.assert_allclose(head, by_scikit_learn(features, repeated, [], 0.05), rtol=0.02, atol=0.005)


def test_a_draw_without_anything_to_compare_is_drawn_again() -> None:
    prompt = torch.arange(3)
    counts = ensemble.bootstrap(prompt, 3, 0, lambda rows: bool(rows[1] and rows[2]))
    assert (counts[:, 1:] > 0).all()


def test_fewer_prompts_than_members_are_refused() -> None:
    with pytest.raises(FeedbackError, match="5 members, and judgements of 2 prompts"):
        ensemble.bootstrap(torch.tensor([0, 0, 1]), 5, 0, lambda rows: True)


def test_members_are_on_the_scale_of_the_answers_they_learned_from(built: tuple[Path, tuple[str, ...]]) -> None:
    run = open_run(built[0], *built[1])
    tok, of = plain.tokenizer(run.run.model.base), members(run)
    answers = {}
    for pair in plain.rows(run.path("collect") / "pairs.jsonl"):
        for side in ("chosen", "rejected") if pair["split"] == "train" else ():
            answers[pair["prompt"][-1]["content"], pair[side]] = pair["prompt"]
    for row in plain.rows(run.path("collect") / "rows.jsonl"):
        if row["split"] == "train" and row["kind"] != "comparison":
            answers[row["prompt"][-1]["content"], row["completion"]] = row["prompt"]
    told = [[*prompt, {"role": "assistant", "content": text}] for (_, text), prompt in answers.items()]
    scores = torch.stack([of(tok.apply_chat_template(one, tokenize=True, return_dict=False)) for one in told])
    torch.testing.assert_close(scores.mean(0), torch.zeros(scores.shape[1]), atol=0.12, rtol=0)  # bf16
    torch.testing.assert_close(scores.std(0, correction=0), torch.ones(scores.shape[1]), atol=0.12, rtol=0)
    assert (scores[:, 0] - scores[:, 1]).abs().max() > 0.1


PPO = ("method=ppo", "ppo.num_steps=1", "ppo.rollout_batch_size=8", "ppo.missing_eos_penalty=0", "ppo.max_new_tokens=6")
GRPO = ("method=grpo", "grpo.max_steps=1", "grpo.per_device_train_batch_size=8", "grpo.max_completion_length=6")
VARIANCE = "mean_minus_variance"


@pytest.mark.parametrize(
    ("built", "stage", "rule"),
    [
        ("head", "ppo", "min"),
        ("head", "grpo", VARIANCE),
        ("lora", "ppo", VARIANCE),
        pytest.param("head", "ppo", "mean", marks=pytest.mark.slow),
        pytest.param("head", "grpo", "min", marks=pytest.mark.slow),
        pytest.param("lora", "grpo", "mean", marks=pytest.mark.slow),
    ],
    indirect=["built"],
)
def test_what_is_optimized(
    built: tuple[Path, tuple[str, ...]], stage: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rewards that the method logs are the combination of the members, on the SFT samples of mean 0, spread 1."""
    kind = "lora" if "name=lora" in built[1] else "head"
    options = [*(PPO if stage == "ppo" else GRPO), f"{stage}.combine={rule}", "variant=" + rule.replace("_", "-")]
    options += [f"{stage}.variance_coefficient=0.7"] * (rule == VARIANCE)
    run = open_run(built[0], *built[1], *options)
    states: dict[str, list[Tensor]] = {}
    loaded: dict[str, dict[str, Tensor]] = {}
    usual = scoring.last_states

    def heard(model: Any, conversations: Any, name: str) -> Tensor:
        loaded[name] = adapters.adapter_tensors(model, name)
        states.setdefault(name, []).append(found := usual(model, conversations, name))
        return found

    monkeypatch.setattr(scoring, "last_states", heard)
    run.execute(stage)
    (row,) = plain.rows(run.path(stage) / "metrics.jsonl")
    folder = run.path("reward")
    saved, (_, *apart) = load_file(folder / "members.safetensors"), (folder, *sorted(folder.glob("member-*")))
    for name, place in zip(loaded, (folder, *apart), strict=True):
        assert all(torch.equal(loaded[name][key], plain.saved(place)[key]) for key in loaded[name])
    own = [torch.cat(some) for some in states.values()]
    own *= 1 if kind == "lora" else len(saved["weight"])
    raw = torch.stack([of @ weight for of, weight in zip(own, saved["weight"], strict=True)], 1)
    scores = (raw - saved["mean"]) / saved["spread"]
    assert len(scores) == 20 + 8  # what SFT sampled, then a rollout

    def normalized(rule: str) -> Tensor:
        found = combined(scores, rule, 0.7)
        return (found[20:] - found[:20].mean()) / found[:20].std(correction=0)

    expected = normalized(rule)
    assert row["reward"] == pytest.approx(expected.mean().item(), abs=1e-3)
    if stage == "ppo":
        assert row["reward_std"] == pytest.approx(expected.std(correction=0).item(), abs=1e-3)
    others = {"mean", "min", VARIANCE} - {rule}
    assert min(abs((normalized(other) - expected).mean()) for other in others) > 0.01  # another would be seen


@pytest.mark.slow
@pytest.mark.parametrize("built", ["lora"], indirect=True)
def test_a_member_is_what_its_seed_alone_makes_and_a_killed_stage_goes_on(
    built: tuple[Path, tuple[str, ...]], with_labels: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = built[0]
    for name in ("cut", "alone"):
        begin(with_labels, name)
    open_run(folder, *ADAPTERS, "reward.members=1", "seed=1", "name=alone").execute("reward", use_stale=True)
    whole, alone, cut = (folder / "runs" / name / "round-1/reward" for name in ("lora", "alone", "cut"))
    second, other = plain.saved(whole / "member-2"), plain.saved(alone)
    assert all(torch.equal(second[name], other[name]) for name in other)

    class Killed(BaseException):
        pass

    usual, calls = reward._train, []

    def dies(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise Killed
        return usual(*args)

    monkeypatch.setattr(reward, "_train", dies)
    run = open_run(folder, *ADAPTERS, "name=cut")
    with pytest.raises(Killed):
        run.execute("reward")
    run.execute("reward")
    assert len(calls) == 3  # the first member was not trained again
    assert RewardModel(cut).hashes() == RewardModel(whole).hashes()
    assert set(RewardModel(cut).hashes()) > {"members.safetensors", "member-2/adapter_model.safetensors"}
    records = [json.loads((one / "record.json").read_text())["metrics"] for one in (cut, whole)]
    names = ("held_out_accuracy", "members_accuracy", "members_agree", "thresholds")
    assert [records[0][name] for name in names] == [records[1][name] for name in names]
    assert not list(cut.glob("*.kept.jsonl")) and not list(cut.glob("checkpoints-2"))
    (cut / "member-2/adapter_model.safetensors").unlink()
    assert RewardModel(cut).altered() == ["member-2/adapter_model.safetensors is missing"]


def test_accuracy_is_that_of_the_mean_and_of_each() -> None:
    chosen, rejected = [[3.0, 1.0, 0.0], [0.0, 0.0, 2.0]], [[0.0, 0.0, 1.0], [1.0, 4.0, 0.0]]
    # of three pairs: the mean is right on the first and the third, the members on two and on one of them
    found = accuracy([chosen, rejected], ["a", "b", "c"])
    assert found["held_out_accuracy"] == pytest.approx(2 / 3)
    assert found["members_accuracy"] == pytest.approx([2 / 3, 1 / 3])
    assert found["members_agree"] == 0


def test_what_cannot_be_combined_is_refused_before_anything_is_built(with_labels: Pipeline) -> None:
    folder = with_labels.folder.parents[1]
    with pytest.raises(ConfigError, match=r"ppo.combine: min, and reward.members 1(.|\n)*--set reward.members=5"):
        open_run(folder, "method=ppo", "ppo.combine=min").foresee()
    with pytest.raises(ValueError, match="variance_coefficient is for combine: mean_minus_variance alone"):
        RewardSettings(variance_coefficient=0.5)
    with pytest.raises(ValueError, match="reward_model_weight is 0"):
        RewardSettings(combine="min", reward_model_weight=0, reward_functions={"a:b": 1})


def test_further_adapters_are_planned_for(with_labels: Pipeline) -> None:
    folder, lengths = with_labels.folder.parents[1], Lengths()

    def planned(stage: str, *options: str) -> tuple[Any, Any]:
        run = open_run(folder, *options)
        found = loads.plan(run.stages[stage], run.run, lengths)
        assert found is not None
        return found

    five, heads = ("reward.members=5",), ("reward.members=5", "reward.kind=head")
    for stage in ("ppo", "grpo", "evaluate"):
        (one, least), (many, most), (flat, same) = (planned(stage, *some) for some in ((), five, heads))
        assert many.num_adapters == one.num_adapters + 4 and flat == one
        assert most.read_tokens > least.read_tokens and same == least
    assert planned("reward", *five)[1].trained_tokens == 5 * planned("reward")[1].trained_tokens
