"""A server that is not what it should be: each answer ends in one message that says what came back."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
import stamina
from fake_server import Answer, Asked, serving
from label_studio_sdk import LabelStudio

from trueup.errors import ServerError
from trueup.feedback.api import ATTEMPTS, Api
from trueup.feedback.client import BODY_BYTES, BODY_TASKS, Client
from trueup.feedback.connection import Connection, connect
from trueup.feedback.faults import RequestError
from trueup.feedback.listing import PAGE, Listing

TOKEN = "0123456789abcdef" * 2
HTML = {"content-type": "text/html; charset=utf-8"}
LOGIN = b"<!doctype html><html><head><title>\n  Sign in - Example\n</title></head><body>...</body></html>"


def listing(sdk: LabelStudio) -> object:
    return sdk.projects.list(page=1)


def said(answer: Answer) -> str:
    with serving(lambda asked: answer) as fake, pytest.raises(RequestError) as error:
        Api(Connection(fake.url, TOKEN)).get("listing projects", listing)
    assert TOKEN not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("answer", "found", "next_step"),
    [
        ((200, HTML, LOGIN), "status 200, and no JSON but an HTML page, 'Sign in - Example'", "login page"),
        ((200, {}, b"[" * 200_000), "status 200, and 200,000 bytes that are no whole JSON", "labelstudio.url"),
        ((200, {"content-type": "text/plain"}, b"OK"), r"no JSON but text \(text/plain\)", "labelstudio.url"),
        (
            (302, {"location": "https://sso.example.org/auth?ticket=abc123"}, b""),
            "status 302, a redirect to https://sso.example.org/auth\n",
            "single sign-on",
        ),
        ((301, {"location": "/label/api/projects/"}, b""), "a redirect to /label/api/projects/", "labelstudio.url"),
        ((308, {}, b""), "a redirect to nowhere", "labelstudio.url"),
        ((401, {}, b'{"detail": "no"}'), "the token is refused", "LABEL_STUDIO_API_KEY"),
        ((403, HTML, LOGIN), "status 403", "administrator"),
        (
            (404, HTML, LOGIN * 2_000),
            "it is not there",
            "correct labelstudio.url; or, to publish a deleted project anew",
        ),
        ((413, HTML, LOGIN), "status 413", "client_max_body_size"),
        ((414, HTML, LOGIN), "status 414", "large_client_header_buffers"),
        ((400, {}, b'{"validation_errors": {"title": ["too long"]}}'), "status 400: .*too long", "log"),
        ((500, {}, b"[]"), "status 500", "log"),
    ],
)
def test_what_came_back_is_said(answer: Answer, found: str, next_step: str) -> None:
    message = said(answer)
    head, _, step = message.partition("next: ")
    assert re.search(found, head), message
    assert next_step in step
    assert len(message) < 700
    assert "abc123" not in message


def test_a_redirect_does_not_carry_the_token_elsewhere() -> None:
    with (
        serving(lambda asked: (200, {}, b"{}")) as elsewhere,
        serving(lambda asked: (307, {"location": f"{elsewhere.url}/api/projects/"}, b"")) as fake,
        pytest.raises(RequestError, match="a redirect to"),
    ):
        Api(Connection(fake.url, TOKEN)).get("listing projects", listing)
    assert elsewhere.asked == []


def test_a_busy_server_is_asked_again_but_nothing_is_sent_twice() -> None:
    codes = iter([502, 503, 200, 502])
    with serving(lambda asked: (next(codes), {}, b'{"a": 1}')) as fake:
        server = Api(Connection(fake.url, TOKEN))
        assert server.get("asking", listing) == {"a": 1}
        with pytest.raises(RequestError, match="status 502") as error:
            server.send("sending", lambda sdk: sdk.projects.create(title="x"))
    assert error.value.passing
    assert [asked.method for asked in fake.asked] == ["GET", "GET", "GET", "POST"]


def test_a_path_before_label_studio_is_kept() -> None:
    with serving(lambda asked: (200, {}, b"{}")) as fake:
        Api(Connection(f"{fake.url}/tools/label", TOKEN)).get("listing", listing)
    assert fake.asked[0].path == "/tools/label/api/projects/?page=1"
    assert fake.asked[0].headers["authorization"] == f"Token {TOKEN}"


def personal(seconds: float) -> str:
    """A token that runs out so many seconds from now, as Label Studio makes them."""
    return jwt.encode({"token_type": "refresh", "exp": int(time.time() + seconds)}, "secret " * 8)


def test_a_personal_access_token_is_traded_and_traded_again_when_it_has_run_out() -> None:
    token, traded = personal(3600), iter([personal(300), personal(301)])
    given = list[str]()

    def answer(asked: Asked) -> Answer:
        if asked.path == "/tools/label/api/token/refresh/":
            assert json.loads(asked.body) == {"refresh": token}
            given.append(next(traded))
            return 200, {}, json.dumps({"access": given[-1]}).encode()
        refused = asked.path.endswith("page=2") and asked.headers["authorization"] == f"Bearer {given[0]}"
        return (401, {}, b"") if refused else (200, {}, b"{}")

    with serving(answer) as fake:
        server = Api(Connection(f"{fake.url}/tools/label", token))
        server.get("asking", listing)
        server.get("asking", listing)
        server.get("asking", lambda sdk: sdk.projects.list(page=2))
    used = [(asked.path[-6:], asked.headers.get("authorization", "")[7:]) for asked in fake.asked]
    first, second = given
    pages = [("page=1", first), ("page=1", first), ("page=2", first)]
    assert used == [("fresh/", ""), *pages, ("fresh/", ""), ("page=2", second)]


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ((401, {}, b""), "the token is refused"),
        ((401, {}, b'{"detail": "no"}'), "the token is refused"),
        ((404, HTML, LOGIN), "it is not there"),
        ((302, {"location": "https://sso.example.org/"}, b""), "a redirect to"),
        ((200, HTML, LOGIN), "an HTML page"),
        ((200, {}, b""), "not Label Studio's"),
        ((200, {}, b"[]"), "not Label Studio's"),
        ((200, {}, b'{"access": "\\u00e9"}'), "not Label Studio's"),
        ((200, {}, b'{"access": null}'), "not Label Studio's"),
    ],
)
def test_a_personal_access_token_that_gives_nothing_is_said(answer: Answer, found: str) -> None:
    with serving(lambda asked: answer) as fake, pytest.raises(RequestError, match=found):
        Api(Connection(fake.url, personal(3600))).get("asking", listing)


@pytest.mark.parametrize("until", [{"exp": 1}, {"exp": 10**20}, {"exp": "soon"}, {"exp": [1]}, {}])
def test_a_personal_access_token_that_has_run_out_is_refused_before_it_is_sent(until: dict[str, object]) -> None:
    token = jwt.encode(until, "secret " * 8)
    with serving(lambda asked: (200, {}, b"{}")) as fake, pytest.raises(RequestError, match="the token is refused"):
        Api(Connection(fake.url, token)).get("asking", listing)
    assert fake.asked == []


def listening() -> tuple[int, list[bytes]]:
    """A port, and what arrives there first: an HTTP proxy that answers 403."""
    proxy, heard = socket.create_server(("127.0.0.1", 0)), list[bytes]()

    def serve() -> None:
        while True:
            connection, _ = proxy.accept()
            heard.append(connection.recv(65536))
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            connection.close()

    threading.Thread(target=serve, daemon=True).start()
    return int(proxy.getsockname()[1]), heard


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_never_hears_of_a_server_on_this_machine(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(other, raising=False)
    port, heard = listening()
    monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    with serving(lambda asked: (200, {}, b"{}")) as fake:
        for url in (fake.url, fake.url.replace("127.0.0.1", "localhost")):
            assert Api(Connection(url, TOKEN)).get("asking", listing) == {}
    assert heard == []
    with pytest.raises(RequestError, match="status 403"):  # another machine's is asked as the environment says
        Api(Connection("http://labels.example.org", TOKEN)).get("asking", listing)
    assert heard[0].startswith(b"GET http://labels.example.org/api/projects/")


@pytest.mark.parametrize(
    ("key", "found"),
    [("", "it is not set"), (" \n", "it is not set"), ("schlüssel", "characters that none has"), ("a b", "characters")],
)
def test_a_key_that_is_no_token_is_said_and_not_repeated(
    key: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", key)
    with pytest.raises(ServerError, match=found) as error:
        connect(tmp_path, "http://labels.example.org")
    assert key.strip() == "" or key not in str(error.value)


def test_a_line_end_after_the_key_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", f"{TOKEN}\r\n")
    assert connect(tmp_path, "http://labels.example.org").token == TOKEN


@pytest.mark.parametrize("url", ["http://LOCALHOST:8090/", "http://127.0.0.1:8090"])
def test_our_own_server_is_known_by_any_spelling(tmp_path: Path, url: str) -> None:
    (tmp_path / "credentials.json").write_text(json.dumps({"url": "http://127.0.0.1:8090", "token": "ours"}))
    assert connect(tmp_path, url).token == "ours"


@pytest.mark.parametrize("text", ["", "[]", '{"url": 3}', "\x00", "[" * 100_000])
def test_torn_credentials_are_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "credentials.json").write_text(text)
    with pytest.raises(ServerError, match=r"credentials\.json: no credentials that can be read"):
        connect(tmp_path)


def project_of(listing: Callable[[Asked], object]) -> Callable[[Asked], Answer]:
    return lambda asked: (200, {}, json.dumps(listing(asked)).encode())


@pytest.mark.parametrize("answer", [{"ok": True}, [], None, {"tasks": None, "total": 0}, {"tasks": [3], "total": 1}])
def test_an_answer_that_is_no_listing_does_not_count_as_no_tasks(answer: object) -> None:
    with (
        serving(project_of(lambda asked: answer)) as fake,
        pytest.raises(RequestError, match="an answer that is not Label Studio's"),
    ):
        Client(Connection(fake.url, TOKEN)).publish(1, [{"data": {"uid": "a"}}])
    assert {asked.method for asked in fake.asked} == {"GET"}


def test_tasks_travel_in_parcels_that_a_proxy_lets_through_and_addresses_stay_short() -> None:
    tasks = [{"data": {"uid": f"{number:020x}", "response": "x" * (number % 7) * 2_000}} for number in range(900)]
    there: list[object] = []

    def answer(asked: Asked) -> object:
        if asked.method == "POST":
            there.extend([{"id": len(there) + n} | task for n, task in enumerate(json.loads(asked.body))])
            return {}
        page = int(asked.path.partition("&page=")[2].partition("&")[0])
        return {"tasks": there[512 * (page - 1) : 512 * page], "total": len(there)}

    with serving(project_of(answer)) as fake:
        client = Client(Connection(fake.url, TOKEN))
        assert (client.publish(1, tasks), client.publish(1, tasks)) == (900, 0)
    sent = [json.loads(asked.body) for asked in fake.asked if asked.method == "POST"]
    assert [task for parcel in sent for task in parcel] == tasks
    assert max(len(parcel) for parcel in sent) <= BODY_TASKS
    assert max(len(asked.body) for asked in fake.asked) <= BODY_BYTES
    assert max(len(asked.path) for asked in fake.asked) < 1_000  # nginx takes 8,000 bytes with all headers


@pytest.mark.parametrize(("said", "wait_s"), [("7", 7.0), ("3600", 30.0), ("soon", None), ("-1", None), ("", None)])
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks_for(said: str, wait_s: float | None) -> None:
    with serving(lambda asked: (429, {"retry-after": said}, b"")) as fake, pytest.raises(RequestError) as error:
        Api(Connection(fake.url, TOKEN)).send("asking", listing)
    assert error.value.wait_s == wait_s


def test_what_a_server_says_to_the_question_is_not_asked_again() -> None:
    with serving(lambda asked: (500, {}, b"")) as fake:
        server = Api(Connection(fake.url, TOKEN))
        with pytest.raises(RequestError, match="status 500"):
            server.get("asking", listing, answers=(500,))
        assert len(fake.asked) == 1
        with pytest.raises(RequestError, match="status 500"):
            server.get("asking", listing)
    assert len(fake.asked) == 1 + ATTEMPTS


def test_the_pauses_grow_and_end_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stamina.set_testing(False)
    pauses: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", pauses.append)
    try:
        with serving(lambda asked: (503, {}, b"")) as fake, pytest.raises(RequestError):
            Api(Connection(fake.url, TOKEN)).get("asking", listing)
    finally:
        stamina.set_testing(True, attempts=ATTEMPTS)
    assert pauses == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("added", [0, 2])
def test_a_task_that_moves_while_pages_are_read_is_found(added: int) -> None:
    """Somebody deletes a task of the first page: those after it move up by one, the first of the second page too.

    Where two are added at once, as many tasks are seen as there are, and one of them is missed all the same.
    """
    there = [{"id": number} for number in range(PAGE + 10)]
    asked_for: list[int] = []

    def answer(asked: Asked) -> object:
        page = int(asked.path.partition("&page=")[2].partition("&")[0])
        if len(asked_for) == 1:
            del there[3]
            there.extend({"id": PAGE + 10 + number} for number in range(added))
        asked_for.append(page)
        return {"tasks": there[PAGE * (page - 1) : PAGE * page], "total": len(there)}

    with serving(project_of(answer)) as fake:
        found = [task["id"] for page in Listing(Api(Connection(fake.url, TOKEN))).judged(1) for task in page]
    assert sorted(found) == list(range(PAGE + 10 + added)) and asked_for == [1, 2, 1, 2]


def test_tasks_that_a_server_says_to_have_taken_and_has_not_are_missed() -> None:
    with (
        serving(project_of(lambda asked: {"tasks": [], "total": 0})) as fake,
        pytest.raises(RequestError, match="1 of 1 tasks that it took are not there"),
    ):
        Client(Connection(fake.url, TOKEN)).publish(1, [{"data": {"uid": "a"}}])
