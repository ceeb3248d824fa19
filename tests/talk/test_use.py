"""What is said in use is kept with its answer, joins what a source gives, and held-out prompts stay held out."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trueup.data.leaks import of_held_out
from trueup.errors import FeedbackError
from trueup.feedback import use
from trueup.feedback.judgement import Comparison, Judgement, Rating, Thumb
from trueup.feedback.sources import Files
from trueup.feedback.use import Beside, Use, annotator
from trueup.run.data_config import DataConfig, Source


def row(uid: str, text: str = "x", asked: str = "red", model: str = "sft") -> dict[str, Any]:
    messages = [{"role": "user", "content": asked}]
    return {"uid": uid, "prompt_id": asked, "messages": messages, "completion": text, "model": model, "ids": [1, 2]}


def up(uid: str, who: str = "use:ada", up: bool = True) -> Thumb:
    return Thumb(uid=uid, annotator=who, updated_at="2026-01-01T00:00:00+00:00", up=up)


def files() -> Files:
    judged = {"prompt_id": "green", "messages": [{"role": "user", "content": "green"}], "completion": "a"}
    said = {"rejected": "b", "votes": (1, 0), "verdicts": (), "sides": None, "one_question": False}
    return Files([judged | said], {"unusable_rows": {}})


def test_what_was_said_joins_what_the_source_gives(tmp_path: Path) -> None:
    kept = Use(tmp_path / "store")
    source = Beside(files(), kept, lambda messages: False)
    alone = source.pull()
    assert alone == files().pull()  # as before, where nothing was said
    pair = Comparison(uid="p", annotator="use:bob", a="u1", b="u2", preferred="b")
    kept.add([up("u1"), Rating(uid="u1", annotator="use:ada", rating=5)], [row("u1")])
    kept.add([pair], [row("u1"), row("u2", "y", model="round-1/dpo")])
    pulled = source.pull()
    assert pulled.judgements == [*alone.judgements, up("u1"), Rating(uid="u1", annotator="use:ada", rating=5), pair]
    assert {one["uid"] for one in pulled.completions} == {"u1", "u2", *(one["uid"] for one in alone.completions)}
    assert next(one for one in pulled.completions if one["uid"] == "u1")["ids"] == [1, 2]
    assert pulled.notes["from_use"] | {"lines_that_cannot_be_read": 0} == {
        "judgements": 3,
        "people": 2,
        "answers": 2,
        "of_models": {"sft": 2, "round-1/dpo and sft": 1},
        "about_held_out_prompts": 0,
        "lines_that_cannot_be_read": 0,
    }
    assert [line["source"] for line in pulled.lines[len(alone.lines) :]] == ["use"] * 3
    assert use.since(kept, {}) == "given in use since: 3 judgements; to take them: --refresh"
    assert use.since(kept, pulled.notes) == ""


def test_a_sampled_answer_wins_over_the_same_one_from_use(tmp_path: Path) -> None:
    kept, source = Use(tmp_path), files()
    uid = source.pull().completions[0]["uid"]
    kept.add([up(uid)], [row(uid, "a", "green")])
    pulled = Beside(source, kept, lambda messages: False).pull()
    assert {one["uid"]: one for one in pulled.completions}[uid] == source.pull().completions[0]


def test_broken_lines_are_counted_and_the_others_count(tmp_path: Path) -> None:
    kept = Use(tmp_path)
    kept.add([up("u1")], [row("u1")])
    whole = kept.path.read_text()
    no_verdict = json.loads(whole) | {"judgements": [{"kind": "thumb", "uid": "u1"}]}
    no_answer = json.loads(whole) | {"completions": [{"uid": "u1"}]}
    broken = [b"\xff", b"[]", b"{}", b"{", *(json.dumps(one).encode() for one in (no_verdict, no_answer))]
    kept.path.write_bytes(b"\n".join([*broken, whole.encode()]) + b'{"torn')
    kept.add([up("u2")], [row("u2")])
    found, num_broken = kept.said()
    assert [judgements for judgements, _ in found] == [[up("u1")], [up("u2")]]
    assert num_broken == len(broken) + 1
    pulled = Beside(files(), kept, lambda messages: False).pull()
    assert use.in_words(pulled.notes["from_use"])[1] == f"lines of store/use.jsonl that cannot be read: {num_broken}"


def test_several_processes_add_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from trueup.feedback.use import Use\n"
        "from trueup.feedback.judgement import Thumb\n"
        "for n in range(15):\n"
        "    uid, turns = f'{sys.argv[2]}-{n}', [{'role': 'user', 'content': 'x' * 20000}]\n"
        "    row = {'uid': uid, 'prompt_id': 'p', 'messages': turns, 'completion': 'y', 'model': 'm'}\n"
        "    Use(Path(sys.argv[1])).add([Thumb(uid=uid, annotator='a', up=True)], [row])\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(n)]) for n in range(2)]
    assert [one.wait(60) for one in running] == [0, 0]
    found, num_broken = Use(tmp_path).said()
    assert (len({judgements[0].uid for judgements, _ in found}), num_broken) == (30, 0)


def test_judgements_about_held_out_prompts_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "held.jsonl").write_text('{"prompt": "Which  Tent?"}\n')
    shots: list[Any] = [{"prompt": "hello", "response": "hi"}]
    data = DataConfig(held_out=(Source(path=tmp_path / "held.jsonl"),), system="be kind", few_shot=shots)  # type: ignore[arg-type]
    is_held_out = of_held_out(data)

    def asked(*turns: str) -> list[dict[str, str]]:
        before = [{"role": "system", "content": "be kind"}]
        before += [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]
        return before + [{"role": "user" if n % 2 == 0 else "assistant", "content": t} for n, t in enumerate(turns)]

    assert is_held_out(asked("which tent?"))
    assert not is_held_out(asked("which boot?"))
    assert not is_held_out(asked("hello", "hi", "which tent?"))  # asked within a conversation, it is another prompt
    kept = Use(tmp_path)
    kept.add([up("u1")], [row("u1") | {"messages": asked("which tent?")}])
    kept.add([up("u2")], [row("u2") | {"messages": asked("which boot?")}])
    pulled = Beside(files(), kept, is_held_out).pull()
    taken: list[Judgement] = pulled.judgements[len(files().pull().judgements) :]
    assert [one.uid for one in taken] == ["u2"]
    assert pulled.notes["from_use"]["about_held_out_prompts"] == 1
    assert use.since(kept, pulled.notes) == ""


@pytest.mark.parametrize(
    ("who", "called"),
    [("Ada", "use:Ada"), (" Ada  L ", "use:Ada L"), ("3", "use:3"), (None, "use:anonymous-abc123")],
)
def test_people_are_called_by_what_they_say_and_never_as_label_studio_calls_them(who: str | None, called: str) -> None:
    assert annotator(who, "abc123") == called


@pytest.mark.parametrize("who", ["", " ", "\x1b[2J", "a\u202eb", "x" * 101])
def test_what_is_no_name_is_refused(who: str) -> None:
    with pytest.raises(FeedbackError, match="1 to 100 characters"):
        annotator(who, "abc123")
