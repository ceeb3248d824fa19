"""Sampling on the emulated device: few launches, one prefill for each distinct prompt, and what fits is chosen."""

from __future__ import annotations

from typing import Any

import emulated
import pytest

pytestmark = emulated.needs_compiler
PLENTY, LITTLE = 15 * 2**30, 2**20  # bytes free on the GPU
MOST_LAUNCHES = 40  # of a layer and token
DISTINCT = [[10, 11, 12, 13], [20, 21], [30, 31, 32]]
CASES = [
    ("auto", 2, PLENTY),
    ("auto", 3, PLENTY),
    ("auto", 2, LITTLE),
    ("auto", 3, LITTLE),
    ("generate", 2, LITTLE),
    ("generate", 3, LITTLE),
]


@pytest.fixture(
    scope="module",
    params=[pytest.param((7, 5), id="fp16"), pytest.param((8, 0), id="bf16", marks=pytest.mark.slow)],
)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, int], Any]:
    folder = str(tmp_path_factory.mktemp("sampling"))
    return dict(
        zip(CASES, emulated.run("sampling.py", folder=folder, capability=request.param, cases=CASES), strict=True)
    )


@pytest.mark.parametrize(("room", "weights"), [(PLENTY, "a merged copy in "), (LITTLE, "the stored weights, LoRA in ")])
def test_a_layer_takes_few_launches_a_token_and_the_host_never_waits_within_a_step(
    found: dict[tuple[str, int, int], Any], room: int, weights: str
) -> None:
    two, three = found["auto", 2, room], found["auto", 3, room]
    assert three["launches"] - two["launches"] <= MOST_LAUNCHES, three["by_operator"]
    assert three["syncs"] == []
    assert weights in two["ran"] and "without CUDA graphs: the step cannot be captured" in two["ran"]
    assert sorted(two["prefills"]) == DISTINCT


def test_generate_takes_more_than_twice_as_many(found: dict[tuple[str, int, int], Any]) -> None:
    """What the count means: it is the same count that `generate` with its fp32 adapters fails."""
    assert found["generate", 3, LITTLE]["launches"] - found["generate", 2, LITTLE]["launches"] > 2 * MOST_LAUNCHES


@pytest.mark.parametrize("room", [PLENTY, LITTLE])
def test_completions_are_those_of_generate_but_for_rounding(found: dict[tuple[str, int, int], Any], room: int) -> None:
    """The tokens up to the first that rounding decides otherwise have the log-probabilities that `generate` has."""
    ours, theirs = found["auto", 2, room], found["generate", 2, LITTLE]
    for mine, other, my_logps, other_logps in zip(
        ours["ids"], theirs["ids"], ours["logps"], theirs["logps"], strict=True
    ):
        same = next((i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b), len(mine))
        assert same > 0
        assert my_logps[:same] == pytest.approx(other_logps[:same], abs=0.05)
