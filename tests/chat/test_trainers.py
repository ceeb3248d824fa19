"""What the real trainers train on, by family: the collated batch holds the template's own tokens, rightly labelled.

What is expected is transformers' apply_chat_template on the messages, or the ids that were sampled.
"""

from pathlib import Path
from typing import Any

import pytest
from chat_families import FAMILIES, make
from transformers import AutoTokenizer

from trueup.chat import preflight
from trueup.run.artifacts import Adapter, Feedback, write_jsonl
from trueup.run.run_file import RunFile, load
from trueup.run.stage import Checked, Context
from trueup.stages import STAGES, dpo, kto, reward, sft

ASKED = ["red", "green blue", "tent\nboot", "rope?"]
CHOSEN = ["glad red", "glad\n\nblue", "yes é", "yes  yes"]
REJECTED = ["sorry", "no no no", " no", "no\n"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name), family) for name, family in FAMILIES.items()}


def messages(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def run_file(base: Path, folder: Path, data: str = "") -> RunFile:
    write_jsonl(folder / "d.jsonl", [{"prompt": p, "response": c} for p, c in zip(ASKED, CHOSEN, strict=True)])
    (folder / "run.yaml").write_text(f"name: t\nmodel: {{base: {base}}}\ndata: {{demonstrations: d.jsonl{data}}}\n")
    return load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})


def batches(
    stage: Any, config: Any, run: RunFile, folder: Path, monkeypatch: pytest.MonkeyPatch, **inputs: Any
) -> list[dict[str, Any]]:
    """Every collated batch of the stage's trainer, without padding: rows of ids, and of labels or None."""
    seen: list[Any] = []
    plain = preflight.check
    monkeypatch.setattr(preflight, "check", lambda trainer, *more: (seen.append(trainer), plain(trainer, *more))[1])
    out = folder / stage.STAGE.name
    out.mkdir()
    with pytest.raises(Checked):
        stage.run(config, Context(run=run, run_dir=folder, out=out, only_preflight=True), **inputs)
    trainer = seen[0]
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(trainer.train_dataset))])
    labels = batch.get("labels")
    if labels is None and "completion_mask" in batch:
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    rows = []
    for i, mask in enumerate(batch["attention_mask"].bool()):
        row = {"ids": batch["input_ids"][i][mask].tolist()}
        rows.append(row | {"labels": None if labels is None else labels[i][mask].tolist()})
    return rows


def expected(tokenizer: Any, prompt: str, answer: str) -> tuple[list[int], str]:
    """(ids of the prompt as it is sampled from, the whole conversation as text of its tokens)."""
    ids = tokenizer.apply_chat_template(messages(prompt), add_generation_prompt=True, tokenize=True, return_dict=False)
    whole = [*messages(prompt), {"role": "assistant", "content": answer}]
    return ids, tokenizer.decode(tokenizer.apply_chat_template(whole, tokenize=True, return_dict=False))


def agrees(row: dict[str, Any], tokenizer: Any, name: str, prompt: str, answer: str) -> None:
    begun, written = expected(tokenizer, prompt, answer)
    ids, labels = row["ids"], row["labels"]
    assert tokenizer.decode(ids) == written
    assert ids[: len(begun)] == begun
    if labels is not None:
        assert labels == [-100] * len(begun) + ids[len(begun) :]
    assert tokenizer.convert_tokens_to_ids(FAMILIES[name].end) in ids[len(begun) :]


