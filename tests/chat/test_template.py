"""The tokens of each family are those of its own template; the prompt ends where the answer begins.

What is expected comes from transformers' apply_chat_template and its tokenizer, called plainly.
"""

from typing import Any

import pytest
from chat_families import CALLS, CHATML, DROPS_THOUGHT, FAMILIES, IM, MARKED, Family, make_tokenizer

from trueup.chat import ending, rows
from trueup.chat.template import Chat, Refused
from trueup.errors import ModelError, PreflightError

ASKED = [{"role": "user", "content": "red blue"}]
ANSWERS = ["glad red", "glad\n\nblue", "é数", "a  b"]
SPACED = ["\n\nglad", " glad red", "glad \n"]


def chat_of(name: str) -> Chat:
    tokenizer = make_tokenizer(FAMILIES[name])
    ending.settle(tokenizer, name, None)
    return Chat(tokenizer)


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def dialogue(*texts: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(texts)]


def read(chat: Chat, ids: list[int]) -> str:
    text: str = chat.tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_conversation_is_what_the_template_writes(name: str, answer: str) -> None:
    chat, plain = chat_of(name), make_tokenizer(FAMILIES[name])
    whole = plain.apply_chat_template([*ASKED, assistant(answer)], tokenize=True, return_dict=False)
    prompt = plain.apply_chat_template(ASKED, add_generation_prompt=True, tokenize=True, return_dict=False)
    found = chat.answer(ASKED, answer)
    assert found.ids == whole
    assert found.prompt == prompt == chat.prompt(ASKED)
    assert found.labels == [-100] * len(prompt) + whole[len(prompt) :]
    assert plain.convert_tokens_to_ids(FAMILIES[name].end) in found.answer
    assert found.notes == ()


@pytest.mark.parametrize("answer", SPACED)
@pytest.mark.parametrize("name", FAMILIES)
def test_white_space_of_an_answer_is_the_answers(name: str, answer: str) -> None:
    chat = chat_of(name)
    written = chat.tokenizer.apply_chat_template([*ASKED, assistant(answer)], tokenize=False)
    prompt = chat.tokenizer.apply_chat_template(ASKED, add_generation_prompt=True, tokenize=True, return_dict=False)
    found = chat.answer(ASKED, answer)
    assert found.prompt == prompt  # as it is sampled from, whatever comes next
    assert read(chat, found.ids) == read(chat, chat.tokenizer(written, add_special_tokens=False)["input_ids"])
    assert ("space" in found.notes) == (name in ("gemma", "llama_3"))  # whose templates trim it


def test_tokens_that_would_merge_across_the_border_are_kept_apart() -> None:
    chat = chat_of("chatml")
    whole = chat.tokenizer.apply_chat_template([*ASKED, assistant("\n\nglad")], tokenize=True, return_dict=False)
    prompt = chat.prompt(ASKED)
    assert whole[: len(prompt)] != prompt  # one token holds the template's line end and the answer's
    found = chat.answer(ASKED, "\n\nglad")
    assert found.prompt == prompt
    assert read(chat, found.answer) == "\n\nglad<|im_end|>\n"


@pytest.mark.parametrize("answer", [*ANSWERS, *SPACED])
@pytest.mark.parametrize("name", FAMILIES)
def test_sampled_ids_stay_as_they_are_and_read_as_the_message_that_would_be_written(name: str, answer: str) -> None:
    chat = chat_of(name)
    written = chat.answer(ASKED, answer)
    end = written.answer.index(chat.tokenizer.eos_token_id) + 1
    sampled = written.answer[:end]
    found = chat.sampled(ASKED, sampled, finished=True)
    assert found.ids == written.ids  # the end of the conversation included
    shown = chat.shown(found.prompt, sampled[:-1])
    assert shown == (answer.strip() if "space" in written.notes else answer)


def test_ids_that_no_tokenizer_would_choose_are_kept() -> None:
    chat = chat_of("zephyr")
    red = chat.tokenizer.convert_tokens_to_ids(["r", "e", "d", "</s>"])
    assert chat.sampled(ASKED, red, finished=True).answer[:4] == red
    assert chat.answer(ASKED, "red").answer[:4] != red


@pytest.mark.parametrize("name", FAMILIES)
def test_a_cut_answer_has_no_end_to_learn(name: str) -> None:
    chat = chat_of(name)
    ids = chat.answer(ASKED, "glad red").answer
    end = chat.tokenizer.eos_token_id
    for found in (
        chat.answer(ASKED, "glad red", finished=False),
        chat.sampled(ASKED, ids[: ids.index(end)], finished=False),
    ):
        assert found.answer == ids[: ids.index(end)]
        assert not found.finished


def test_the_turns_end_is_learnt_where_eos_is_another_token() -> None:
    tokenizer = make_tokenizer(FAMILIES["gemma"])
    assert tokenizer.eos_token == "<eos>"
    ending.settle(tokenizer, "base", None)
    assert tokenizer.eos_token == "<end_of_turn>"


