"""The order in which rows are trained on."""

from collections import Counter

from trl.trainer.utils import RepeatSampler

from trueup.training.order import ByLength, ByPrompt, Order, Rollouts

PROMPTS = [f"p{i // 3}" for i in range(30)]


def order(seed: int, epoch: int) -> list[int]:
    sampler = ByPrompt(PROMPTS, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_pair_once_and_those_of_a_prompt_together() -> None:
    found = order(0, 0)
    assert sorted(found) == list(range(30)) and len(ByPrompt(PROMPTS, 0)) == 30
    prompts = [PROMPTS[i] for i in found]
    assert all(len(set(prompts[i : i + 3])) == 1 for i in range(0, 30, 3))
    assert found != list(range(30))


def test_seed_and_epoch_alone_decide() -> None:
    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) == 4


def epoch_of(sampler: Order, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_by_length_every_row_once_and_a_batch_is_of_similar_lengths() -> None:
    lengths = [(7 * i) % 64 for i in range(64)]
    found = epoch_of(ByLength(lengths, 4, 0), 0)
    assert sorted(found) == list(range(64))
    spread = [max(part) - min(part) for part in ([lengths[i] for i in found[j : j + 4]] for j in range(0, 64, 4))]
    assert sum(spread) / len(spread) < 19  # half of what four rows at random have, 38
    assert found == epoch_of(ByLength(lengths, 4, 0), 0)
    others = [epoch_of(ByLength(lengths, 4, seed), epoch) for seed, epoch in ((0, 1), (1, 0))]
    assert found not in others and others[0] != others[1]


def test_rollouts_are_laid_out_as_in_trl() -> None:
    theirs = RepeatSampler(range(7), mini_repeat_count=2, batch_size=3, repeat_count=4, shuffle=False)
    ours = Rollouts(num_prompts=7, per_rollout=3, num_repeats=2, num_uses=4, seed=0)
    found = epoch_of(ours, 0)
    assert len(found) == len(ours) == len(theirs)
    renamed = {index: place for place, index in enumerate(dict.fromkeys(found))}
    assert [renamed[index] for index in found] == list(theirs)
    assert set(Counter(found).values()) == {8}
    assert found != epoch_of(ours, 1) and found == epoch_of(ours, 0)
