"""A task of the user's own through the real lm-eval, against transformers' own log-probabilities."""

import json
import shutil
from pathlib import Path

import plain
import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file
from scipy import stats
from tiny import WORDS, make_run
from transformers import AutoModelForCausalLM

from trueup.errors import ConfigError
from trueup.evaluation import lm_tasks
from trueup.models import adapters, base

TASK = """
task: ours
dataset_path: json
dataset_kwargs: {data_files: {test: questions.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "<|im_start|>user\\n{{q}}<|im_end|>\\n<|im_start|>assistant\\n"
target_delimiter: ""
doc_to_choice: [glad, sorry]
doc_to_target: label
metric_list: [{metric: acc}]
"""
QUESTIONS = [
    {"q": f"{a} {b}", "label": int((i + j) % 3 == 0)} for i, a in enumerate(WORDS) for j, b in enumerate(WORDS[:4])
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tasks")
    (place / "ours.yaml").write_text(TASK)
    (place / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    return place


def right(folder: Path, adapter: Path) -> list[float]:
    """Of each question, 1 where transformers' own forward in fp32 finds the right answer likelier."""
    tokenizer = base.load_tokenizer(str(folder / "model"))
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter))
    found = []
    for row in QUESTIONS:
        before = f"<|im_start|>user\n{row['q']}<|im_end|>\n<|im_start|>assistant\n"
        asked, scores = tokenizer(before)["input_ids"], []
        for choice in ("glad", "sorry"):
            ids = tokenizer(before + choice)["input_ids"]
            with torch.no_grad():
                logps = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            scores.append(sum(float(logps[i - 1, ids[i]]) for i in range(len(asked), len(ids))))
        found.append(float((scores[1] > scores[0]) == bool(row["label"])))
    return found


def test_a_task_of_ones_own_is_answered_as_transformers_would(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("lm_eval", reason="an optional extra: trueup[lm-eval]")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    make_run(folder, sft_epochs=1)
    sft = folder / "runs/tiny/sft"
    tokenizer = base.load_tokenizer(str(folder / "model"))
    bare = base.load_base(str(folder / "model"), four_bit=False)
    other = folder / "other"
    shutil.copytree(sft, other)
    turned = {name: -tensor if "lora_B" in name else tensor for name, tensor in plain.saved(sft).items()}
    save_file(turned, other / "adapter_model.safetensors")
    model = adapters.load_adapter(bare, other, trainable=False)
    adapters.load_frozen(model, sft, "sft")
    (found,) = lm_tasks.measure(model, tokenizer, ["ours.yaml"], None, folder, lambda done: None).values()
    before, after = right(folder, sft), right(folder, other)
    assert found["metric"] == "acc" and found["num_questions"] == len(QUESTIONS)
    near = 1.5 / len(QUESTIONS)  # bf16 may turn a question whose answers are as good as alike
    assert found["sft"] == pytest.approx(sum(before) / len(before), abs=near)
    assert found["aligned"] == pytest.approx(sum(after) / len(after), abs=near)
    assert abs(found["sft"] - found["aligned"]) > 0.1
    exact = stats.ttest_rel(after, before).confidence_interval(0.95)
    assert found["gain_over_sft"]["low"] == pytest.approx(exact.low, abs=2 * near)
    with pytest.raises(ConfigError, match="lm-eval knows no task no_such_task"):
        lm_tasks.measure(model, tokenizer, ["no_such_task"], None, folder, lambda done: None)


@pytest.mark.parametrize(
    ("text", "found"),
    [(None, "No such file"), ("task: [", "ParserError"), ("a: 1", "no name"), ("task: !function x.y", "Constructor")],
)
def test_a_file_that_is_no_task_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, found: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    if text is not None:
        (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(ConfigError, match=found):
        lm_tasks.refuse(["t.yaml"], tmp_path)


def test_without_lm_eval_the_command_that_installs_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'trueup\[lm-eval\]'"):
        lm_tasks.refuse(["arc_easy"], tmp_path)
    lm_tasks.refuse([], tmp_path)
