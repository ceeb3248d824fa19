"""`trueup serve` as the official client of OpenAI meets it: models by name, streams, stops, thumbs that count."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import plain
import pytest
from rewarding import Rewards, apart, order
from serving import Served, serving
from tiny import copy_of, open_run
from transformers import GenerationConfig

from trueup.feedback.judgement import from_row
from trueup.run.artifacts import Feedback, read_jsonl
from trueup.run.pipeline import Pipeline
from trueup.talk.spoken import Spoken

TRUEUP = [sys.executable, "-c", "from trueup.cli.main import main; main()"]
HELLO: list[Any] = [{"role": "user", "content": "red green"}]


@pytest.fixture(scope="module")
def run(rewarded: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The tiny run with preferences, and with a reward model and DPO made of them."""
    made = open_run(copy_of(rewarded, tmp_path_factory.mktemp("serve") / "run"))
    far = ("dpo.learning_rate=0.01", "dpo.num_train_epochs=3")  # enough from sft to say something else
    open_run(made.run_file_dir, *far).execute("dpo")
    return made


@pytest.fixture(scope="module")
def served(run: Pipeline) -> Iterator[Served]:
    with serving(run) as found:
        yield found


def said_by_transformers(run: Pipeline, adapter: str, number: int) -> str:
    """The greedy answer to HELLO by transformers and peft alone."""
    base = run.run.model.base
    tokenizer, model = plain.tokenizer(base), plain.model(base, run.folder / adapter)
    ids = tokenizer.apply_chat_template(HELLO, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    settings = GenerationConfig(max_new_tokens=number, do_sample=False, eos_token_id=tokenizer.eos_token_id)
    out = model.generate(**ids, generation_config=settings)
    text: str = tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    return text


def test_models_are_listed_by_every_name(served: Served) -> None:
    listed = {model.id: model.model_dump() for model in served.client.models.list()}
    assert list(listed) == ["base", "sft", "round-1/dpo", "dpo"]
    assert listed["dpo"]["root"] == "round-1/dpo"
    assert served.client.models.retrieve("round-1/dpo").created == listed["dpo"]["created"] > 0


@pytest.mark.parametrize(("name", "folder"), [("sft", "sft"), ("dpo", "round-1/dpo"), ("round-1/dpo", "round-1/dpo")])
def test_an_adapter_by_name_answers_as_transformers_does(served: Served, name: str, folder: str) -> None:
    done = served.client.chat.completions.create(model=name, messages=HELLO, temperature=0, max_tokens=6)
    assert done.choices[0].message.content == said_by_transformers(served.run, folder, 6)
    assert done.model == name and done.usage is not None
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_the_models_differ(served: Served) -> None:
    texts = {
        name: served.client.chat.completions.create(model=name, messages=HELLO, temperature=0)
        .choices[0]
        .message.content
        for name in ("base", "sft", "dpo")
    }
    assert len(set(texts.values())) == 3


def test_a_stream_gives_the_same_text_in_pieces_and_its_usage(served: Served) -> None:
    asked: dict[str, Any] = {"model": "sft", "messages": HELLO, "seed": 7, "temperature": 1.0, "max_tokens": 12}
    whole = served.client.chat.completions.create(**asked)
    events = list(served.client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    pieces = [event.choices[0].delta.content or "" for event in events if event.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    assert len([piece for piece in pieces if piece]) > 1
    assert events[-1].usage == whole.usage and events[-1].choices == []
    assert events[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert len({event.id for event in events}) == 1
    assert events[0].model_dump()["trueup"]["seed"] == 7


def test_a_seed_repeats_an_answer_and_without_one_it_is_told(served: Served) -> None:
    asked: dict[str, Any] = {"model": "base", "messages": HELLO, "temperature": 1.0, "max_tokens": 12, "n": 2}
    first = served.client.chat.completions.create(**asked)
    seed = first.model_dump()["trueup"]["seed"]
    again = served.client.chat.completions.create(**asked, seed=seed)
    other = served.client.chat.completions.create(**asked, seed=seed + 1)
    texts = [[choice.message.content for choice in done.choices] for done in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0] != texts[0][1]


def test_stop_ends_an_answer_before_the_text(served: Served) -> None:
    asked: dict[str, Any] = {"model": "sft", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    text = served.client.chat.completions.create(**asked).choices[0].message.content
    assert text is not None
    stop = text[3:5]
    done = served.client.chat.completions.create(**asked, stop=[stop, "never said"])
    assert done.choices[0].message.content == text[: text.index(stop)]
    assert done.choices[0].finish_reason == "stop"
    events = served.client.chat.completions.create(**asked, stop=stop, stream=True)
    assert "".join(event.choices[0].delta.content or "" for event in events) == text[: text.index(stop)]


def test_max_tokens_cuts_and_says_so(served: Served) -> None:
    done = served.client.chat.completions.create(model="base", messages=HELLO, temperature=0, max_completion_tokens=3)
    assert done.choices[0].finish_reason == "length"
    assert done.usage is not None and done.usage.completion_tokens == 3


def thumb(served: Served, **said: Any) -> dict[str, Any]:
    found: Any = served.client.post("/feedback", body=said, cast_to=object)
    return dict(found)


def test_a_thumb_arrives_as_a_judgement_and_collect_takes_it_in(run: Pipeline) -> None:
    with serving(run) as served:
        asked: dict[str, Any] = {"model": "dpo", "messages": [{"role": "user", "content": "tent tent tent"}]}
        done = served.client.chat.completions.create(**asked, temperature=1.0, seed=1, n=2)
        assert thumb(served, completion_id=done.id, thumb="up", who="ada", comment="yes")["who"] == "use:ada"
        said = thumb(served, completion_id=done.id, choice=1, thumb="down", better_answer="glad tent", who="ada")
        assert said["judgements"] == ["thumb", "edit"]
        anonymous = thumb(served, completion_id=done.id, thumb="down")["who"]
        assert re.fullmatch(r"use:anonymous-[0-9a-f]{6}", anonymous)
    kept = list(read_jsonl(run.folder / "store" / "use.jsonl"))
    rows = [row for line in kept for row in line["completions"]]
    texts = [choice.message.content for choice in done.choices]
    assert [row["completion"] for row in rows] == [texts[0], texts[1], texts[0]]
    assert {row["model"] for row in rows} == {"round-1/dpo"}
    tokenizer = plain.tokenizer(run.run.model.base)
    for row in rows:  # the sampled ids, the end token among them
        assert tokenizer.decode(row["ids"], skip_special_tokens=True) == row["completion"]
        assert (row["ids"][-1] == tokenizer.eos_token_id) == (row["finish"] == "eos")
    first = from_row(kept[0]["judgements"][0])[0]
    assert (first.kind, first.verdict, first.annotator, first.comment) == ("thumb", True, "use:ada", "yes")
    assert first.updated_at.startswith("20")

    before = run.stages["collect"].makes(run.path("collect")).record()["metrics"]
    assert "from_use" not in before
    assert "given in use since: 4 judgements" in run.since("collect")
    again = open_run(run.run_file_dir)
    again.execute("collect", rebuild=True)
    found = Feedback(again.path("collect"))
    metrics = found.record()["metrics"]
    assert metrics["from_use"] == {
        "judgements": 4,
        "people": 2,
        "answers": 2,
        "of_models": {"round-1/dpo": 4},
        "about_held_out_prompts": 0,
        "lines_that_cannot_be_read": 0,
    }
    assert metrics["became"]["thumb"].keys() and sum(metrics["became"]["edit"].values()) == 1
    rows = [row for split in ("train", "held_out") for row in found.rows(split)]
    used = [row for row in rows if row["prompt"][-1]["content"] == "tent tent tent"]
    assert sorted((row["completion"], row["label"]) for row in used) == sorted(
        [(texts[0], True), (texts[0], False), (texts[1], False)]
    )
    pairs = [pair for split in ("train", "held_out") for pair in found.pairs(split)]
    edited = [(p["chosen"], p["rejected"]) for p in pairs if p["kind"] == "edit"]
    assert edited == [("glad tent", texts[1])]
    lines = again.says("collect")
    assert "from use: 4 judgements of 2 people, about answers of round-1/dpo 4" in lines
    assert again.since("collect") == ""


def test_the_system_message_of_the_run_comes_first_and_that_is_stated(run: Pipeline) -> None:
    system = open_run(run.run_file_dir, "data.system=blue boot", "round=2")  # a round without a reward model
    with serving(system) as served:
        asked: dict[str, Any] = {"model": "sft", "max_tokens": 1, "temperature": 0}
        done = served.client.chat.completions.create(messages=HELLO, **asked)
        own: list[Any] = [{"role": "system", "content": "rope"}, *HELLO]
        other = served.client.chat.completions.create(messages=own, **asked)
        assert done.model_dump()["trueup"]["system_message"] == "data.system"
        assert other.model_dump()["trueup"]["system_message"] == "the request"
        tokenizer = plain.tokenizer(run.run.model.base)
        for found, messages in ((done, [{"role": "system", "content": "blue boot"}, *HELLO]), (other, own)):
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
            assert found.usage is not None and found.usage.prompt_tokens == len(ids)
        assert [model.id for model in served.client.models.list()] == ["base", "sft", "round-1/dpo"]
        with pytest.raises(openai.BadRequestError, match=r"no round-2/reward yet .* next: trueup reward RUN\.yaml"):
            served.client.chat.completions.create(**ASKED, extra_body={"best_of": 2})


@pytest.fixture(scope="module")
def four(served: Served) -> tuple[list[Any], list[int]]:
    """(four answers as they are sampled, their places by plain scoring, the best first); at a seed that tells these."""
    rewards = Rewards(served.run)
    for seed in range(100):
        done = served.client.chat.completions.create(**ASKED, seed=seed, n=4)
        found = served.server.latest[done.id][0]
        scores = rewards(HELLO, [answer.sampled.ids for answer in found])
        if apart(scores) > 0.1 and apart(sorted(scores)[:3]) > 0.1 and order(scores)[0] != 0:
            return found, order(scores)
    raise AssertionError("no seed tells them")


ASKED: dict[str, Any] = {"model": "base", "messages": HELLO, "temperature": 1.0, "max_tokens": 8}


def given(found: Any, stream: bool) -> dict[int, str]:
    """The text of each choice."""
    texts: dict[int, str] = {}
    for event in found if stream else [found]:
        for choice in event.choices:
            part = choice.delta.content if stream else choice.message.content
            texts[choice.index] = texts.get(choice.index, "") + (part or "")
    return texts


@pytest.mark.parametrize("stream", [False, True])
def test_best_of_gives_the_answers_that_the_reward_model_scores_highest(
    served: Served, four: tuple[list[Any], list[int]], stream: bool
) -> None:
    every, places = four
    asked = ASKED | {"seed": every[0].how.seed, "stream": stream}
    for n in (1, 2):
        found: Any = served.client.chat.completions.create(**asked, n=n, extra_body={"best_of": 4})
        assert given(found, stream) == {rank: every[i].text for rank, i in enumerate(places[:n])}
    assert served.lines[-1].startswith("chatcmpl-") and " base, best of 4: " in served.lines[-1]


def test_all_tokens_that_were_sampled_are_counted(served: Served, four: tuple[list[Any], list[int]]) -> None:
    """As OpenAI documents best_of: max(n, best_of) answers are what a request generates."""
    asked = ASKED | {"seed": four[0][0].how.seed}
    done = served.client.chat.completions.create(**asked, extra_body={"best_of": 4})
    drawn = sum(len(answer.sampled.ids) for answer in four[0])
    assert done.usage is not None and done.usage.completion_tokens == drawn
    assert done.usage.total_tokens == done.usage.prompt_tokens + drawn
    assert done.model_dump()["trueup"]["best_of"] == {"n": 4, "by": "round-1/reward"}
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    *_, last = served.client.chat.completions.create(**asked, extra_body={"best_of": 4}, **options)
    assert last.usage == done.usage


def test_a_server_whose_answers_are_the_best_of_four(
    run: Pipeline, served: Served, four: tuple[list[Any], list[int]]
) -> None:
    every, places = four
    with serving(run, speaker=served.server.speaker, best_of=4) as best:
        ask = best.client.chat.completions.create
        done = ask(**ASKED, seed=every[0].how.seed)
        assert given(done, False) == {0: every[places[0]].text}
        assert thumb(best, completion_id=done.id, thumb="up", who="bob")["who"] == "use:bob"
        plainly = ask(**ASKED, seed=every[0].how.seed, extra_body={"best_of": 1})
        assert given(plainly, False) == {0: every[0].text} and "best_of" not in plainly.model_dump()["trueup"]
        greedy = ask(**ASKED | {"temperature": 0})
        assert greedy.usage is not None and greedy.usage.completion_tokens <= 8
        many = ask(**ASKED, seed=every[0].how.seed, n=5)
        assert many.model_dump()["trueup"]["best_of"]["n"] == 5 and len(many.choices) == 5
    *_, line = read_jsonl(run.folder / "store" / "use.jsonl")
    (row,) = line["completions"]
    assert row["completion"] == every[places[0]].text
    marked = row["best_of"]
    assert (marked["n"], marked["rank"], marked["by"]) == (4, 1, "round-1/reward")


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "it did not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_stops_the_answer(
    served: Served, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    asked: dict[str, Any] = {"model": "base", "messages": HELLO, "max_tokens": 1500, "temperature": 1.0}

    def is_long(seed: int) -> bool:
        done = served.client.chat.completions.create(**asked, seed=seed)
        return done.usage is not None and done.usage.completion_tokens > 200

    asked["seed"] = next(seed for seed in range(30) if is_long(seed))
    drawn = 0
    usual = Spoken.hear

    def slowly(self: Spoken, token: int) -> bool:
        nonlocal drawn
        drawn += 1
        time.sleep(0.02)
        return usual(self, token)

    monkeypatch.setattr(Spoken, "hear", slowly)
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as client:
        body = json.dumps(asked | {"stream": stream}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)
        until(lambda: drawn > 2)
    began = time.monotonic()
    served.client.chat.completions.create(model="base", messages=HELLO, max_tokens=1)
    assert time.monotonic() - began < 3  # 200 tokens would take 4 s
    assert drawn < 150


def test_requests_wait_for_each_other(served: Served) -> None:
    found: list[tuple[str, str | None]] = []

    def ask(model: str) -> None:
        done = served.client.chat.completions.create(model=model, messages=HELLO, temperature=0, max_tokens=6)
        found.append((model, done.choices[0].message.content))

    threads = [threading.Thread(target=ask, args=(name,)) for name in ("base", "sft", "base", "sft", "dpo", "sft")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6 and len(set(found)) == 3  # each model says one thing
    assert len(set(dict(found).values())) == 3


BAD: list[tuple[str, dict[str, Any], int, str]] = [
    ("model", {"model": "nobody"}, 404, "there is no model 'nobody' in this run; one of base, sft, round-1/dpo, dpo"),
    ("frequency_penalty", {"frequency_penalty": 0.5}, 400, "not supported here: frequency_penalty"),
    ("min_p", {"top_k": 5, "min_p": 0.1}, 400, "not supported here: min_p, top_k"),
    ("temperature", {"temperature": 3}, 400, "temperature: "),
    ("seed", {"seed": "x"}, 400, "seed: "),
    ("stop", {"stop": [""]}, 400, "none of them empty"),
    ("messages", {"messages": []}, 400, "messages: "),
    ("messages", {"messages": [{"role": "assistant", "content": "x"}]}, 400, "expected the user"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "text alone"),
    ("messages", {"messages": [{"role": "tool", "content": "x"}]}, 400, "of role 'tool'"),
    ("messages", {"messages": [*HELLO, {"role": "assistant", "content": "x"}]}, 400, "the last message is"),
    ("messages", {"messages": [{"role": "user", "content": "red " * 3000}]}, 400, "context of the base, 2048 tokens"),
    ("max_tokens", {"max_tokens": 0}, 400, "max_tokens: "),
    ("best_of", {"best_of": 3, "n": 4}, 400, "best_of is 3 and n is 4"),
    ("best_of", {"best_of": 17}, 400, "best_of: Input should be less than or equal to 16"),
    ("best_of", {"best_of": 0}, 400, "best_of: Input should be greater than or equal to 1"),
    ("best_of", {"best_of": 2, "temperature": 0}, 400, "at temperature 0 all answers are the same"),
]


@pytest.mark.parametrize(("param", "changes", "status", "said"), BAD, ids=lambda value: str(value)[:20])
def test_bad_requests_are_refused_in_openais_shape(
    served: Served, param: str, changes: dict[str, Any], status: int, said: str
) -> None:
    body = {"model": "sft", "messages": HELLO, "max_tokens": 2} | changes
    answer = httpx.post(f"{served.url}/v1/chat/completions", json=body)
    error = answer.json()["error"]
    assert answer.status_code == status, error
    assert said in error["message"] and (error["param"] or "").startswith(param[:3])
    assert set(error) == {"message", "type", "param", "code"}
    assert served.faults == []


def test_the_client_raises_its_own_errors(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="one of base, sft"):
        served.client.chat.completions.create(model="nobody", messages=HELLO)
    with pytest.raises(openai.BadRequestError, match="presence_penalty"):
        served.client.chat.completions.create(model="sft", messages=HELLO, presence_penalty=1)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 100_000, 400),
        (b'{"model": NaN}', 400),
        (b"[]", 400),
        (b'{"model": "\\ud800"}', 400),
        (b" " * 1_000_001, 413),
    ],
)
def test_broken_bodies(served: Served, body: bytes, status: int) -> None:
    for path in ("chat/completions", "feedback"):
        answer = httpx.post(f"{served.url}/v1/{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status and answer.json()["error"]["message"]
    chunked = httpx.post(
        f"{served.url}/v1/feedback", content=iter([body]), headers={"Content-Type": "application/json"}
    )
    assert chunked.status_code == status
    assert served.faults == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Host": "localhost"}, 200),
        ({"Host": "[::1]:80"}, 200),
    ],
)
def test_pages_of_other_sites_cannot_ask(served: Served, headers: dict[str, str], status: int) -> None:
    body = json.dumps({"model": "sft", "messages": HELLO, "max_tokens": 1})
    sent = {"Content-Type": "application/json"} | headers
    answer = httpx.post(f"{served.url}/v1/chat/completions", content=body, headers=sent)
    assert answer.status_code == status
    assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_key_is_needed_where_there_is_one(run: Pipeline, served: Served) -> None:
    with serving(run, key="correct horse", speaker=served.server.speaker) as locked:
        for path in ("models", "nowhere"):
            assert httpx.get(f"{locked.url}/v1/{path}").status_code == 401
        with pytest.raises(openai.AuthenticationError, match="TRUEUP_API_KEY"):
            locked.client.models.list()
        right = openai.OpenAI(base_url=f"{locked.url}/v1", api_key="correct horse")
        assert next(iter(right.models.list())).id == "base"


def test_feedback_that_says_nothing_or_is_about_nothing(served: Served) -> None:
    done = served.client.chat.completions.create(model="sft", messages=HELLO, max_tokens=1)
    for said, status in (
        ({"completion_id": "chatcmpl-gone", "thumb": "up"}, 404),
        ({"completion_id": done.id, "choice": 1, "thumb": "up"}, 404),
        ({"completion_id": done.id}, 400),
        ({"completion_id": done.id, "thumb": True}, 400),
        ({"completion_id": done.id, "score": 6}, 400),
        ({"completion_id": done.id, "better_answer": " "}, 400),
        ({"completion_id": done.id, "thumb": "up", "who": "\x1b[2J"}, 400),
        ({"completion_id": done.id, "thumb": "up", "whom": "ada"}, 400),
    ):
        answer = httpx.post(f"{served.url}/v1/feedback", json=said)
        assert answer.status_code == status, answer.text
    assert httpx.get(f"{served.url}/v2").json()["error"]["type"] == "invalid_request_error"
    assert httpx.get(f"{served.url}/v1/feedback").status_code == 405


def test_no_text_of_users_is_logged(served: Served) -> None:
    secret = "rope rope sorry glad"
    done = served.client.chat.completions.create(model="sft", messages=[{"role": "user", "content": secret}])
    thumb(served, completion_id=done.id, thumb="up", comment="a private remark")
    httpx.post(f"{served.url}/v1/chat/completions", json={"model": secret})
    said = "\n".join(served.lines)
    assert done.id in said
    assert "rope" not in said and "private" not in said


@pytest.mark.slow
def test_the_command_serves_until_ctrl_c_and_needs_its_port(run: Pipeline, port: int) -> None:
    folder = run.run_file_dir
    environment = {name: value for name, value in os.environ.items() if name != "TRUEUP_API_KEY"}
    typed = [*TRUEUP, "serve", "run.yaml", "--port", str(port)]
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = subprocess.run(typed, cwd=folder, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"next: trueup serve run.yaml --port {port + 1}" in done.stderr
    process = subprocess.Popen(
        typed, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first == f"serving tiny at http://127.0.0.1:{port}/v1; Ctrl+C stops it\n", process.stderr
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-", max_retries=20)
        assert client.chat.completions.create(model="sft", messages=HELLO, max_tokens=2).choices
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in errors and "red" not in errors


def test_a_port_that_is_taken_and_a_host_that_others_reach(run: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from trueup.cli.main import main

    monkeypatch.delenv("TRUEUP_API_KEY", raising=False)
    file = str(run.run_file_dir / "run.yaml")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = CliRunner().invoke(main, ["serve", file, "--port", str(port)])
        assert done.exit_code == 2 and f"127.0.0.1:{port}: the port is taken" in done.output
        assert f"next: trueup serve {file} --port {port + 1}" in done.output
    done = CliRunner().invoke(main, ["serve", file, "--host", "0.0.0.0"])
    assert done.exit_code == 2 and "TRUEUP_API_KEY is not set" in done.output
    monkeypatch.setenv("TRUEUP_API_KEY", "k")
    done = CliRunner().invoke(main, ["serve", file, "--host", "203.0.113.7"])
    assert done.exit_code == 2 and "address of this machine" in done.output


def test_an_adapter_that_was_built_again_is_not_taken_for_the_old_one(served: Served) -> None:
    speaker = served.server.speaker
    other = replace(speaker.roster.find("sft"), name="round-2/dpo", fingerprint="0" * 64)
    speaker.roster.models["other"] = other
    try:
        with pytest.raises(openai.InternalServerError, match="it was built again"):
            served.client.chat.completions.create(model="other", messages=HELLO)
    finally:
        del speaker.roster.models["other"]
    assert served.client.chat.completions.create(model="sft", messages=HELLO, max_tokens=1).choices


def test_only_adapters_of_this_base_are_offered(run: Pipeline, tmp_path: Path) -> None:
    from tiny import make_model

    from trueup.errors import StageError
    from trueup.talk.roster import roster

    folder = copy_of(run, tmp_path / "run")
    weights = folder / "runs" / "tiny" / "round-1" / "dpo" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    found = roster(open_run(folder))
    assert list(found.models) == ["base", "sft"]
    assert found.refused == {"round-1/dpo": "adapter_model.safetensors was changed"}
    make_model(tmp_path / "other", sharp=True)
    with pytest.raises(StageError, match=r"sft cannot be used: it was trained on another base: .*model\.safetensors"):
        roster(open_run(folder, f"model.base={tmp_path / 'other'}"))
    with pytest.raises(StageError, match=r"trained on the base in 4 bits, and adapter\.kind is now lora"):
        roster(open_run(folder, "adapter.kind=lora"))
    with pytest.raises(StageError, match="no adapter is complete yet") as none:
        roster(open_run(folder, "name=fresh"))
    assert none.value.next_step == "trueup sft RUN.yaml"