def test_every_end_stops_and_an_ordinary_word_does_not() -> None:
    from types import SimpleNamespace

    tokenizer = chat_of("llama_3").tokenizer
    ids = tokenizer.convert_tokens_to_ids(["<|eot_id|>", "<|end_of_text|>", "red"])
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=ids[::-1]))
    assert ending.end_ids(tokenizer, model) == (ids[0], ids[1])
    model.generation_config.eos_token_id = ids[1]
    assert ending.end_ids(tokenizer, model) == (ids[0], ids[1])
    assert ending.end_ids(tokenizer) == (ids[0],)


@pytest.mark.parametrize(
    ("change", "eos_token", "says", "way_on"),
    [
        ({"chat_template": None}, None, "no chat template", "model.chat_template"),
        ({"chat_template": {"rag": CHATML, "tool": CHATML}}, None, "named rag, tool, and no default", "rag.jinja"),
        ({"eos_token": None}, None, "names no end token", 'model.eos_token: "<|im_end|>"'),
        ({"chat_template": CHATML.replace("<|im_end|>", "")}, None, "writes no end token", "model.chat_template"),
        ({"chat_template": "{% for %}"}, None, "does not take a question and its answer", "model.chat_template"),
        ({"chat_template": "{{ messages[0].content }}"}, None, "leaves out what the assistant says", "chat_template"),
        ({}, "<|nowhere|>", "is no token of this model's vocabulary", "model.eos_token"),
        ({}, "<|im_start|>", r"'<\|im_start\|>', but the chat template ends an answer with", "model.eos_token"),
    ],
)
def test_without_a_template_or_an_end_there_is_one_message_with_a_way_on(
    change: dict[str, Any], eos_token: str | None, says: str, way_on: str
) -> None:
    tokenizer = make_tokenizer(FAMILIES["chatml"])
    for name, value in change.items():
        setattr(tokenizer, name, value)
    with pytest.raises(ModelError, match=says) as caught:
        ending.settle(tokenizer, "model.base: x", eos_token)
    assert way_on in caught.value.next_step


def test_the_run_file_may_name_the_end_and_a_default_template_is_taken() -> None:
    tokenizer = make_tokenizer(FAMILIES["chatml"])
    tokenizer.eos_token = None
    ending.settle(tokenizer, "base", "<|im_end|>")
    assert tokenizer.eos_token == "<|im_end|>"
    tokenizer.chat_template = {"default": CHATML, "rag": "{{ messages[0].content }}"}
    ending.settle(tokenizer, "base", None)
    whole = make_tokenizer(FAMILIES["chatml"]).apply_chat_template([*ASKED, assistant("yes")], return_dict=False)
    assert Chat(tokenizer).answer(ASKED, "yes").ids == whole


def test_a_thought_that_the_template_drops_is_named_and_one_that_it_keeps_is_not() -> None:
    thought = "<think>red\nor blue</think> glad"
    kept = chat_of("qwen_3").answer(ASKED, thought)
    assert kept.notes == ("space",)  # the template sets a thought in lines of its own
    dropping = Family(DROPS_THOUGHT, "<|im_end|>", IM)
    chat = Chat(make_tokenizer(dropping))
    assert chat.answer(ASKED, thought).notes == ("answer_lost",)
    found = rows.demonstrations(chat, [{"id": "a", "messages": [*ASKED, assistant(thought)]}], 100)
    with pytest.raises(PreflightError, match=r"leaves part of the answer out.*1 of 1 samples \(a\)"):
        found.refuse("sft")
    history = chat_of("qwen_3").answer([*ASKED, assistant(thought), *ASKED], "yes")
    assert history.notes == ("history",)  # as it will be when the model is used


def test_pairs_that_are_equal_after_the_template_are_no_pairs() -> None:
    chat = Chat(make_tokenizer(Family(DROPS_THOUGHT, "<|im_end|>", IM)))
    pair = {"prompt_id": "p", "prompt": ASKED, "weight": 1.0}
    equal = pair | {"chosen": "<think>red</think> glad", "rejected": "<think>blue</think> glad"}
    other = pair | {"chosen": "glad", "rejected": "sorry"}
    for whole in (False, True):
        found = rows.pairs(chat, [other, equal, other], 100, whole=whole)
        assert [row["id"] for row in found.rows] == ["p/0", "p/2"]
        assert found.found.ids["equal"] == ["p/1"]
    with pytest.raises(PreflightError, match="chosen and rejected are the same tokens"):
        rows.pairs(chat, [equal], 100).refuse("dpo")


def test_a_prompt_that_is_not_how_the_conversation_begins_is_refused() -> None:
    tokenizer = make_tokenizer(FAMILIES["chatml"])
    tokenizer.chat_template = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif")
    with pytest.raises(Refused) as caught:
        Chat(tokenizer).answer(ASKED, "yes")
    assert caught.value.kind == "prefix"
    assert "<think>" in caught.value.detail


