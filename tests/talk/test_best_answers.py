"""The best of several answers in use: what is chosen, by plain scoring; what is kept of it; what is refused."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect
import pytest
from click.testing import CliRunner, Result
from rewarding import Rewards, apart, order
from tiny import copy_of, open_run

from trueup.cli.main import main
from trueup.errors import ModelError
from trueup.feedback.use import Use
from trueup.run.artifacts import Feedback, read_jsonl
from trueup.run.pipeline import Pipeline
from trueup.talk import terminal
from trueup.talk.answers import Answer, How
from trueup.talk.roster import roster
from trueup.talk.shown import harmless
from trueup.talk.speaker import Speaker
from trueup.talk.spoken import Spoken

TRUEUP = "from trueup.cli.main import main; main()"
FIRST, SECOND = "red green", "blue tent"
FUNCTIONS = ("method=grpo", "grpo.reward_model_weight=0")


@pytest.fixture
def own(rewarded: Pipeline, tmp_path: Path) -> Pipeline:
    """A copy in which nobody has said anything."""
    return open_run(copy_of(rewarded, tmp_path / "run"))


@pytest.fixture(scope="module")
def speaker(rewarded: Pipeline) -> Speaker:
    return Speaker(rewarded, roster(rewarded))


@pytest.fixture(scope="module")
def rewards(rewarded: Pipeline) -> Rewards:
    return Rewards(rewarded)


def how(seed: int, **changes: Any) -> How:
    return How(**({"temperature": 1.5, "top_p": 1.0, "max_tokens": 8, "seed": seed} | changes))


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(turns)]


def four(speaker: Speaker, messages: list[dict[str, str]], seed: int, **changes: Any) -> list[Answer]:
    return speaker.answer(speaker.roster.find("sft"), speaker.prompt(messages), how(seed, **changes), number=4)


def ids(answers: list[Answer]) -> list[list[int]]:
    return [answer.sampled.ids for answer in answers]


def typed(run: Pipeline, lines: str, *options: str) -> Result:
    file = str(run.run_file_dir / "run.yaml")
    return CliRunner().invoke(main, ["chat", file, "--temperature", "1.5", "--max-tokens", "8", *options], input=lines)


def kept(run: Pipeline) -> list[dict[str, Any]]:
    """The answers that somebody judged."""
    return [row for line in read_jsonl(run.folder / "store" / "use.jsonl") for row in line["completions"]]


def test_in_a_conversation_the_best_is_chosen_and_kept_as_such(
    own: Pipeline, speaker: Speaker, rewards: Rewards
) -> None:
    """At such seeds that the second answer would be another one, were it scored without what was said before."""

    def best(messages: list[dict[str, str]], seed: int) -> tuple[Answer, list[float], bool]:
        every = four(speaker, messages, seed)
        scores, alone = rewards(messages, ids(every)), rewards(messages[-1:], ids(every))
        clear = apart(scores) > 0.1 and order(scores)[0] not in (0, order(alone)[0])
        return every[order(scores)[0]], scores, clear

    for seed in range(100):
        first, scores, _ = best(said(FIRST), seed)
        second, then, clear = best(said(FIRST, first.text, SECOND), seed + 1)
        if clear and apart(scores) > 0.1 and first.text.strip():
            break
    assert clear
    done = typed(own, f"{FIRST}\n/up\n{SECOND}\n/down\n/help\n", "--best-of", "4", "--seed", str(seed), "--who", "ada")
    assert done.exit_code == 0, done.output
    assert done.output.count("Each answer is the best of 4 by round-1/reward.") == 2  # at first, and by /help
    assert re.search(r"\nround-1/reward: \d+ pairs trained; right on \d", done.output)  # how far to trust it
    rows = kept(own)
    assert [row["completion"] for row in rows] == [first.text, second.text]
    for row, chosen, found in zip(rows, (first, second), (scores, then), strict=True):
        assert row["ids"] == chosen.sampled.ids and harmless(chosen.text) in done.output
        marked = row["best_of"]
        fingerprint = own.stages["reward"].makes(own.path("reward")).record()["fingerprint"]
        assert (marked["n"], marked["rank"]) == (4, 1)
        assert (marked["by"], marked["fingerprint"]) == ("round-1/reward", fingerprint)
        assert marked["reward"] == pytest.approx(max(found), abs=0.1 * (max(found) - min(found)))

    own.execute("collect", rebuild=True)
    told = "from use, about answers that are no samples of the model but the best of 4 by round-1/reward: 2 judgements"
    assert told in own.says("collect")
    frozen = list(read_jsonl(own.path("collect") / "use.jsonl"))
    assert [row["best_of"]["n"] for row in frozen] == [4, 4]
    assert Feedback(own.path("collect")).record()["metrics"]["from_use"]["of_chosen_answers"] == {
        "best of 4 by round-1/reward": 2
    }


def test_in_a_blind_comparison_each_side_is_the_best_of_its_model(
    own: Pipeline, speaker: Speaker, rewards: Rewards
) -> None:
    for seed in range(50):
        wanted: dict[str, list[int]] = {}
        for name in ("base", "sft"):
            every = speaker.answer(speaker.roster.find(name), speaker.prompt(said(FIRST)), how(seed), number=4)
            scores = rewards(said(FIRST), ids(every))
            if apart(scores) > 0.1 and order(scores)[0] != 0:
                wanted[name] = every[order(scores)[0]].sampled.ids
        if len(wanted) == 2 and len({tuple(found) for found in wanted.values()}) == 2:
            break
    done = typed(own, f"{FIRST}\na\n", "--blind", "sft", "base", "--best-of", "4", "--seed", str(seed))
    assert done.exit_code == 0, done.output
    assert {row["model"]: row["ids"] for row in kept(own)} == wanted
    assert [row["best_of"]["n"] for row in kept(own)] == [4, 4]


def test_the_several_are_one_batch(speaker: Speaker, monkeypatch: pytest.MonkeyPatch) -> None:
    from trueup.decoding import batching

    seen: list[tuple[int, int]] = []
    usual = batching.complete

    def counted(decoder: Any, prompts: list[list[int]], **options: Any) -> Any:
        seen.append((len(prompts), options["batch_size"]))
        return usual(decoder, prompts, **options)

    monkeypatch.setattr("trueup.cpu.decoder.complete", counted)
    every = four(speaker, said(FIRST), 0)
    assert seen == [(4, 4)]
    assert ids(speaker.answer(speaker.roster.find("sft"), every[0].prompt, how(0))) == [every[0].sampled.ids]


def test_what_a_stop_text_ends_is_scored_as_it_is_shown(speaker: Speaker, rewards: Rewards) -> None:
    """A token of an answer that a stop text ended may be within it, or after: the reward does not see it."""
    for seed in range(100):
        whole = four(speaker, said(FIRST), seed)
        stop = whole[0].text[2:4]
        every = four(speaker, said(FIRST), seed, stops=(stop,))
        if stop.strip() and whole[0].text[:2].strip() and sum(one.finish == "stop" for one in every) == 1:
            break
    (found,) = (one for one in speaker.choose(every, 4) if one.finish == "stop")
    before = rewards.tokenizer(found.text, add_special_tokens=False)["input_ids"]
    shown, beyond = rewards(said(FIRST), [before, found.sampled.ids])
    assert found.chosen is not None
    assert abs(found.chosen.reward - shown) < 0.2 * abs(shown - beyond)


def by_letters(run: Pipeline, code: str) -> Pipeline:
    """The run under a method that only the function of `code` rewards."""
    name = f"letters_{abs(hash(str(run.folder)))}"
    (run.run_file_dir / f"{name}.py").write_text(code)
    return open_run(run.run_file_dir, *FUNCTIONS, f"grpo.reward_functions={{{name}:score: 2}}")


def test_functions_choose_where_they_alone_reward(own: Pipeline) -> None:
    run = by_letters(own, "def score(prompts, completions):\n    return [-text.count('e') for text in completions]\n")
    here = Speaker(run, roster(run))
    every = four(here, said(FIRST), 1, max_tokens=20)
    best = here.choose(every, 2)
    wanted = sorted(every, key=lambda one: one.text.count("e"))[:2]
    assert [one.text for one in best] == [one.text for one in wanted]
    assert [one.chosen.reward for one in best if one.chosen] == [-2.0 * one.text.count("e") for one in wanted]
    assert best[0].chosen is not None and len(best[0].chosen.fingerprint) == 64
    assert best[0].chosen.by.startswith("the reward function letters_") and best[0].chosen.by.endswith(":score")


@pytest.fixture
def loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(self: Speaker, *some: Any) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(Speaker, "__init__", loaded)


@pytest.mark.usefixtures("loads_nothing")
@pytest.mark.parametrize("command", ["chat", "serve"])
@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--best-of", "1"], "expected 2 to 16 answers to choose the best of, such as --best-of 4"),
        (["--best-of", "0"], "0; expected 2 to 16"),
        (["--best-of=-3"], "-3; expected 2 to 16"),
        (["--best-of", "17"], "17; expected 2 to 16"),
        (["--best-of", "4", "--temperature", "0"], "at temperature 0 all are the same: add --temperature 1"),
        (["--best-of", "4", "--set", "round=2"], "there is no round-2/reward yet to choose the best answer by"),
        (["--best-of", "4", "--set", "round=2"], "or add --set round=1, whose reward model is there"),
        (
            ["--best-of", "4", *(f"--set={one}" for one in FUNCTIONS), "--set=grpo.reward_functions={nowhere:f: 1}"],
            "reward_functions: nowhere:f: ModuleNotFoundError",
        ),
        (
            ["--best-of", "4", "--set", "method=ppo", "--set", "ppo.combine=min"],
            "combine: min: a reward model of one member",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_loaded(
    rewarded: Pipeline, command: str, options: list[str], found: str
) -> None:
    done = CliRunner().invoke(main, [command, str(rewarded.run_file_dir / "run.yaml"), *options])
    assert done.exit_code == 2 and "Traceback" not in done.output
    assert found in " ".join(done.output.split()), done.output


@pytest.mark.usefixtures("loads_nothing")
def test_without_a_reward_model_the_command_that_makes_one_is_named(pipeline: Pipeline) -> None:
    file = pipeline.run_file_dir / "run.yaml"
    done = CliRunner().invoke(main, ["chat", str(file), "--best-of", "4"])
    assert done.exit_code == 2 and "there is no round-1/reward yet to choose the best answer by" in done.output
    assert f"next: trueup reward {file}\n" in done.output


@pytest.mark.usefixtures("loads_nothing")
def test_a_reward_model_of_another_base_or_that_was_changed_is_refused(own: Pipeline) -> None:
    record = own.path("reward") / "record.json"
    whole = record.read_text()
    other = json.loads(whole)
    other["base"]["files"]["model.safetensors"] = "0" * 64
    record.write_text(json.dumps(other))
    done = typed(own, "red\n", "--best-of", "4")
    assert done.exit_code == 2 and "it was trained on another base: " in done.output
    assert "model.safetensors was changed" in done.output and " --rebuild" in done.output
    record.write_text(whole)
    weights = own.path("reward") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    done = typed(own, "red\n", "--best-of", "4")
    assert done.exit_code == 2 and "round-1/reward: it cannot choose" in done.output
    assert "adapter_model.safetensors was changed" in done.output


def test_a_stale_reward_model_is_named_and_used(own: Pipeline) -> None:
    done = typed(own, "red\n/up\n", "--best-of", "2", "--set", "reward.learning_rate=0.5")
    assert done.exit_code == 0, done.output
    assert "warning: round-1/reward is used as it is, and is stale: reward.learning_rate 0.0001 -> 0.5" in done.output
    assert kept(own)[0]["best_of"]["n"] == 2


def test_a_reward_model_that_was_trained_again_meanwhile_is_not_taken_for_the_old_one(own: Pipeline) -> None:
    here = Speaker(own, roster(own))
    record = own.path("reward") / "record.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"fingerprint": "1" * 64}))
    with pytest.raises(ModelError, match="round-1/reward: it was built again"):
        here.choose(four(here, said(FIRST), 0))


def test_ctrl_c_gives_the_best_of_those_that_had_ended(
    rewarded: Pipeline,
    speaker: Speaker,
    rewards: Rewards,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for seed in range(100):
        every = four(speaker, said(FIRST), seed, max_tokens=20, temperature=1.0)
        lengths = sorted(one.sampled.num_tokens for one in every)
        if 1 < lengths[0] <= lengths[1] < lengths[2] - 2:
            break
    ended = [one for one in every if one.sampled.num_tokens <= lengths[1]]
    scores = rewards(said(FIRST), ids(ended))
    model, drawn = speaker.roster.find("sft"), 0
    here = terminal.Terminal(speaker, Use(tmp_path), how(seed, max_tokens=20, temperature=1.0), None, "x", best_of=4)
    usual = Spoken.hear

    def counted(self: Spoken, token: int) -> bool:
        nonlocal drawn
        drawn += 1
        return usual(self, token)

    def stopped_after(number: int) -> Answer:
        @contextmanager
        def stoppable() -> Iterator[Callable[[], bool]]:
            yield lambda: drawn >= number

        nonlocal drawn
        drawn = 0
        monkeypatch.setattr(terminal, "stoppable", stoppable)
        return here.say("sft", model, speaker.prompt(said(FIRST)), here.how)

    monkeypatch.setattr(Spoken, "hear", counted)
    found = stopped_after(sum(min(length, lengths[1]) for length in lengths))
    assert found.sampled.ids == ended[order(scores)[0]].sampled.ids
    assert found.chosen is not None and found.chosen.n == 2
    assert "stopped: the best of the 2 answers that had ended" in capsys.readouterr().out
    found = stopped_after(1)
    assert (found.finish, found.sampled.num_tokens) == ("cancelled", 1)
    assert capsys.readouterr().out.endswith("stopped\n")


@pytest.mark.slow
def test_in_a_terminal_of_80_columns_it_is_seen_how_far_they_are(own: Pipeline) -> None:
    child: pexpect.spawn[str] = pexpect.spawn(
        sys.executable,
        ["-c", TRUEUP, "chat", "run.yaml", "--model", "base", "--max-tokens", "1900", "--best-of", "4"],
        cwd=str(own.run_file_dir),
        env=os.environ | {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "80", "LINES": "24"},
        encoding="utf-8",
        codec_errors="replace",
        dimensions=(24, 80),
        timeout=60,
    )
    child.expect("Each answer is the best of 4 by round-1/reward")
    child.expect("you> ")
    child.sendline("red green")
    child.expect("base>")
    child.expect(r"4 answers at once: [\d,]+ tokens, \d of 4 ended")
    child.sendintr()
    child.expect("stopped")
    child.expect("you> ")
    child.sendline("/up")
    child.expect("kept: up")
    child.expect("you> ")
    child.sendeof()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
