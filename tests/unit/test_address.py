"""Addresses: what is none is said with what was expected, and all spellings of one server are one."""

from pathlib import Path

import pytest

from trueup.errors import ConfigError, ServerError
from trueup.feedback.connection import connect
from trueup.run.address import canonical, clean, is_loopback
from trueup.run.run_file import load

WRONG = [
    "labels.example.org",
    "labels.example.org:8080",
    "localhost:8080",
    "ftp://labels.example.org",
    "http://",
    "http://[::1",
    "http://labels.example.org:eighty",
    "http://labels.example.org:70000",
    "https://labels example.org",
    "",
    "//labels.example.org",
]


@pytest.mark.parametrize("url", WRONG)
def test_what_opens_nothing_is_refused_before_anything_starts(tmp_path: Path, url: str) -> None:
    (tmp_path / "run.yaml").write_text("name: x\n")
    with pytest.raises(ConfigError, match=r"labelstudio\.url: found .*expected: "):
        load(tmp_path / "run.yaml", {}, (f'labelstudio.url="{url}"',))
    with pytest.raises(ServerError, match=r"labelstudio\.url"):
        connect(tmp_path, url)


@pytest.mark.parametrize(
    ("page", "server"),
    [
        ("http://h:8080/projects/3/data?tab=2", "http://h:8080"),
        ("https://h/label/user/login/?next=/", "https://h/label"),
        ("https://h/?next=1", "https://h"),
    ],
)
def test_an_address_copied_from_a_browser_names_the_servers(page: str, server: str) -> None:
    with pytest.raises(ValueError, match="not a page's") as refused:
        clean(page)
    assert str(refused.value).endswith(f": {server}")


@pytest.mark.parametrize("url", ["https://labels.example.org/", " https://labels.example.org/tools//\n", "http://h:80"])
def test_slashes_and_white_space_around_an_address_are_nothing(url: str) -> None:
    assert clean(url) == url.strip().rstrip("/")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://127.0.0.1:8257", "http://127.0.0.1:8257/", True),
        ("http://localhost:8257", "http://127.0.0.1:8257", True),
        ("http://[::1]:8257/", "http://127.0.0.1:8257", True),
        ("http://Labels.Example.org", "http://labels.example.org:80/", True),
        ("https://labels.example.org", "https://labels.example.org:443", True),
        ("http://labels.example.org", "https://labels.example.org", False),
        ("http://127.0.0.1:8257", "http://127.0.0.1:8258", False),
        ("http://h/one", "http://h/two", False),
        ("http://localhost.example.org", "http://127.0.0.1", False),
    ],
)
def test_all_spellings_of_a_server_are_one(one: str, other: str, same: bool) -> None:
    assert (canonical(one) == canonical(other)) is same
    assert is_loopback("http://127.0.0.1.example.org:1") is False


def test_a_password_in_an_address_is_refused_and_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: x\nlabelstudio: {url: 'http://me:hunter2@h:8080'}\n")
    settings = load(tmp_path / "run.yaml", {}).labelstudio
    with pytest.raises(ServerError, match="a name or password before the host") as refused:
        connect(tmp_path, settings.url)
    assert "hunter2" not in str(refused.value)
