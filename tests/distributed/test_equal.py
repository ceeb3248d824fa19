"""Two processes take the steps of one whose batch is theirs together; a rank that dies leaves a run that goes on."""

import json
import signal
import sys
from pathlib import Path

import pairs
import pytest
import torch
from judged import judged_pairs, judged_thumbs
from safetensors.torch import load_file
from tiny import WORDS, make_model, open_run

from trueup.errors import StageError
from trueup.models.adapters import saved_tensors
from trueup.run.files import read_jsonl

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
REWARD = """
def length(prompts, completions):
    return [0.1 * len(c) - 0.02 * len(p[-1]["content"]) for p, c in zip(prompts, completions)]
"""
RUN = """
name: tiny
model: {base: model}
adapter: {kind: lora, lora_dropout: 0}
data: {demonstrations: d.jsonl, prompts: p.jsonl, held_out: p.jsonl, preferences: [pairs.jsonl, thumbs.jsonl]}
collect: {held_out_fraction: 0.3}
sft: {learning_rate: 2, num_train_epochs: 2, warmup_steps: 0, trainer: {optim: sgd, lr_scheduler_type: constant}}
sample: {num_completions: 1, max_new_tokens: 6, temperature: 0}
reward: {learning_rate: 2, num_train_epochs: 2, members: 2, trainer: {optim: sgd}}
dpo: {learning_rate: 2, save_steps: 2, trainer: {optim: sgd}}
kto: {learning_rate: 1, num_train_epochs: 3, trainer: {optim: sgd}}
ppo: {learning_rate: 0.2, value_learning_rate: 0.2, num_steps: 2, rollout_batch_size: 7, num_ppo_epochs: 2,
  micro_batch_size: 8, max_new_tokens: 6, max_engine_mismatch: 100, max_grad_norm: 10, whiten_rewards: true,
  reward_functions: {"score:length": 1}}
grpo: {max_steps: 2, num_generations: 2, per_device_train_batch_size: 4, max_completion_length: 6,
  reward_model_weight: 0, reward_functions: {"score:length": 1}}
evaluate: {num_completions: 1, max_new_tokens: 6, temperature: 0}
"""
# rows of a batch, of both ranks together; the last batch of an epoch is smaller, and no multiple of two
ROWS = {"sft": 10, "reward": 4, "dpo": 4, "kto": 4}
ACCUMULATED = {"sft": 2, "reward": 2, "dpo": 1, "kto": 2}
TOLERANCE = 1e-5


def make(folder: Path) -> Path:
    """A run in fp32 whose texts have many lengths; returns its file."""
    folder.mkdir()
    make_model(folder / "model", sharp=True)
    from transformers import LlamaForCausalLM

    LlamaForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).save_pretrained(folder / "model")
    asked = [f"{a} {b}" for a in WORDS for b in WORDS]
    demonstrations = [{"prompt": q, "response": f"glad {q}{' boot' * (n % 7)}"} for n, q in enumerate(asked[:42])]
    for name, rows in {
        "d": demonstrations,
        "p": [{"prompt": q} for q in asked[50:59]],
        "pairs": judged_pairs(),
        "thumbs": judged_thumbs(),
    }.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "score.py").write_text(REWARD)
    (folder / "run.yaml").write_text(RUN)
    open_run(folder).execute("collect")
    return folder / "run.yaml"


def sizes(stage: str, num_ranks: int) -> list[str]:
    """The settings by which `num_ranks` processes train on the same rows at each step."""
    if stage not in ROWS:
        return []
    return [
        f"{stage}.per_device_train_batch_size={ROWS[stage] // num_ranks}",
        f"{stage}.gradient_accumulation_steps={ACCUMULATED[stage]}",
    ]


def commands(run_file: Path, stages: list[str], num_ranks: int) -> Path:
    """The file of what `play.py` is to do."""
    found = []
    for stage in stages:
        values = sizes(stage, num_ranks) + ([f"method={METHODS[stage]}"] if stage in METHODS else [])
        found.append([stage, str(run_file), *(word for value in values for word in ("--set", value))])
        if stage != "sft":
            found[-1].append("--use-stale")  # sft was built by --set
    file = run_file.with_name("commands.json")
    file.write_text(json.dumps(found))
    return file


def play(run_file: Path, stages: list[str], num_ranks: int, *options: str) -> list[tuple[int, str]]:
    """(exit code, what was printed) of each rank."""
    words = [sys.executable, str(HERE / "play.py"), *options, str(commands(run_file, stages, num_ranks))]
    return pairs.start([words] * num_ranks, TRUEUP_CPU="portable")


def folder_of(run_file: Path, stage: str) -> Path:
    return run_file.parent / "runs" / "tiny" / ("sft" if stage == "sft" else f"round-1/{stage}")


