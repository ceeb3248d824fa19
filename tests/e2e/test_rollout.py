"""The decoder gives what transformers' generate gives, and its log-probabilities are those of the trainer's forward."""

import functools

import pytest
import torch
from scipy.stats import chisquare
from tiny import WORDS

from trueup.chat.batch import pad
from trueup.cpu import precision
from trueup.decoding.draw import draw, nucleus
from trueup.models import adapters, base
from trueup.run.pipeline import Pipeline
from trueup.sampling.sample import _alike, engine, sample
from trueup.sampling.types import Sampling

PROMPTS = [[{"role": "user", "content": " ".join(WORDS[i : i + 1 + i % 4])}] for i in range(10)]
GREEDY = Sampling(max_new_tokens=12, temperature=0, top_p=1.0, batch_size=4, seed=0)


@functools.cache
def policy(folder: str, base_folder: str, four_bit: bool) -> tuple[object, object]:
    from pathlib import Path

    model = adapters.load_adapter(base.load_base(base_folder, four_bit=four_bit), Path(folder), trainable=False)
    return model.eval(), base.load_tokenizer(base_folder)


@pytest.mark.doors
@pytest.mark.parametrize("batch_size", [3, 100])
@pytest.mark.parametrize(("engine", "rounding"), [("auto", 1e-3), ("merged", 0.01)])  # merged weights are bf16
def test_greedy_decoding_gives_the_tokens_of_generate_in_fp32(
    pipeline: Pipeline, engine: str, rounding: float, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    model, tokenizer = policy(str(pipeline.path("sft")), pipeline.run.model.base, False)
    ours = sample(model, tokenizer, PROMPTS, Sampling(**(vars(GREEDY) | {"engine": engine, "batch_size": batch_size})))
    theirs = sample(model, tokenizer, PROMPTS, Sampling(**(vars(GREEDY) | {"engine": "generate"})))
    assert [answer.text for answer in ours] == [answer.text for answer in theirs]
    assert [answer.finish for answer in ours] == [answer.finish for answer in theirs]
    assert [answer.logp for answer in ours] == pytest.approx([answer.logp for answer in theirs], abs=rounding)


def test_an_adapter_on_some_maps_only(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model

    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    torch.manual_seed(0)
    asked = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj", "up_proj"], init_lora_weights=False)
    model = get_peft_model(base.load_base(pipeline.run.model.base, four_bit=True), asked).eval()
    tokenizer = base.load_tokenizer(pipeline.run.model.base)
    ours, theirs = (
        sample(model, tokenizer, PROMPTS, Sampling(**(vars(GREEDY) | {"engine": name})))
        for name in ("auto", "generate")
    )
    assert [answer.text for answer in ours] == [answer.text for answer in theirs]


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("name", ["auto", "merged", "generate"])
def test_log_probabilities_are_those_of_a_plain_forward(pipeline: Pipeline, name: str, temperature: float) -> None:
    model, tokenizer = policy(str(pipeline.path("sft")), pipeline.run.model.base, True)
    sampling = Sampling(max_new_tokens=12, temperature=temperature, top_p=1.0, batch_size=10, seed=3, engine=name)
    prompts = [tokenizer.apply_chat_template(p, add_generation_prompt=True, return_dict=False) for p in PROMPTS]
    done = engine(model, tokenizer, sampling)(prompts, 3)
    with torch.no_grad():
        batch = pad([(p, d.ids) for p, d in zip(prompts, done, strict=True)], tokenizer.pad_token_id)
        mask = batch["labels"][:, 1:] != -100
        expected = torch.log_softmax(causal_logits(model, batch)[:, :-1] / temperature, -1)
        expected = expected.gather(-1, batch["input_ids"][:, 1:, None])[..., 0][mask]
    found = torch.tensor([logp for d in done for logp in d.logps])
    assert (found - expected).abs().max() < 0.1  # nats: bf16 rounding of the LoRA terms


def causal_logits(model: object, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()  # type: ignore[operator]


def test_the_same_seed_gives_the_same_texts(pipeline: Pipeline) -> None:
    model, tokenizer = policy(str(pipeline.path("sft")), pipeline.run.model.base, True)
    sampling = Sampling(max_new_tokens=12, temperature=1.0, top_p=1.0, batch_size=10, seed=3)
    assert sample(model, tokenizer, PROMPTS, sampling) == sample(model, tokenizer, PROMPTS, sampling)


@pytest.mark.doors
def test_who_is_decoded_beside_a_prompt_changes_nothing(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    model, tokenizer = policy(str(pipeline.path("sft")), pipeline.run.model.base, True)
    heard: list[int] = []
    found = [
        sample(
            model,
            tokenizer,
            PROMPTS,
            Sampling(max_new_tokens=12, temperature=1.0, top_p=1.0, batch_size=size, seed=3),
            heard.append,
        )
        for size in (2, 3, 100)
    ]
    assert {answer.finish for answer in found[0]} == {"eos", "length"}
    assert [a.text for a in found[0]] == [a.text for a in found[1]] == [a.text for a in found[2]]
    assert sum(heard) == 3 * len(PROMPTS)


def test_a_long_prompt_does_not_widen_the_cache_of_short_ones() -> None:
    widths = [70, 2000, 72, 110, 100, 1900]
    assert _alike([0, 2, 4, 3, 5, 1], widths) == [[0, 2, 4], [3], [5, 1]]


def test_no_adapter_is_the_bare_base(pipeline: Pipeline) -> None:
    model, tokenizer = policy(str(pipeline.path("sft")), pipeline.run.model.base, True)
    with adapters.using(model, None):
        bare = sample(model, tokenizer, PROMPTS, GREEDY)
    assert bare != sample(model, tokenizer, PROMPTS, GREEDY)


def test_drawing_follows_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.0, 0.2, 0.3] + [0.0] * 400)
    logits = probabilities.log().expand(20_000, -1)
    tokens, logps = draw(logits, torch.rand(20_000, generator=torch.Generator().manual_seed(0)), 1.0, 1.0)
    counts = torch.bincount(tokens, minlength=4)
    assert counts[1] == counts[4:].sum() == 0
    torch.testing.assert_close(logps, probabilities[tokens].log())
    assert chisquare(counts[[0, 2, 3]].numpy(), [10_000, 4_000, 6_000]).pvalue > 1e-3


def test_the_ends_of_the_unit_interval_draw_tokens_with_probability() -> None:
    logits = torch.full((2, 600), -torch.inf)
    logits[:, 300], logits[:, 599] = 0.0, 0.0
    assert draw(logits, torch.tensor([0.0, 1 - 1e-7]), 1.0, 1.0)[0].tolist() == [300, 599]


def test_a_nucleus_keeps_the_smallest_set_that_reaches_top_p() -> None:
    kept = nucleus(torch.tensor([[0.1, 0.5, 0.15, 0.25]]), 0.7)
    assert kept.tolist() == [[0.0, 0.5, 0.0, 0.25]]