TURNS = dialogue("red", "glad red", "green", "sorry green", "bye", "yes")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "qwen_3"])
def test_all_turns_are_labelled_with_their_ends_by_prefixes(name: str) -> None:
    chat = chat_of(name)
    found = chat.dialogue(TURNS)
    plain = make_tokenizer(FAMILIES[name])
    assert found.ids == plain.apply_chat_template(TURNS, tokenize=True, return_dict=False)
    spans = labelled(found.labels)
    texts = [read(chat, span).strip().replace(" </s>", "</s>") for span in spans]
    assert texts == [f"{text}{FAMILIES[name].end}" for text in ("glad red", "sorry green", "yes")]


def labelled(labels: list[int]) -> list[list[int]]:
    """The runs of labels that are trained."""
    spans: list[list[int]] = []
    for before, label in zip([-100, *labels], labels, strict=False):
        if label != -100:
            spans = [*spans, []] if before == -100 else spans
            spans[-1].append(label)
    return spans


def test_examples_of_the_run_file_are_no_turns_to_train() -> None:
    found = rows.demonstrations(chat_of("chatml"), [{"id": "a", "messages": TURNS}], 200, train_on="all", num_shots=1)
    chat = chat_of("chatml")
    assert [read(chat, span).split("<")[0] for span in labelled(found.rows[0]["labels"])] == ["sorry green", "yes"]


def test_the_last_turn_alone_is_the_default_and_the_others_are_counted() -> None:
    chat = chat_of("chatml")
    found = rows.demonstrations(chat, [{"id": "a", "messages": TURNS}], 200)
    assert [read(chat, span).split("<")[0] for span in labelled(found.rows[0]["labels"])] == ["yes"]
    assert found.num_turns_not_trained == 2


EARLIER = "{{ m['role'] }}{{ '' if loop.last or m['role'] == 'user' else ' (earlier)' }}"  # not as it was prompted


def test_a_thought_of_an_earlier_turn_cannot_be_trained_where_it_is_dropped() -> None:
    turns = dialogue("red", "<think>red</think>glad", "green", "yes")
    found = rows.demonstrations(chat_of("qwen_3"), [{"id": "a", "messages": turns}], 200, train_on="all")
    with pytest.raises(PreflightError, match="leaves part of the answer out"):
        found.refuse("sft")


def test_generation_marks_say_what_the_assistant_wrote() -> None:
    chat = Chat(make_tokenizer(Family(MARKED.replace("{{ m['role'] }}", EARLIER), "<|im_end|>", IM)))
    found = chat.dialogue(TURNS)
    expected = chat.tokenizer.apply_chat_template(
        TURNS, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    assert found.ids == expected["input_ids"]
    assert [label != -100 for label in found.labels] == [bool(kept) for kept in expected["assistant_masks"]]
    kept = chat.dialogue(TURNS, first=2)
    assert [read(chat, span).split("<")[0] for span in labelled(kept.labels)] == ["sorry green", "yes"]


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        (CHATML, "turns"),
        (CHATML.replace("{{ m['content'] }}", "{% generation %}{{ m['content'] }}{% endgeneration %}"), "marks"),
        (MARKED.replace("<|im_end|>\n{% endgeneration %}", "{% endgeneration %}<|im_end|>\n"), "marks"),
    ],
)
def test_where_neither_prefixes_nor_marks_find_the_turns_they_are_not_trained(template: str, kind: str) -> None:
    chat = Chat(make_tokenizer(Family(template.replace("{{ m['role'] }}", EARLIER), "<|im_end|>", IM)))
    with pytest.raises(Refused) as caught:
        chat.dialogue(TURNS)
    assert caught.value.kind == kind


CALL = {"function": {"name": "price_of", "arguments": {"item": "tent", "count": 3}}}
TOOL = {"type": "function", "function": {"name": "price_of", "parameters": {"type": "object", "properties": {}}}}


def test_tools_and_calls_are_trained_where_the_template_writes_them_and_refused_elsewhere() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    writes = Chat(make_tokenizer(Family(CALLS, "<|im_end|>", IM)))
    found = writes.answer(ASKED, message, [TOOL])
    assert found.notes == ()
    assert '"item": "tent"' in read(writes, found.answer)
    assert found.ids == writes.tokenizer.apply_chat_template([*ASKED, message], tools=[TOOL], return_dict=False)
    drops = Chat(make_tokenizer(FAMILIES["chatml"]))
    assert drops.answer(ASKED, message | {"content": "Let me see."}, [TOOL]).notes == ("calls", "tools")
    row = {"id": "a", "messages": [*ASKED, message | {"content": "Let me see."}], "tools": [TOOL]}
    with pytest.raises(PreflightError, match=r"leaves tool calls out.*\n.*leaves the tools out"):
        rows.demonstrations(drops, [row], 100).refuse("sft")
