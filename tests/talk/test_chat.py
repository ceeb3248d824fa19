"""`trueup chat` in a pipe and in a terminal of 80 columns: answers, commands, blind votes that arrive as judgements."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
from click.testing import CliRunner, Result
from judged import judge, judged_pairs
from tiny import copy_of, open_run

from trueup.cli.main import main
from trueup.data.dialogue import Messages
from trueup.errors import FeedbackError, StageError
from trueup.feedback.judgement import Comparison, from_row
from trueup.run.artifacts import Feedback, read_jsonl
from trueup.run.pipeline import Pipeline
from trueup.talk.answers import How, Prompt
from trueup.talk.history import History
from trueup.talk.speaker import Speaker

TRUEUP = "from trueup.cli.main import main; main()"


@pytest.fixture(scope="module")
def run(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return judge(pipeline, tmp_path_factory.mktemp("chat") / "run", judged_pairs(), [])


@pytest.fixture
def own(run: Pipeline, tmp_path: Path) -> Pipeline:
    """A copy in which nobody has said anything."""
    return open_run(copy_of(run, tmp_path / "run"))


def typed(run: Pipeline, lines: str, *options: str) -> Result:
    file = str(run.run_file_dir / "run.yaml")
    return CliRunner().invoke(main, ["chat", file, *options], input=lines)


def said(run: Pipeline) -> list[dict[str, Any]]:
    path = run.folder / "store" / "use.jsonl"
    return list(read_jsonl(path)) if path.exists() else []


def test_in_a_pipe_each_line_is_a_message_and_thumbs_are_kept(own: Pipeline, tmp_path: Path) -> None:
    saved = tmp_path / "saved.jsonl"
    lines = [
        "/up",
        "red tent",
        "/up nice one",
        "/rate 9",
        "/rate 2",
        "green boot",
        "/better glad boot",
        f"/save {saved}",
    ]
    lines += [
        "/model",
        "/model nobody",
        "/nonsense",
        "/model base",
        "blue",
        "/down",
        "/new",
        "/down",
        "/quit",
        "not read",
    ]
    done = typed(own, "\n".join(lines), "--who", "ada", "--temperature", "0", "--max-tokens", "8")
    assert done.exit_code == 0, done.output
    for part in (
        "there is no answer to judge yet",
        "kept: up, of an answer of sft, by use:ada",
        "/rate 4",
        "models: base, sft",
        "there is no model 'nobody' in this run; one of base, sft",
        "there is no command /nonsense",
        "from now on base answers",
        "a new conversation",
        "4 judgements are kept",
    ):
        assert part in done.output, part
    assert "not read" not in done.output and "\x1b" not in done.output
    kept = said(own)
    judgements = [from_row(line["judgements"][0])[0] for line in kept]
    assert [(one.kind, one.verdict) for one in judgements] == [
        ("thumb", True),
        ("rating", 2),
        ("edit", "glad boot"),
        ("thumb", False),
    ]
    assert judgements[0].comment == "nice one"
    answers = [line["completions"][0] for line in kept]
    assert [one["model"] for one in answers] == ["sft", "sft", "sft", "base"]
    first = answers[0]["completion"]
    turns = [("user", "red tent"), ("assistant", first), ("user", "green boot")]
    assert [(m["role"], m["content"]) for m in answers[2]["messages"]] == turns
    assert json.loads(saved.read_text()) == {
        "messages": [*answers[2]["messages"], {"role": "assistant", "content": answers[2]["completion"]}]
    }


def test_a_blind_vote_is_a_comparison_that_collect_takes_in(own: Pipeline) -> None:
    lines = "red tent\nmaybe\na\ngreen rope\nb\nboot\ntie\nyes yes\nskip\n/up\nno rope\nbad\n"
    done = typed(own, lines, "--blind", "sft", "base", "--seed", "5", "--who", "ada", "--max-tokens", "8", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout[done.stdout.index("{\n") :])
    assert document["judgements"] == ["comparison"] * 4
    wins = document["preferred"]
    assert (wins["sft"] + wins["base"], wins["tie"], wins["both_bad"]) == (2, 1, 1)
    kept = said(own)
    votes = [from_row(line["judgements"][0])[0] for line in kept]
    assert all(isinstance(vote, Comparison) and vote.annotator == "use:ada" for vote in votes)
    assert [vote.verdict for vote in votes] == ["a", "b", "tie", "both_bad"]
    for line, vote in zip(kept, votes, strict=True):
        assert set(vote.about) == {row["uid"] for row in line["completions"]}
        assert {row["model"] for row in line["completions"]} == {"sft", "base"}
    preferred = {vote.about["ab".index(str(vote.verdict))] for vote in votes[:2]}
    models = {row["uid"]: row["model"] for line in kept for row in line["completions"]}
    assert sorted(models[uid] for uid in preferred) == sorted(["sft"] * wins["sft"] + ["base"] * wins["base"])
    # the conversation goes on with the answer that was preferred
    texts = {row["uid"]: row["completion"] for row in kept[0]["completions"]}
    assert kept[1]["completions"][0]["messages"][1]["content"] == texts[votes[0].about[0]]
    own.execute("collect", rebuild=True)
    found = Feedback(own.path("collect"))
    assert found.record()["metrics"]["from_use"]["of_models"] == {"base and sft": 4}
    pairs = [pair for split in ("train", "held_out") for pair in found.pairs(split)]
    used = {(p["chosen_uid"], p["rejected_uid"]) for p in pairs if p["chosen_uid"] in models}
    assert used == {votes[0].about, votes[1].about[::-1]}


def test_what_is_said_in_use_is_enough(pipeline: Pipeline, tmp_path: Path) -> None:
    folder = copy_of(pipeline, tmp_path / "run")
    run = open_run(folder, "collect.interface=use")
    with pytest.raises(FeedbackError, match="nobody has said anything") as none:
        run.execute("collect")
    assert none.value.next_step == "trueup chat RUN.yaml, or trueup serve RUN.yaml"
    assert [stage.name for stage in run.order()][:3] == ["sft", "collect", "reward"]  # no answers to ask about
    typed(run, "red\n/up\n", "--max-tokens", "4")
    with pytest.raises(FeedbackError, match="only thumbs up, 1 of them"):
        run.execute("collect")
    typed(run, "blue\n/down\n/better glad blue\n", "--max-tokens", "4")
    run.execute("collect")
    found = Feedback(run.path("collect"))
    rows = [row for split in ("train", "held_out") for row in found.rows(split)]
    assert sorted((row["prompt"][-1]["content"], row["label"]) for row in rows) == [("blue", False), ("red", True)]
    assert [pair["chosen"] for split in ("train", "held_out") for pair in found.pairs(split)] == ["glad blue"]
    assert any(line.startswith("from use: 3 judgements of 2 people") for line in run.says("collect"))


def test_sides_change_by_the_seed(own: Pipeline) -> None:
    first = {
        row["completions"][0]["model"]
        for seed in range(2)
        for row in (
            typed(own, "red\na\n" * 4, "--blind", "sft", "base", "--seed", str(seed), "--max-tokens", "4"),
            *said(own),
        )
        if isinstance(row, dict)
    }
    assert first == {"sft", "base"}  # on side A


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--model", "nobody"], "there is no model 'nobody' in this run"),
        (["--blind", "sft", "sft"], "--blind needs two models"),
        (["--blind", "sft", "base", "--model", "sft"], "cannot be used together"),
        (["--who", "\x1b[2J"], "1 to 100 characters"),
        (["--set", "name=fresh"], "no adapter is complete yet"),
    ],
)
def test_bad_input_ends_in_one_message(run: Pipeline, options: list[str], found: str) -> None:
    done = typed(run, "", *options)
    assert done.exit_code == 2 and found in done.output and "\x1b" not in done.output


@pytest.fixture
def terminal(own: Pipeline) -> Iterator[pexpect.spawn[str]]:
    environment = os.environ | {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "80", "LINES": "24"}
    child = pexpect.spawn(
        sys.executable,
        ["-c", TRUEUP, "chat", "run.yaml", "--model", "base", "--max-tokens", "1900", "--seed", "1"],
        cwd=str(own.run_file_dir),
        env=environment,
        encoding="utf-8",
        codec_errors="replace",
        dimensions=(24, 80),
        timeout=60,
    )
    yield child
    child.close(force=True)


@pytest.mark.slow
def test_in_a_terminal_ctrl_c_stops_the_answer_and_not_the_program(terminal: pexpect.spawn[str]) -> None:
    terminal.expect("you> ")
    terminal.sendline("red green")
    terminal.expect("base>")
    terminal.sendintr()
    terminal.expect(["stopped", "you> "])
    terminal.expect("you> ")
    terminal.sendintr()
    terminal.expect("/quit or Ctrl\\+D leaves")
    terminal.expect("you> ")
    terminal.sendline("/help")
    terminal.expect("leave, as Ctrl\\+D does")
    terminal.expect("you> ")
    terminal.sendeof()
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


class Words:
    """A model of which only its context is known: a token is a word."""

    context = 20

    def prompt(self, asked: Messages) -> Prompt:
        ids = [0 for message in asked for _ in message["content"].split()]
        return Prompt(messages=asked, ids=ids, notes=[], system="none")


def test_the_oldest_exchanges_are_left_out_and_that_is_said() -> None:
    words: Any = Words()
    speaker: Speaker = words
    history, how = History(), How(temperature=0, top_p=1, max_tokens=5, seed=0)
    told = []
    for number in range(4):
        prompt, _, lines = history.ask(speaker, f"{number} b c", how)
        assert len(prompt.ids) + 5 <= 20
        told.append(lines)
        history.add(f"{number} b c", "d e f g")
    # 3 + 7 + 7 words of two exchanges and the third message: 17 + 5 are too many
    assert [message["content"] for message in prompt.messages] == ["2 b c", "d e f g", "3 b c"]
    assert [len(lines) for lines in told] == [0, 0, 1, 1]
    assert "the first 2 exchanges no longer fit into the context of 20 tokens" in told[3][0]
    prompt, shorter, lines = history.ask(speaker, "w " * 17, how)
    assert (len(prompt.messages), shorter.max_tokens) == (1, 3) and "3 tokens at most" in lines[-1]
    with pytest.raises(StageError, match="20 tokens"):
        history.ask(speaker, "w " * 20, how)
