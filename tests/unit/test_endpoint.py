"""A model behind an OpenAI-compatible endpoint: what it is asked, what its answers mean, and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from completions_server import Reply, Server, completion, shown

from trueup.errors import ServerError
from trueup.judges import endpoint
from trueup.judges.endpoint import Endpoint
from trueup.judges.protocol import Answer, Question


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Reply], Server]]:
    monkeypatch.setattr(endpoint, "PAUSES_S", (0.0, 0.0))
    running: list[Server] = []

    def start(reply: Reply) -> Server:
        running.append(Server(reply))
        return running[-1]

    yield start
    for server in running:
        server.close()


def questions(*pairs: tuple[str, str]) -> list[Question]:
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Do you have tents?"}]
    return [Question(f"p{i}", asked, Answer(first), Answer(second)) for i, (first, second) in enumerate(pairs)]


def longer(body: dict[str, Any]) -> tuple[int, Any]:
    a, b = shown(body)
    letter = "C" if len(a) == len(b) else "A" if len(a) > len(b) else "B"
    return 200, completion(f"A is {len(a)} long, B {len(b)}. [[{letter}]]")


def test_each_question_is_asked_in_both_orders_at_temperature_0(
    serve: Callable[[Reply], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEUP_JUDGE_API_KEY", "key-of-the-test")
    server = serve(longer)
    judged = Endpoint(server.url, "judge-1", tmp_path).judge(
        questions(("long answer", "short"), ("x", "yes"), ("a", "b"))
    )
    assert judged.answers == [1.0, 0.0, 0.5]
    assert judged.notes["requests"] == {"answered": 6, "refused": 0, "nonsense": 0, "failed": 0}
    assert judged.notes["position"] == {"num_both_orders": 3, "num_changed": 0, "prefers_first_shown": 0.5}
    paths, keys, bodies = zip(*server.asked, strict=True)
    assert set(paths) == {"/v1/chat/completions"} and set(keys) == {"Bearer key-of-the-test"}
    assert sorted(map(shown, bodies)) == sorted(
        [("long answer", "short"), ("short", "long answer"), ("x", "yes"), ("yes", "x"), ("a", "b"), ("b", "a")]
    )
    assert all((body["temperature"], body["model"]) == (0, "judge-1") for body in bodies)
    assert all("Do you have tents?" in body["messages"][1]["content"] for body in bodies)
    kept = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "key-of-the-test" not in kept


def test_one_that_always_prefers_what_it_sees_first_says_nothing_and_that_is_seen(
    serve: Callable[[Reply], Server], tmp_path: Path
) -> None:
    server = serve(lambda body: (200, completion("[[A]]")))
    judged = Endpoint(server.url, "m", tmp_path).judge(questions(("a", "b"), ("c", "d")))
    assert judged.answers == [0.5, 0.5]
    assert judged.notes["position"] == {"num_both_orders": 2, "num_changed": 2, "prefers_first_shown": 1.0}


@pytest.mark.parametrize(
    ("said", "kind", "choice"),
    [
        (completion("[[A]]"), "answered", 1.0),
        (completion("First I thought [[A]], but no: [[B]]"), "answered", 0.0),
        (completion("[[C]]\n"), "answered", 0.5),
        (completion("B."), "answered", 0.0),
        (completion("Answer A is better."), "nonsense", None),
        (completion(""), "nonsense", None),
        (completion(None), "nonsense", None),
        (completion("[[D]]"), "nonsense", None),
        (completion("I'm sorry, I cannot compare these."), "refused", None),
        (completion(None, refusal="no"), "refused", None),
        (completion("[[A]]", finish="content_filter"), "refused", None),
        (completion("so [[", finish="length"), "nonsense", None),
    ],
)
def test_what_an_answer_says(said: dict[str, Any], kind: str, choice: float | None) -> None:
    one = said["choices"][0]
    assert endpoint.read(one["message"] | {"finish_reason": one["finish_reason"]}) == (kind, choice)


def test_what_fails_is_counted_and_not_an_answer(serve: Callable[[Reply], Server], tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> tuple[int, Any]:
        a, b = shown(body)
        if "busy" in (a, b):
            return 503, {"error": "busy"}
        if "html" in (a, b):
            return 200, b"<html>no completion</html>"
        return (200, completion("hm")) if "hm" in (a, b) else longer(body)

    server = serve(reply)
    asked = questions(("longer", "short"), ("longer", "x"), ("busy", "y"), ("html", "z"), ("hm", "q"))
    judged = Endpoint(server.url, "m", tmp_path).judge(asked)
    assert judged.answers == [1.0, 1.0, None, None, None]
    assert judged.notes["requests"] == {"answered": 4, "refused": 0, "nonsense": 2, "failed": 4}
    assert sum("busy" in shown(body) for _, _, body in server.asked) == 2 * 3  # asked again twice


@pytest.mark.parametrize(
    ("status", "body"), [(401, {"error": "Incorrect key: secret-key"}), (404, {"error": "no such model"}), (302, {})]
)
def test_what_would_fail_each_time_is_one_message_without_the_key(
    serve: Callable[[Reply], Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, body: Any
) -> None:
    monkeypatch.setenv("TRUEUP_JUDGE_API_KEY", "secret-key")
    server = serve(lambda asked: (status, body))
    with pytest.raises(ServerError, match=f"status {status}") as error:
        Endpoint(server.url, "m", tmp_path).judge(questions(("a", "b")))
    assert "secret-key" not in str(error.value) and "TRUEUP_JUDGE_API_KEY" in str(error.value)


def test_nobody_there_and_no_answer_in_time_are_one_message_each(
    serve: Callable[[Reply], Server], tmp_path: Path
) -> None:
    with pytest.raises(ServerError, match="nothing answers"):
        Endpoint("http://127.0.0.1:9/v1", "m", tmp_path).judge(questions(("a", "b")))
    ready = threading.Event()
    server = serve(lambda body: (ready.wait(5), (200, completion("[[A]]")))[1])
    with pytest.raises(ServerError, match=r"no answer within 0\.2 s"):
        Endpoint(server.url, "m", tmp_path, timeout_s=0.2).judge(questions(("a", "b")))
    ready.set()


@pytest.mark.parametrize("key", ["clé", "two\nlines"])
def test_a_key_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: str) -> None:
    monkeypatch.setenv("TRUEUP_JUDGE_API_KEY", key)
    with pytest.raises(ServerError, match="characters that no key has"):
        Endpoint("http://127.0.0.1:9/v1", "m", tmp_path).judge(questions(("a", "b")))


def test_what_was_answered_is_not_asked_again(serve: Callable[[Reply], Server], tmp_path: Path) -> None:
    server = serve(longer)
    asked = questions(("long", "x"), ("y", "longer"))
    first = Endpoint(server.url, "m", tmp_path).judge(asked[:1])
    both = Endpoint(server.url, "m", tmp_path).judge(asked)
    assert (first.answers, both.answers, len(server.asked)) == ([1.0], [1.0, 0.0], 4)


def test_no_question_is_no_request(tmp_path: Path) -> None:
    assert Endpoint("http://127.0.0.1:9/v1", "m", tmp_path).judge([]).answers == []


def test_the_cure_of_another_address_says_that_it_begins_anew(serve: Callable[[Reply], Server], tmp_path: Path) -> None:
    at = serve(lambda body: (404, "no such model"))
    with pytest.raises(ServerError, match=r"another evaluate\.judge_url.* add --rebuild"):
        Endpoint(at.url, "m", tmp_path).judge(questions(("a", "b")))
