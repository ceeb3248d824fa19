"""SFT then DPO and KTO on a tiny 4-bit Llama built here: the proof holds, and planted faults stop the run."""

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import WORDS

from trueup.chat.template import Chat
from trueup.errors import ReferenceProofError, StageError
from trueup.models import adapters, base
from trueup.run.artifacts import Adapter, Feedback, write_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.stage import Context
from trueup.stages import STAGES
from trueup.training import checkpoints, common, gradients, head, losses, proof, trainers


def sft(pipeline: Pipeline) -> Adapter:
    return Adapter(pipeline.path("sft"))


def feedback(folder: Path) -> Feedback:
    prompt = [[{"role": "user", "content": f"{word} rope"}] for word in WORDS]
    common_keys = [{"prompt_id": str(i), "split": "train", "prompt": p, "weight": 1.0} for i, p in enumerate(prompt)]
    write_jsonl(folder / "pairs.jsonl", [row | {"chosen": "yes", "rejected": "no"} for row in common_keys])
    write_jsonl(
        folder / "rows.jsonl",
        [row | {"completion": "yes", "label": i % 2 == 0, "uid": str(i)} for i, row in enumerate(common_keys)],
    )
    return Feedback(folder)


def context(pipeline: Pipeline, out: Path) -> Context:

    out.mkdir(parents=True, exist_ok=True)
    return Context(run=pipeline.run, run_dir=pipeline.folder, out=out)


@pytest.mark.parametrize(("name", "first_loss"), [("dpo", 0.693147), ("kto", 0.5)])
def test_alignment_proves_its_reference_first(pipeline: Pipeline, tmp_path: Path, name: str, first_loss: float) -> None:
    stage = next(stage for stage in STAGES if stage.name == name)
    metrics = stage.run(
        stage.config(), context(pipeline, tmp_path / "out"), policy=sft(pipeline), feedback=feedback(tmp_path)
    )
    assert metrics["reference_proof"]["first_loss"] == pytest.approx(first_loss, abs=1e-3)
    assert metrics["reference_proof"]["max_abs_logp_effect"] > 0.1
    assert metrics["linear4bit_layers"] == 14  # 2 layers of 7 linear maps
    if name == "dpo":  # every prompt prefers yes; KTO's thumbs on it are split here
        assert metrics["train_loss"] < first_loss


