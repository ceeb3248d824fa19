"""The order in which pairs are trained on."""

from trueup.training.by_prompt import ByPrompt

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