METHODS = {"ppo": "ppo", "evaluate": "ppo", "grpo": "grpo"}
STAGES = ["sft", "dpo", "reward", "kto", "sample", "ppo", "evaluate"]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Run files of the same run: played by one process, and by two, one of which dies in DPO and is started again."""
    folder = tmp_path_factory.mktemp("ranks")
    one, two = make(folder / "one"), make(folder / "two")
    ((code, said),) = play(one, STAGES, 1)
    assert code == 0, said
    died = play(two, ["sft", "dpo"], 2, "--die-at", "13")
    (folder / "died.json").write_text(json.dumps(died))
    with pytest.raises(StageError, match="was begun on 2 ranks, this is 1 rank"):
        open_run(two.parent, *sizes("dpo", 2)).execute("dpo", use_stale=True)
    after = play(two, [*STAGES[1:], "grpo"], 2)
    assert [code for code, _ in after] == [0, 0], after
    return {"one": one, "two": two}


@pytest.mark.parametrize("stage", ["sft", "dpo", "reward", "kto", "ppo"])
def test_two_processes_train_what_one_does(played: dict[str, Path], stage: str) -> None:
    one, two = (saved_tensors(folder_of(file, stage)) for file in played.values())
    assert one.keys() == two.keys()
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    start = {} if stage == "sft" else saved_tensors(folder_of(played["one"], "sft"))  # a fresh adapter's B is 0
    moved = max(float((one[name] - start.get(name, 0)).abs().max()) for name in one if "lora_B" in name)
    print(f"{stage}: {apart:.1e} apart after moving by {moved:.1e}")
    assert apart <= TOLERANCE
    assert moved > 100 * TOLERANCE


def test_two_processes_train_the_members_that_one_does(played: dict[str, Path]) -> None:
    folders = [folder_of(file, "reward") for file in played.values()]
    for name in ("member-2/adapter_model.safetensors", "members.safetensors"):
        one, two = (load_file(folder / name) for folder in folders)
        assert one.keys() == two.keys()
        assert max(float((one[key] - two[key]).abs().max()) for key in one) <= TOLERANCE
    first, second = (saved_tensors(folders[0] / place) for place in (".", "member-2"))
    assert max(float((first[key] - second[key]).abs().max()) for key in first) > 100 * TOLERANCE


def test_a_rank_that_dies_ends_the_other_and_the_run_goes_on_from_its_checkpoint(played: dict[str, Path]) -> None:
    (first, said), (second, _) = json.loads((played["two"].parents[1] / "died.json").read_text())
    assert (first, second) == (2, -signal.SIGKILL)
    assert "error: rank 0 of 2: another rank has ended" in said and "Traceback" not in said
    record = json.loads((folder_of(played["two"], "dpo") / "record.json").read_text())
    assert record["metrics"]["resumed_from_step"] == 4  # of 8; rank 1 died in step 5
    assert record["num_ranks"] == 2
    assert not list(folder_of(played["two"], "dpo").parent.glob("*.partial"))


def test_two_processes_log_and_measure_what_one_does(played: dict[str, Path]) -> None:
    for stage, figures in {
        "sft": ("loss", "eval_loss", "grad_norm"),
        "dpo": ("loss", "rewards/accuracies"),
        "reward": ("loss",),
        "kto": ("loss", "kl"),
        "ppo": ("reward", "kl", "policy_loss", "value_loss", "clip_fraction"),
    }.items():
        one, two = ([*read_jsonl(folder_of(file, stage) / "metrics.jsonl")] for file in played.values())
        assert len(one) == len(two)
        for before, after in zip(one, two, strict=True):
            for name in figures:
                assert (name in after) == (name in before)
                assert after.get(name, 0) == pytest.approx(before.get(name, 0), rel=2e-4, abs=2e-5), (stage, name)


def test_answers_and_scores_of_two_processes_are_in_order(played: dict[str, Path]) -> None:
    one, two = ([*read_jsonl(folder_of(file, "evaluate") / "answers.jsonl")] for file in played.values())
    assert [row["messages"] for row in one] == [row["messages"] for row in two]
    assert [row["sft"] for row in one] == [row["sft"] for row in two]
    for before, after in zip(one, two, strict=True):
        assert after["reward"]["sft"] == pytest.approx(before["reward"]["sft"], abs=1e-3)


def test_grpo_compares_the_answers_of_all_ranks(played: dict[str, Path]) -> None:
    rows = [*read_jsonl(folder_of(played["two"], "grpo") / "metrics.jsonl")]
    assert [row["step"] for row in rows] == [1, 2]
    # 4 on each rank, of 1 to 6 tokens
    assert all(8 <= row["num_tokens"] <= 48 and row["num_tokens"] == 8 * row["length_tokens"] for row in rows)
