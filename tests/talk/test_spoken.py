"""What is heard of an answer piece by piece is the answer, on every kind of tokenizer, and nothing is taken back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_families import FAMILIES, make, make_tokenizer
from transformers import AutoModelForCausalLM

from trueup.chat.ending import end_ids, settle
from trueup.chat.template import Chat
from trueup.models import base
from trueup.sampling.engines import own
from trueup.sampling.sample import as_sampled
from trueup.sampling.types import Generated, Sampling
from trueup.talk.spoken import Spoken

TEXTS = ["glad tent", " red\n\nblue ", "Ça coûte 数量 👍🏽 yes", "no", "red\n", "<think>", "</s", "\n\n\n", "é\ufffd"]


def tokenizer_of(name: str) -> Any:
    made = make_tokenizer(FAMILIES[name])
    settle(made, name, None)
    return made


@pytest.mark.parametrize("name", FAMILIES)
def test_pieces_are_the_text_on_every_kind_of_tokenizer(name: str) -> None:
    tokenizer = tokenizer_of(name)
    chat, ends = Chat(tokenizer), end_ids(tokenizer)
    prompt = chat.prompt([{"role": "user", "content": "red"}])
    draw = random.Random(name)
    answers = [chat.answer([{"role": "user", "content": "red"}], text).answer for text in TEXTS]
    answers += [[draw.randrange(len(tokenizer)) for _ in range(12)] for _ in range(40)]
    for ids in answers:
        length = next((n for n, token in enumerate(ids, 1) if token in ends), len(ids))
        spoken, pieces = Spoken(chat, prompt, ends), []
        for token in ids[:length]:
            spoken.hear(token)
            pieces.append(spoken.take())
        pieces.append(spoken.take(whole=True))
        whole = as_sampled(None, tokenizer, prompt, Generated(ids[:length], [0.0] * length))
        assert "".join(pieces) == whole.text


def test_half_a_character_waits_and_a_stop_text_is_never_shown() -> None:
    tokenizer = tokenizer_of("chatml")
    chat, ends = Chat(tokenizer), end_ids(tokenizer)
    prompt = chat.prompt([{"role": "user", "content": "red"}])
    ids = chat.tokens("glad 数 STOP here")
    spoken, pieces = Spoken(chat, prompt, ends, ["STOP", "never"]), []
    for token in ids:
        ended = spoken.hear(token)
        pieces.append(spoken.take())
        if ended:
            break
    assert "".join(pieces) == "glad 数 " == spoken.text
    assert spoken.stopped and all("\ufffd" not in piece and "S" not in piece for piece in pieces)
    assert len(spoken.ids) < len(ids)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = make(tmp_path_factory.mktemp("zephyr"), FAMILIES["zephyr"])
    return base.load_base(str(folder), four_bit=False), base.load_tokenizer(str(folder))


@pytest.mark.parametrize("engine", ["auto", "generate"])
def test_tokens_are_heard_as_they_are_drawn_and_a_row_that_is_ended_ends(model: tuple[Any, Any], engine: Any) -> None:
    run = own(*model, Sampling(max_new_tokens=9, temperature=1.0, top_p=1.0, batch_size=2, seed=0, engine=engine))
    prompts = [Chat(model[1]).prompt([{"role": "user", "content": text}]) for text in ("red", "tent boot", "no")]
    usual = run(prompts, 5)
    heard: dict[int, list[int]] = {0: [], 1: [], 2: []}

    def hear(which: int, token: int) -> bool:
        heard[which].append(token)
        return which == 1 and len(heard[1]) == 4

    done = run(prompts, 5, hear=hear)
    assert heard == {which: one.ids for which, one in enumerate(done)}
    assert done[1].ids == usual[1].ids[:4] and len(done[1].logps) == 4
    assert done[0] == usual[0] or engine == "generate"  # which draws for a batch at once

    class Enough(Exception):
        pass

    def stop(which: int, token: int) -> bool:
        raise Enough

    with pytest.raises(Enough):
        run(prompts, 5, hear=stop)
    assert run(prompts, 5) == usual  # the engine is as good as before


def test_greedy_tokens_that_are_heard_are_those_of_transformers(tmp_path: Path) -> None:
    """Whatever is heard beside it: transformers' own `generate` on the same weights, in fp32."""
    folder = make(tmp_path / "base", FAMILIES["chatml"])
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = base.load_tokenizer(str(folder))
    ids = Chat(tokenizer).prompt([{"role": "user", "content": "red"}])
    wanted = plain.generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False)[0, len(ids) :].tolist()
    sampling = Sampling(max_new_tokens=6, temperature=0.0, top_p=1.0, batch_size=1, seed=0, engine="generate")
    heard: list[int] = []
    own(plain, tokenizer, sampling)([ids], 0, hear=lambda which, token: bool(heard.append(token)))
    assert heard == wanted