@pytest.mark.skipif(torch.cuda.is_available(), reason="what helps only CPUs")
def test_gradients_keep_their_place(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[tuple[torch.Tensor, int]] = []
    place = gradients.place

    def noting(parameters: Iterable[torch.Tensor]) -> None:
        trained = [p for p in parameters if p.requires_grad]
        place(trained)
        placed.extend((p, p.grad.data_ptr()) for p in trained if p.grad is not None)

    monkeypatch.setattr(gradients, "place", noting)
    stage = next(stage for stage in STAGES if stage.name == "dpo")
    config = stage.config(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    metrics = stage.run(config, context(pipeline, tmp_path / "out"), policy=sft(pipeline), feedback=feedback(tmp_path))
    assert metrics["num_steps"] > 2
    assert placed
    assert all(p.grad is not None and p.grad.data_ptr() == where for p, where in placed)


def test_a_completion_in_several_pairs_is_computed_once_and_counts_each_time(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEUP_CPU", "portable")  # the packed forward would share what rows begin with as well
    ids = torch.tensor([[2, 5, 6, 7], [2, 5, 8, 0], [2, 5, 6, 7], [2, 5, 9, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids != 0).long(), "completion_mask": (ids > 5).long()}
    reference, weight = torch.tensor([-3.0, -9.0, -4.0, -2.0]), torch.tensor([1.5, 0.5])

    def grads(shared: bool) -> tuple[list[int], list[torch.Tensor]]:
        torch.manual_seed(0)
        model = adapters.new_adapter(base.load_base(pipeline.run.model.base, four_bit=False), pipeline.run.adapter)
        rows: list[int] = []
        model.get_base_model().model.embed_tokens.register_forward_hook(lambda m, i, out: rows.append(len(i[0])))
        if shared:
            head.install(model.get_base_model())
            policy = trainers.summed_logps(model, batch)
        else:
            logits = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits[:, :-1].float()
            logps = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
            policy = (logps * batch["completion_mask"][:, 1:]).sum(1)
        losses.dpo_loss(policy, reference, weight, beta=0.5).backward()
        return rows, [p.grad for p in model.parameters() if p.grad is not None]

    (plain_rows, expected), (rows, found) = grads(False), grads(True)
    assert (plain_rows, rows) == ([4], [3])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0.05, atol=1e-4)


def test_a_planted_fresh_adapter_stops_the_run(pipeline: Pipeline, tmp_path: Path) -> None:
    model, tokenizer = common.load_policy(context(pipeline, tmp_path), None)
    model.save_pretrained(tmp_path)
    probe = Chat(tokenizer).answer([{"role": "user", "content": "red"}], "yes")
    proof.record_probe(model, tokenizer, [probe], tmp_path)
    model.add_adapter("ref", model.peft_config["default"])
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if ".ref." in name:
            parameter.data = parameters[name.replace(".ref.", ".default.")].data.clone()
    with pytest.raises(ReferenceProofError, match=r"differs from the bare base by only 0\.0000"):
        proof.prove(model, tmp_path)


def test_another_adapter_as_reference_stops_the_run(pipeline: Pipeline, tmp_path: Path) -> None:
    model, _ = common.load_policy(context(pipeline, tmp_path), sft(pipeline))
    model.add_adapter("ref", model.peft_config["default"])
    with pytest.raises(ReferenceProofError, match="tensors hash to"):
        proof.prove(model, sft(pipeline).path)


@pytest.mark.parametrize(("shift", "stops"), [(0.05, False), (0.2, True), (float("nan"), True)])
def test_log_probabilities_far_from_those_recorded_stop_the_run(
    pipeline: Pipeline, tmp_path: Path, shift: float, stops: bool
) -> None:
    start = sft(pipeline)
    model, _ = common.load_policy(context(pipeline, tmp_path), start)
    model.add_adapter("ref", model.peft_config["default"])
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if ".ref." in name:
            parameter.data = parameters[name.replace(".ref.", ".default.")].data.clone()
    moved = tmp_path / "moved"
    shutil.copytree(start.path, moved)
    probe = load_file(moved / "probe.safetensors")
    probe["logps"][probe["labels"][:, 1:] != -100] += shift
    save_file(probe, moved / "probe.safetensors")
    if not stops:
        assert proof.prove(model, moved)["mean_abs_logp_drift"] == pytest.approx(shift, abs=0.02)
        return
    with pytest.raises(ReferenceProofError, match="nats per token from those recorded"):
        proof.prove(model, moved)


def test_an_eval_forward_leaves_4_bit_weights_and_gradients_whole(pipeline: Pipeline) -> None:
    ids = torch.arange(2, 34).reshape(1, 32)

    def grads(eval_first: bool) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = adapters.new_adapter(base.load_base(pipeline.run.model.base, four_bit=True), pipeline.run.adapter)
        if eval_first:
            with torch.no_grad():
                model.eval()(ids)
        model.train()
        model(ids, labels=ids).loss.backward()
        return [p.grad for p in model.parameters() if p.requires_grad]

    for expected, found in zip(grads(False), grads(True), strict=True):
        torch.testing.assert_close(found, expected)


def test_a_second_call_skips_and_a_changed_config_refuses(pipeline: Pipeline) -> None:

    assert pipeline.execute("sft") is False
    section = pipeline.run.section("sft").model_copy(update={"learning_rate": 0.5})
    changed = Pipeline(pipeline.run.model_copy(update={"sft": section}), STAGES, pipeline.folder.parent)
    with pytest.raises(StageError, match=r"learning_rate 0.01 -> 0.5 since this was built"):
        changed.execute("sft")


def test_a_torn_checkpoint_is_skipped(tmp_path: Path) -> None:

    for step in (10, 20):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text(f"step {step}")
        checkpoints.seal(folder)
    (tmp_path / "checkpoint-20" / "weights").write_text("ste")
    assert checkpoints.latest_whole(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-20").exists()
