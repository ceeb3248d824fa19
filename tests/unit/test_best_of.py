"""Best-of-n against its closed forms: how often it wins by the reward that chose it, and how far away it is."""

from itertools import permutations
from math import log

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError
from scipy import integrate, stats

from trueup.errors import ModelError
from trueup.evaluation import best_of
from trueup.judges.optimized import Optimized
from trueup.online.rewards import Part
from trueup.sampling.types import Sampled
from trueup.stages import evaluate, sample


@pytest.mark.parametrize("n", [2, 3, 5])
def test_over_one_more_answer_it_wins_n_of_n_plus_1_by_the_reward_that_chose_it(n: int) -> None:
    """Of n + 1 answers with different rewards, every order of these is as likely as any other."""
    orders = list(permutations(map(float, range(n + 1))))
    won = [order[best_of.best(order[:n], n)[0]] > order[n] for order in orders]
    assert sum(won) / len(won) == pytest.approx(best_of.most_won(n))


@pytest.mark.parametrize("n", [2, 4, 16])
def test_kl_is_that_of_the_largest_of_n_uniform_numbers(n: int) -> None:
    """Its density is n u^(n - 1), against 1 of one number."""
    largest = stats.beta(n, 1)
    kl, _ = integrate.quad(lambda u: largest.pdf(u) * np.log(largest.pdf(u)), 0, 1)
    assert best_of.most_kl(n) == pytest.approx(kl)


def test_kl_is_less_where_answers_come_twice() -> None:
    """Of three answers that a model gives with these probabilities, the worst first; n = 4."""
    model = np.array([0.2, 0.5, 0.3])
    reached = np.cumsum(model) ** 4
    chosen = np.diff(reached, prepend=0)
    kl = float((chosen * np.log(chosen / model)).sum())
    assert 0 < kl < best_of.most_kl(4) == pytest.approx(log(4) - 3 / 4)


def test_the_best_of_each_prompt_are_kept_in_order() -> None:
    """The reward counts letters; of equals the first is kept, and comes first."""
    part = Part("letters", 1.0, lambda prompts, texts: [float(len(text)) for text in texts])
    texts = ["a", "bbb", "cc", "dd", "e", "ff"]
    every = [Sampled(text, [number], 0.0, "eos") for number, text in enumerate(texts)]
    asked = [[{"role": "user", "content": name}] for name in ("first", "second")]
    judge = Optimized(None, None, None, [part])
    found, rewards = judge.best(asked, every, 3)
    assert [texts[i] for i in found] == ["bbb", "dd"]
    assert rewards == [1, 3, 2, 2, 1, 2]
    for keep, wanted in ((2, ["bbb", "cc", "dd", "ff"]), (3, ["bbb", "cc", "a", "dd", "ff", "e"])):
        assert [texts[i] for i in judge.best(asked, every, 3, keep=keep)[0]] == wanted


def test_a_reward_that_is_no_number_chooses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    judge = Optimized(None, None, None, [])
    monkeypatch.setattr(Optimized, "scores", lambda *some: {"": [1.0, float("nan")]})
    with pytest.raises(ModelError, match="1 of 2 answers have a reward of nan"):
        judge.best([[{"role": "user", "content": "x"}]], [Sampled("x", [1], 0.0, "eos")] * 2, 2)


def test_each_answer_is_scored_with_its_own_prompt() -> None:
    seen: list[str] = []

    def note(prompts: list[list[dict[str, str]]], texts: list[str]) -> list[float]:
        seen.extend(prompt[0]["content"] for prompt in prompts)
        return [0.0] * len(texts)

    every = [Sampled("x", [1], 0.0, "eos")] * 4
    asked = [[{"role": "user", "content": name}] for name in ("first", "second")]
    Optimized(None, None, None, [Part("note", 1.0, note)]).best(asked, every, 2)
    assert seen == ["first", "first", "second", "second"]


@pytest.mark.parametrize("n", [1, -1])
def test_one_answer_has_no_best(n: int) -> None:
    with pytest.raises(ValueError, match="0, for off, or 2 and more"):
        best_of.several(n)
    assert best_of.several(0) == 0


@pytest.mark.parametrize("section", [evaluate.Config, sample.Config])
def test_the_best_of_greedy_answers_is_refused(section: type[BaseModel]) -> None:
    section.model_validate({"best_of": 0, "temperature": 0})
    section.model_validate({"best_of": 2, "temperature": 0.1})
    with pytest.raises(
        ValidationError, match="best_of is 4, and at temperature 0 all answers to a prompt are the same"
    ):
        section.model_validate({"best_of": 4, "temperature": 0})
