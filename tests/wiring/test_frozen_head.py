"""A score head alone: what scikit-learn's logistic regression finds on the same states, and the policy as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pytest
import torch
from judged import by_two
from sklearn.linear_model import LogisticRegression
from tiny import open_run

from trueup.training import frozen_head

FAR = 1e3  # thresholds as features of this size: a penalty on their weights is next to nothing


def by_scikit_learn(
    features: np.ndarray,
    pairs: list[tuple[int, int, float]],
    thumbs: list[tuple[int, int, bool, float]],
    penalty: float,
) -> np.ndarray:
    """The head under `penalty` |w|^2 / 2 beside the mean loss; a pair is a positive example of the difference."""
    people = 1 + max((person for _, person, _, _ in thumbs), default=-1)
    rows = [np.r_[features[c] - features[r], np.zeros(people)] for c, r, _ in pairs]
    rows += [np.r_[features[answer], -FAR * np.eye(people)[person]] for answer, person, _, _ in thumbs]
    weight = np.array([w for *_, w in pairs] + [w for *_, w in thumbs])
    side = np.array([1.0] * len(pairs) + [1.0 if up else -1.0 for _, _, up, _ in thumbs])
    x, y = np.array(rows), np.array(side)
    mirrored, sides, weights = np.r_[x, -x], np.r_[y, -y], np.r_[weight, weight] / weight.mean() / 2
    model = LogisticRegression(C=1 / (penalty * len(x)), fit_intercept=False, tol=1e-10, max_iter=10_000)
    found: np.ndarray = model.fit(mirrored, sides, sample_weight=weights).coef_[0]
    return found


def labels(pairs: list[tuple[int, int, float]], thumbs: list[tuple[int, int, bool, float]]) -> frozen_head.Labels:
    rows: list[tuple[float, ...]] = [(c, r, w, 1.0, 1.0, -1, 0, c) for c, r, w in pairs]
    rows += [(a, a, w, 1.0, 1.0, person, up, a) for a, person, up, w in thumbs]
    c, r, *how, person, up, prompt = (torch.tensor(column) for column in zip(*rows, strict=True))
    return frozen_head.Labels(c, r, *(one.float() for one in how), person, up, prompt)


@pytest.mark.parametrize("penalty", [0.1, 0.001])
@pytest.mark.parametrize("with_thumbs", [False, True])
def test_the_head_is_that_of_scikit_learn(penalty: float, with_thumbs: bool) -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(60, 8))
    worth = features @ draw.normal(size=8)
    pairs = [
        (i, i + 1, 1 + i % 3) if worth[i] + draw.normal() > worth[i + 1] else (i + 1, i, 1 + i % 3) for i in range(40)
    ]
    thumbs = [(i, i % 2, bool(worth[i] + draw.normal() > i % 2), 0.5) for i in range(60)] if with_thumbs else []
    people = 2 if with_thumbs else 0
    expected = by_scikit_learn(features, pairs, thumbs, penalty)
    found = frozen_head.fit(torch.tensor(features, dtype=torch.float32), labels(pairs, thumbs), people, penalty).numpy()
    np.testing.assert_allclose(found[:8], expected[:8], rtol=0.02, atol=0.005)
    np.testing.assert_allclose(found[8:], FAR * expected[8:], rtol=0.02, atol=0.005)


def test_a_left_out_prompt_is_predicted_by_a_head_that_did_not_see_it() -> None:
    """The loss of each penalty is that of scikit-learn's heads, one for each fold of the prompts."""
    draw = np.random.default_rng(1)
    features = draw.normal(size=(50, 6))
    worth = features @ draw.normal(size=6)
    pairs = [(i, i + 1, 1.0) if worth[i] + draw.normal() > worth[i + 1] else (i + 1, i, 1.0) for i in range(0, 50, 2)]
    made = labels(pairs, [])  # each pair a prompt of its own
    found = frozen_head.cross_validated(torch.tensor(features, dtype=torch.float32), made, 0, seed=3)
    prompts = torch.unique(made.prompt)
    order = prompts[torch.randperm(len(prompts), generator=torch.Generator().manual_seed(3))].tolist()
    for penalty in (0.1, 0.01):
        loss = hits = 0.0
        for fold in range(frozen_head.FOLDS):
            apart = set(order[fold :: frozen_head.FOLDS])
            head = by_scikit_learn(features, [pair for pair in pairs if pair[0] not in apart], [], penalty)
            differences = [(features[c] - features[r]) @ head for c, r, _ in pairs if c in apart]
            loss += sum(np.log1p(np.exp(-d)) for d in differences) / len(pairs)
            hits += sum(d > 0 for d in differences) / len(pairs)
        assert found[penalty] == pytest.approx((loss, hits), abs=0.005)