@pytest.fixture
def feedback(tmp_path: Path) -> Feedback:
    pairs = [
        {"prompt_id": f"p{i}", "split": "train", "prompt": messages(p), "chosen": c, "rejected": r, "weight": 1.0}
        for i, (p, c, r) in enumerate(zip(ASKED, CHOSEN, REJECTED, strict=True))
    ]
    thumbs = [
        {"prompt_id": f"p{i}", "split": "train", "prompt": messages(p), "completion": c, "label": i % 2 == 0}
        | {"weight": 1.0, "uid": f"u{i}"}
        for i, (p, c) in enumerate(zip(ASKED, CHOSEN, strict=True))
    ]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    write_jsonl(tmp_path / "rows.jsonl", thumbs)
    return Feedback(tmp_path)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_trainer_gets_the_templates_tokens(
    name: str, bases: dict[str, Path], feedback: Feedback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, run = AutoTokenizer.from_pretrained(bases[name]), run_file(bases[name], tmp_path)
    policy = Adapter(tmp_path)

    rows = batches(sft, sft.Config(held_out_fraction=0.01), run, tmp_path, monkeypatch)
    assert len(rows) == 3  # one prompt is held out
    texts = {expected(tokenizer, p, c)[1]: (p, c) for p, c in zip(ASKED, CHOSEN, strict=True)}
    for row in rows:
        agrees(row, tokenizer, name, *texts[tokenizer.decode(row["ids"])])

    sides = [*zip(ASKED, CHOSEN, strict=True), *zip(ASKED, REJECTED, strict=True)]
    for stage, config in ((dpo, dpo.Config()), (reward, reward.Config())):
        rows = batches(stage, config, run, tmp_path, monkeypatch, policy=policy, feedback=feedback)
        for row, (prompt, answer) in zip(rows, sides, strict=True):
            agrees(row, tokenizer, name, prompt, answer)

    rows = batches(kto, kto.Config(), run, tmp_path, monkeypatch, policy=policy, feedback=feedback)
    for row, (prompt, answer) in zip(rows, zip(ASKED, CHOSEN, strict=True), strict=True):
        agrees(row, tokenizer, name, prompt, answer)


@pytest.mark.parametrize("finish", ["eos", "length"])
def test_sampled_ids_are_trained_as_they_are_and_a_cut_answer_has_no_end(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finish: str
) -> None:
    tokenizer, run = AutoTokenizer.from_pretrained(bases["zephyr"]), run_file(bases["zephyr"], tmp_path)
    end = [tokenizer.eos_token_id] if finish == "eos" else []
    yes, no = (tokenizer.convert_tokens_to_ids(list(text)) + end for text in ("red", "no"))  # a letter at a time
    pair = {"prompt_id": "p", "split": "train", "prompt": messages("red"), "weight": 1.0, "chosen": "red"}
    pair |= {
        "rejected": "no",
        "chosen_ids": yes,
        "rejected_ids": no,
        "chosen_finish": finish,
        "rejected_finish": finish,
    }
    thumb = {"prompt_id": "p", "split": "train", "prompt": messages("red"), "weight": 1.0, "completion": "red"}
    thumb |= {"completion_ids": yes, "completion_finish": finish}
    write_jsonl(tmp_path / "pairs.jsonl", [pair])
    write_jsonl(tmp_path / "rows.jsonl", [thumb | {"label": up, "uid": f"u{up}"} for up in (True, False)])
    inputs = {"policy": Adapter(tmp_path), "feedback": Feedback(tmp_path)}
    begun, _ = expected(tokenizer, "red", "red")
    for stage in (dpo, kto, reward):
        rows = batches(stage, stage.Config(), run, tmp_path, monkeypatch, **inputs)
        for row, ids in zip(rows, (yes, yes) if stage is kto else (yes, no), strict=True):
            assert row["ids"][: len(begun) + len(ids)] == begun + ids
            rest = row["ids"][len(begun) + len(ids) :]
            assert tokenizer.decode(rest).strip() == ""  # what the template writes after an end
            assert bool(rest) == (finish == "eos")
            if row["labels"] is not None:
                assert row["labels"] == [-100] * len(begun) + row["ids"][len(begun) :]


def test_rows_whose_whole_answer_is_cut_off_are_left_out_and_counted(
    bases: dict[str, Path], feedback: Feedback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, policy = run_file(bases["chatml"], tmp_path), Adapter(tmp_path)
    pairs, thumbs = feedback.pairs("train"), feedback.rows("train")
    long = {"prompt": messages("red " * 80)}
    write_jsonl(tmp_path / "pairs.jsonl", [*pairs, pairs[0] | long])
    write_jsonl(tmp_path / "rows.jsonl", [*thumbs, thumbs[0] | long | {"uid": "long"}])
    for stage, left_out in ((dpo, "p0/4"), (kto, "long"), (reward, "p0/4")):
        out = tmp_path / f"checked-{stage.STAGE.name}"
        out.mkdir()
        with pytest.raises(Checked) as caught:
            context = Context(run=run, run_dir=tmp_path, out=out, only_preflight=True)
            stage.run(stage.Config(max_length=60), context, policy=policy, feedback=feedback)
        found = caught.value.metrics
        assert (found["num_samples"], found["dropped"], found["num_dropped"]) == (4, [left_out], 1)
        reason = "longer than max_length" if stage is reward else "the whole answer lies beyond max_length"
        assert any(reason in warning for warning in found["warnings"])


def test_a_dialogues_turns_train_as_the_run_file_says(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bases["zephyr"])
    turns = [("user", "red"), ("assistant", "glad red"), ("user", "bye"), ("assistant", "yes")]
    dialogue = [{"role": role, "content": text} for role, text in turns]
    for train_on, answers in (("last", ["yes"]), ("all", ["glad red", "yes"])):
        folder = tmp_path / train_on
        folder.mkdir()
        run = run_file(bases["zephyr"], folder, f", train_on: {train_on}")
        other = [dialogue[0] | {"content": "green"}, *dialogue[1:]]
        write_jsonl(folder / "d.jsonl", [{"messages": one} for one in (dialogue, other)])
        (row,) = batches(sft, sft.Config(), run, folder, monkeypatch)
        trained = tokenizer.decode([label for label in row["labels"] if label != -100])
        assert [part.strip() for part in trained.split("</s>")][:-1] == answers
