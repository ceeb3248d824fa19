"""An answer that was cut stays one: said, kept with its ids, trained without an end; lengths must fit the context."""

import json
from pathlib import Path

import pytest
from chat_families import CALLS, FAMILIES, IM, Family, make
from click.testing import CliRunner
from tiny import copy_of, open_run
from transformers import AutoTokenizer, GenerationConfig

from trueup.cli.main import main
from trueup.errors import ModelError, PreflightError
from trueup.feedback import examples
from trueup.feedback.judgement import Thumb
from trueup.models import base
from trueup.run.artifacts import Adapter, Completions, Feedback, write_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import dpo, export


@pytest.fixture(scope="module")
def sampled(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> tuple[Pipeline, str]:
    """A run whose answers were cut at three tokens, and what `trueup sample` printed."""
    folder = copy_of(pipeline, tmp_path_factory.mktemp("cut") / "run")
    overrides = ["--set", "sample.max_new_tokens=3", "--set", "sample.num_completions=4"]
    result = CliRunner().invoke(main, ["sample", str(folder / "run.yaml"), *overrides])
    assert result.exit_code == 0, result.output
    return open_run(folder, *overrides[1::2]), result.output


def test_sample_says_how_many_were_cut_and_what_to_set(sampled: tuple[Pipeline, str]) -> None:
    pipeline, said = sampled
    rows = Completions(pipeline.path("sample")).rows()
    cut = [row for row in rows if row["finish"] == "length"]
    assert 0 < len(cut) <= len(rows) == 24
    assert f"{len(cut)} of 24 answers ({len(cut) / 24:.0%}) were cut at max_new_tokens 3" in " ".join(said.split())
    assert "sample.max_new_tokens" in said
    tokenizer = AutoTokenizer.from_pretrained(pipeline.run.model.base)
    for row in rows:
        assert (row["ids"][-1] == tokenizer.eos_token_id) == (row["finish"] == "eos")
        assert tokenizer.decode(row["ids"], skip_special_tokens=True) == row["completion"]
    record = json.loads((pipeline.path("sample") / "record.json").read_text())["metrics"]
    assert record["num_cut_answers"] == len(cut)
    assert record["sampling"]["end_tokens"] == ["<|im_end|>"]
    assert record["sampling"]["max_new_tokens"] == 3


def test_ids_and_ends_travel_to_training(sampled: tuple[Pipeline, str], tmp_path: Path) -> None:
    pipeline, _ = sampled
    rows = Completions(pipeline.path("sample")).rows()
    thumbs = [Thumb(uid=row["uid"], annotator="a", up=i % 2 == 0) for i, row in enumerate(rows)]
    frozen = examples.build(thumbs, rows, held_out=0)
    known = {row["uid"]: row for row in rows}
    for pair in frozen.pairs:
        for side in ("chosen", "rejected"):
            assert pair[f"{side}_ids"] == known[pair[f"{side}_uid"]]["ids"]
            assert pair[f"{side}_finish"] == known[pair[f"{side}_uid"]]["finish"]
    for row in frozen.rows:
        assert (row["completion_ids"], row["completion_finish"]) == (
            known[row["uid"]]["ids"],
            known[row["uid"]]["finish"],
        )
    write_jsonl(tmp_path / "pairs.jsonl", frozen.pairs)
    context = Context(run=pipeline.run, run_dir=pipeline.folder, out=tmp_path / "out")
    context.out.mkdir()
    policy = Adapter(pipeline.path("sft"))
    metrics = dpo.run(dpo.Config(num_train_epochs=1), context, policy=policy, feedback=Feedback(tmp_path))
    cut = sum("length" in (pair["chosen_finish"], pair["rejected_finish"]) for pair in frozen.pairs)
    assert metrics["preflight"]["num_unfinished"] == cut > 0
    assert metrics["num_pairs"] == len(frozen.pairs)


def test_lengths_are_held_to_the_context_before_anything_is_loaded(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(pipeline, tmp_path / "run")
    model = make(tmp_path / "base", FAMILIES["chatml"], max_position_embeddings=100)
    monkeypatch.setattr("trueup.models.base.load_base", lambda *_, **__: pytest.fail("loaded weights"))
    asked = ["preflight", str(folder / "run.yaml"), "--set", f"model.base={model}", "--set", "name=other"]
    result = CliRunner().invoke(main, [*asked, "--set", "sft.max_length=101"])
    assert result.exit_code == 2
    assert "max_length: 101 tokens" in result.output
    assert "the context of the base, 100 tokens" in " ".join(result.output.split())
    result = CliRunner().invoke(main, [*asked, "--set", "sft.max_length=100"])
    assert (result.exit_code, "sft: good" in result.output) == (0, True)

    where = Context(run=open_run(folder, f"model.base={model}").run, run_dir=tmp_path, out=tmp_path / "sample")
    where.out.mkdir()
    from trueup.stages import sample

    with pytest.raises(PreflightError, match=r"the longest prompt and max_new_tokens together: \d+ tokens"):
        sample.run(sample.Config(max_new_tokens=99), where, policy=Adapter(tmp_path))


def test_ids_without_an_embedding_are_refused_with_both_numbers(tmp_path: Path) -> None:
    folder = make(tmp_path, FAMILIES["chatml"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    assert base.load_tokenizer(str(folder)).model_max_length == 2048
    tokenizer.add_tokens(["<|user|>", "<|bot|>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=rf"ids up to {size + 1}, the model an embedding for {size} "):
        base.load_tokenizer(str(folder))


def test_a_template_of_ones_own_and_tools_train(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = copy_of(pipeline, tmp_path / "run")
    make(folder / "plain", Family("", "<|im_end|>", IM))
    (folder / "chat.jinja").write_text(CALLS)
    tool = {"type": "function", "function": {"name": "price_of", "parameters": {"type": "object", "properties": {}}}}
    call = {"type": "function", "function": {"name": "price_of", "arguments": {"item": "tent"}}}
    turns = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "yes"}]
    end = [{"role": "assistant", "content": "glad"}]
    rows = [{"messages": [{"role": "user", "content": text}, *turns, *end], "tools": [tool]} for text in ("red", "no")]
    write_jsonl(folder / "d.jsonl", rows)
    asked = ["sft", str(folder / "run.yaml"), "--set", "model.base=./plain", "--set", "name=own"]
    asked += ["--set", "data.train_on=all", "--set", "sft.num_train_epochs=1"]
    refused = CliRunner().invoke(main, asked)
    assert (refused.exit_code, "chat template" in refused.output) == (2, True), refused.output
    result = CliRunner().invoke(main, [*asked, "--set", "model.chat_template=chat.jinja"])
    assert result.exit_code == 0, result.output
    # the beginning of the call may be in the middle of a long sample, which is not shown
    assert '"arguments": {"item": "tent"}}</tool_call><|im_end|><<' in result.output


def test_what_is_exported_stops_at_the_trained_end(pipeline: Pipeline, tmp_path: Path) -> None:
    context = Context(run=pipeline.run, run_dir=pipeline.folder, out=tmp_path)
    export.run(export.Config(), context, aligned=Adapter(pipeline.path("sft")))
    ends = GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in (ends if isinstance(ends, list) else [ends])