def test_the_penalty_of_the_least_loss_is_chosen_and_of_equals_the_strongest() -> None:
    assert frozen_head.best({0.1: (0.6, 0.7), 0.01: (0.5, 0.6), 0.001: (0.5, 0.9)}) == 0.01


def test_the_stage_trains_the_head_and_nothing_else(run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trueup.training.counting.FEWEST", 1)
    run = open_run(run_copy, "reward.kind=head", "reward.thumbs_weight=0.5")
    path = run.path("collect") / "rows.jsonl"
    said = by_two(plain.rows(path))
    path.write_text("".join(json.dumps(row) + "\n" for row in said))
    run.execute("reward", use_stale=True)  # the rows were changed by hand
    made = plain.saved(run.path("reward"))
    sft = plain.saved(run.path("sft"))
    assert all(torch.equal(made[name], sft[name]) for name in sft)
    (score,) = (tensor for name, tensor in made.items() if name.endswith("score.weight"))
    assert set(made) - set(sft) == {name for name in made if name.endswith("score.weight")}
    record: dict[str, Any] = json.loads((run.path("reward") / "record.json").read_text())["metrics"]
    tok = plain.tokenizer(run.run.model.base)
    classifier = plain.classifier(run.run.model.base, run.path("sft"))
    plain.put(classifier, {n: t.float() for n, t in ((plain.plain_name(n), t) for n, t in made.items())})
    pairs = [row for row in plain.rows(run.path("collect") / "pairs.jsonl") if row["split"] == "train"]
    thumbs = [row for row in said if row["split"] == "train" and row["kind"] != "comparison"]
    places: dict[tuple[str, str], int] = {}
    states: list[np.ndarray] = []

    def place(row: dict[str, Any], side: str) -> int:
        key = (row["prompt"][-1]["content"], row[side])
        if key not in places:
            ids = tok.apply_chat_template(
                [*row["prompt"], {"role": "assistant", "content": row[side]}], tokenize=True, return_dict=False
            )
            with torch.no_grad():
                hidden = classifier.get_base_model().model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
            places[key] = len(states)
            states.append(hidden.numpy())
        return places[key]

    of_pairs = [(place(row, "chosen"), place(row, "rejected"), row["weight"]) for row in pairs]
    of_thumbs = [(place(row, "completion"), "ab".index(row["annotator"]), row["label"], 0.5) for row in thumbs]
    known = np.array(states)
    spread = known.std(0, ddof=1) * np.sqrt(known.shape[1])
    features = (known - known.mean(0)) / spread
    expected = features @ by_scikit_learn(features, of_pairs, of_thumbs, record["penalty"])[: known.shape[1]]
    found = (known - known.mean(0)) @ score[0].float().numpy()
    assert np.corrcoef(found, expected)[0, 1] > 0.99  # the states differ by bf16's rounding
    assert np.abs(found - expected).max() < 0.15 * np.abs(expected).max()
    assert set(record["thresholds"]) == {"a", "b"}
    assert 0 <= record["cross_validated_accuracy"] <= 1 and 0 <= record["held_out_accuracy"] <= 1
    became = record["became"]
    assert sum(became["pairs"].values()) == len(plain.rows(run.path("collect") / "pairs.jsonl"))
    assert sum(became["thumbs"].values()) == len(said)
    assert became["thumbs"]["a thumb"] and "nothing" not in became["thumbs"]
