"""A share of the prompts is completed as it is among all of them."""

from typing import Any

import pytest

from trueup.models import adapters, base
from trueup.run.pipeline import Pipeline
from trueup.sampling.engines import engine
from trueup.sampling.types import Engine, Sampling

PROMPTS = ["red tent", "red tent", "blue rope", "green boot", "red tent"]


@pytest.fixture(scope="module")
def loaded(pipeline: Pipeline) -> tuple[Any, Any]:
    bare = base.load_base(pipeline.run.model.base, four_bit=True)
    model = adapters.load_adapter(bare, pipeline.path("sft"), trainable=False)
    return model, base.load_tokenizer(pipeline.run.model.base)


def complete(loaded: tuple[Any, Any], prompts: list[str], share: tuple[int, int], name: Engine) -> list[list[int]]:
    """Token ids; one prompt at a time, since neighbours in a batch round each other's logits."""
    model, tokenizer = loaded
    sampling = Sampling(max_new_tokens=12, temperature=1.5, top_p=1.0, batch_size=1, seed=3, engine=name)
    run = engine(model, tokenizer, sampling)
    return [one.ids for one in run([tokenizer(prompt).input_ids for prompt in prompts], 3, share)]


@pytest.mark.doors
def test_our_decoder_gives_a_share_what_it_gives_to_all(loaded: tuple[Any, Any]) -> None:
    whole = complete(loaded, PROMPTS, (0, 1), "auto")
    assert whole[0] != whole[1] != whole[4]  # equal prompts have random numbers of their own
    for number in (2, 3):
        for first in range(number):
            assert complete(loaded, PROMPTS[first::number], (first, number), "auto") == whole[first::number]


def test_generate_gives_equal_prompts_of_two_shares_other_answers(loaded: tuple[Any, Any]) -> None:
    shares = [complete(loaded, ["red tent"], (first, 2), "generate") for first in range(2)]
    assert shares[0] != shares[1]
    assert shares[0] == complete(loaded, ["red tent"], (0, 1), "generate")
