"""What was sampled is what is scored, and nothing of the base's own settings but its end tokens has a say in it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_families import FAMILIES, make
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from trueup.chat.template import Chat
from trueup.cpu import decoder, precision
from trueup.errors import StageError
from trueup.evaluation import compare
from trueup.models import base, scoring
from trueup.online import prompts, rewards
from trueup.sampling.kept import Kept
from trueup.sampling.sample import sample
from trueup.sampling.types import Sampled, Sampling

PROMPTS = [[{"role": "user", "content": text}] for text in ("red", "green blue", "tent\nboot", "no", "yes yes")]
GREEDY = {"max_new_tokens": 12, "temperature": 0.0, "top_p": 1.0, "batch_size": 3, "seed": 0}


def policy(folder: Path, **changes: Any) -> tuple[Any, Any]:
    """(a model with a random adapter, its tokenizer); `changes` go into its generation_config.json."""
    config = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(config | changes))
    torch.manual_seed(0)
    asked = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = get_peft_model(base.load_base(str(folder), four_bit=False), asked).eval()
    return model, base.load_tokenizer(str(folder))


@pytest.fixture(scope="module")
def zephyr(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return policy(make(tmp_path_factory.mktemp("zephyr"), FAMILIES["zephyr"]))


def test_generate_takes_nothing_from_the_base_but_its_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: False)
    folder = make(tmp_path / "base", FAMILIES["chatml"])
    penalties = {"repetition_penalty": 1.8, "no_repeat_ngram_size": 2, "suppress_tokens": [20], "min_new_tokens": 12}
    model, tokenizer = policy(folder, **penalties)
    assert model.get_base_model().generation_config.repetition_penalty == 1.8
    ours, theirs = (
        sample(model, tokenizer, PROMPTS, Sampling(**GREEDY | {"engine": name})) for name in ("auto", "generate")
    )
    assert [answer.ids for answer in theirs] == [answer.ids for answer in ours]
    assert model.get_base_model().generation_config.repetition_penalty == 1.8  # put back
    for prompt, answer in zip(PROMPTS, theirs, strict=True):  # a step of plain argmax after the other
        ids = Chat(tokenizer).prompt(prompt)
        for token in answer.ids:
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
            assert logits[token] > logits.max() - 0.05  # bf16
            ids.append(token)


@pytest.mark.parametrize("engine", ["auto", "generate"])
@pytest.mark.parametrize("end", ["<|eot_id|>", "<|end_of_text|>"])
def test_an_answer_ends_at_any_of_the_ends(tmp_path: Path, engine: str, end: str) -> None:
    folder = make(tmp_path / "base", FAMILIES["llama_3"], tie_word_embeddings=False)
    model, tokenizer = policy(folder)
    with torch.no_grad():  # whatever comes before, this token is next
        model.get_base_model().lm_head.weight.zero_()
        row = model.get_base_model().lm_head.weight[tokenizer.convert_tokens_to_ids(end)]
        hidden = model.get_base_model().model(input_ids=torch.tensor([Chat(tokenizer).prompt(PROMPTS[0])]))
        row.copy_(10 * hidden.last_hidden_state[0, -1])
    (answer,) = sample(model, tokenizer, PROMPTS[:1], Sampling(**GREEDY | {"engine": engine}))
    assert (answer.text, answer.ids, answer.finish) == ("", [tokenizer.convert_tokens_to_ids(end)], "eos")


def test_the_text_keeps_its_white_space_and_names_how_it_ended(zephyr: tuple[Any, Any]) -> None:
    model, tokenizer = zephyr
    plain = AutoTokenizer.from_pretrained(model.get_base_model().name_or_path)
    done = sample(model, tokenizer, PROMPTS * 4, Sampling(**GREEDY | {"temperature": 2.0, "max_new_tokens": 30}))
    assert {answer.finish for answer in done} == {"eos", "length"}
    for prompt, answer in zip(PROMPTS * 4, done, strict=True):
        before = plain.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
        content = answer.ids[:-1] if answer.finish == "eos" else answer.ids
        whole, begun = (plain.decode(ids, skip_special_tokens=True) for ids in (before + content, before))
        assert answer.text == whole.removeprefix(begun)
        assert (answer.ids[-1] == plain.eos_token_id) == (answer.finish == "eos")


def test_kl_is_of_the_sampled_ids_at_the_sampling_temperature(zephyr: tuple[Any, Any]) -> None:
    model, tokenizer = zephyr
    chat = Chat(tokenizer)
    letters = tokenizer.convert_tokens_to_ids([*list("red"), "</s>"])  # not the tokens its text would become
    cut = tokenizer.convert_tokens_to_ids(list("gla"))
    done = [Sampled("red", letters, 0.0, "eos"), Sampled("gla", cut, 0.0, "length")]
    model.add_adapter("sft", LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], init_lora_weights=False))
    found = compare.kl_to_both(model, tokenizer, PROMPTS[:2], done, 0.5)["kl_nats_per_token"]
    kls = []
    for prompt, answer in zip(PROMPTS, done, strict=False):
        before = chat.prompt(prompt)
        logps = {}
        for name in ("default", "sft"):
            model.set_adapter(name)
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([before + answer.ids])).logits[0, len(before) - 1 : -1]
            logps[name] = torch.log_softmax(logits.double() / 0.5, -1)
        kls.append((logps["default"].exp() * (logps["default"] - logps["sft"])).sum(-1))
    model.set_adapter("default")
    model.delete_adapter("sft")
    assert found == pytest.approx(torch.cat(kls).mean().item(), rel=0.05)  # bf16


def test_evaluation_and_ppo_score_the_ids_that_were_sampled(
    zephyr: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = zephyr
    seen: list[list[int]] = []

    def score(model: Any, head: Any, conversations: list[list[int]], name: str = "reward") -> torch.Tensor:
        seen.extend(conversations)
        return torch.zeros(len(conversations))

    monkeypatch.setattr(scoring, "scores", score)
    plain = AutoTokenizer.from_pretrained(model.get_base_model().name_or_path)
    before = plain.apply_chat_template(PROMPTS[0], add_generation_prompt=True, tokenize=True, return_dict=False)
    whole = [*PROMPTS[0], {"role": "assistant", "content": "yes"}]
    templated = plain.apply_chat_template(whole, tokenize=True, return_dict=False)
    after = templated[len(templated) - templated[::-1].index(plain.eos_token_id) :]  # what follows an end
    letters, cut = (tokenizer.convert_tokens_to_ids(list(text)) for text in ("red", "gla"))
    ended, going = [*letters, plain.eos_token_id], cut
    expected = [before + ended + after, before + going]
    answers = {"sft": [Sampled("red", ended, 0.0, "eos")], "aligned": [Sampled("gla", going, 0.0, "length")]}
    compare.rewards_of_each(model, None, tokenizer, PROMPTS[:1], answers)
    assert sorted(seen) == sorted(expected)

    seen.clear()
    chat = Chat(tokenizer)
    part = rewards.Part("model", 1.0, rewards.OfModel(model, None, tokenizer, 2))
    encoded = [chat.sampled(PROMPTS[0], ids, finished=ids is ended) for ids in (ended, going)]
    part([PROMPTS[0]] * 2, ["red", "gla"], encoded)
    assert sorted(seen) == sorted(expected)
    asked, _ = prompts.encode(tokenizer, [{"id": "p", "messages": PROMPTS[0]}], 100)
    assert asked[0].ids == before


def test_a_prompt_and_its_answer_must_fit_the_context(tmp_path: Path) -> None:
    model, tokenizer = policy(make(tmp_path / "base", FAMILIES["chatml"], max_position_embeddings=40))
    longest = max(len(Chat(tokenizer).prompt(prompt)) for prompt in PROMPTS)
    sample(model, tokenizer, PROMPTS, Sampling(**GREEDY | {"max_new_tokens": 40 - longest}))
    with pytest.raises(StageError, match=f"prompt of {longest} tokens and max_new_tokens {41 - longest}: 41"):
        sample(model, tokenizer, PROMPTS, Sampling(**GREEDY | {"max_new_tokens": 41 - longest}))


def test_our_decoder_is_what_was_compared(tmp_path: Path) -> None:
    assert decoder.fits(AutoModelForCausalLM.from_pretrained(make(tmp_path, FAMILIES["chatml"])))
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("name", ["auto", "generate"])
def test_a_sampler_that_was_killed_goes_on_behind_its_finished_answers(
    zephyr: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("trueup.sampling.sample.LARGEST_CHUNK", 2)
    sampling = Sampling(**GREEDY | {"engine": name, "temperature": 1.0})
    left_alone = sample(*zephyr, PROMPTS, sampling)
    heard: list[int] = []

    def until_the_second_chunk(done: int) -> None:
        heard.append(done)
        if sum(heard) > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(*zephyr, PROMPTS, sampling, until_the_second_chunk, Kept(tmp_path, "a"))
    file = tmp_path / "a.kept.jsonl"
    (first,) = file.read_bytes().splitlines()
    file.write_bytes(first + b"\n" + first[:40])  # and a line that was torn
    kept, heard = Kept(tmp_path, "a"), []
    assert (kept.num_resumed, kept.seconds > 0) == (2, True)
    assert sample(*zephyr, PROMPTS, sampling, heard.append, kept) == left_alone
    assert sum(heard) == len(PROMPTS)
    assert len(file.read_bytes().splitlines()) == 1 + 1 + 2  # one is kept, one was torn, two are new

    again = Kept(tmp_path, "a")
    monkeypatch.setattr("trueup.sampling.sample.engine", lambda *_: lambda *_: pytest.fail("sampled what is kept"))
    assert sample(*zephyr, PROMPTS, sampling, kept=again) == left_alone
    assert (again.num_resumed, again.seconds) == (5, pytest.approx(kept.seconds))
    words = {"auto": "our decoder on a CPU, the stored weights", "generate": "generate of transformers"}
    assert again.ran == {words[name]: 5}  # what the record says, of both processes
    with pytest.raises(pytest.fail.Exception):
        sample(*zephyr, PROMPTS, Sampling(**vars(sampling) | {"seed": 1}), kept=again)
