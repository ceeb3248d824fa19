"""Pushing: onto a small hub that speaks the client's own protocol, from a process of its own, as a command is."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import local_hub
import pytest

from trueup.errors import HubError
from trueup.export import push

CARD = "---\ntags: [trueup]\n---\n\n# Card\n"
CODE = """
import json, sys
from pathlib import Path
from trueup.errors import HubError
from trueup.export import push
what, out, name, forms = sys.argv[1:]
try:
    if what == "check":
        push.check(name, forms.split(","))
    else:
        print(json.dumps(push.send(push.parcels(Path(out), name, forms.split(",")), private=what == "private")))
except HubError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def hub() -> Iterator[local_hub.Hub]:
    with local_hub.running() as hub:
        yield hub


@pytest.fixture
def out(tmp_path: Path) -> Path:
    for form in ("adapter", "merged"):
        (tmp_path / form).mkdir()
        (tmp_path / form / "README.md").write_text(CARD)
        (tmp_path / form / "config.json").write_text(json.dumps({"form": form}))
        (tmp_path / form / "model.safetensors").write_bytes(form.encode() * 1000)
    return tmp_path


def call(hub: local_hub.Hub, what: str, out: Path, name: str, forms: str, **environment: str) -> tuple[int, str]:
    """(exit status, what it printed) of a process with the environment that a user would have."""
    known = {"HF_ENDPOINT": hub.fake.url, "HF_TOKEN": local_hub.TOKEN, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, what, str(out), name, forms],
        env=os.environ | {"HF_HUB_OFFLINE": "0", "HF_HOME": str(out / "home")} | known | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert local_hub.TOKEN not in done.stdout + done.stderr
    return done.returncode, done.stdout + done.stderr


def test_each_form_becomes_a_private_repository_with_all_its_files(hub: local_hub.Hub, out: Path) -> None:
    status, said = call(hub, "private", out, "ada/assistant", "adapter,merged")
    assert status == 0, said
    assert set(hub.repos) == {"ada/assistant", "ada/assistant-adapter"}
    for name, form in (("ada/assistant", "merged"), ("ada/assistant-adapter", "adapter")):
        repo = hub.repos[name]
        assert repo.private
        assert repo.files == {path.name: path.read_bytes() for path in (out / form).iterdir()}
        assert f"/{name}" in said


def test_a_second_push_leaves_nothing_of_the_first(hub: local_hub.Hub, out: Path) -> None:
    (out / "merged" / "model-00001-of-00002.safetensors").write_bytes(b"a shard")
    assert call(hub, "private", out, "larkspur/assistant", "merged")[0] == 0
    (out / "merged" / "model-00001-of-00002.safetensors").unlink()
    (out / "merged" / "config.json").write_text("{}")
    assert call(hub, "private", out, "larkspur/assistant", "merged")[0] == 0
    files = hub.repos["larkspur/assistant"].files
    assert set(files) == {"README.md", "config.json", "model.safetensors"}
    assert files["config.json"] == b"{}"


def test_what_others_pushed_and_what_is_public_is_left_alone(hub: local_hub.Hub, out: Path) -> None:
    hub.repos["ada/theirs"] = local_hub.Repository(private=True, files={"pytorch_model.bin": b"theirs"})
    hub.repos["ada/open"] = local_hub.Repository(private=False, files={"README.md": CARD.encode()})
    for what in ("check", "private"):
        status, said = call(hub, what, out, "ada/theirs", "merged")
        assert status != 0 and "ada/theirs exists and holds 1 files that trueup did not push" in said
        status, said = call(hub, what, out, "ada/open", "merged")
        assert status != 0 and "ada/open exists and is public" in said
    assert hub.repos["ada/theirs"].files == {"pytorch_model.bin": b"theirs"}
    assert set(hub.repos["ada/open"].files) == {"README.md"}
    assert call(hub, "public", out, "ada/open", "merged")[0] == 0
    assert "model.safetensors" in hub.repos["ada/open"].files


@pytest.mark.parametrize(
    ("environment", "name", "said"),
    [
        ({"HF_TOKEN": ""}, "ada/assistant", "HF_TOKEN is not set"),
        ({"HF_TOKEN": "hf_a b"}, "ada/assistant", "HF_TOKEN holds spaces"),
        ({"HF_TOKEN": "hf_of_nobody"}, "ada/assistant", "Invalid user token"),
        ({"HF_HUB_OFFLINE": "1"}, "ada/assistant", "HF_HUB_OFFLINE forbids"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "ada/assistant", "Connection refused"),
        ({}, "somebody/assistant", "the token is that of ada, who has no say in somebody"),
        ({}, "ada/-x", "cannot start or end with '-'"),
    ],
)
def test_it_is_refused_before_anything_is_built(
    hub: local_hub.Hub, out: Path, environment: dict[str, str], name: str, said: str
) -> None:
    status, found = call(hub, "check", out, name, "merged", **environment)
    assert status == 1 and said in found
    assert "Traceback" not in found
    assert not environment.get("HF_TOKEN") or environment["HF_TOKEN"] not in found
    assert not hub.repos


def test_a_broken_upload_is_one_message_and_goes_on(hub: local_hub.Hub, out: Path) -> None:
    hub.broken = True
    status, said = call(hub, "private", out, "ada/assistant", "merged")
    assert status == 1 and "Traceback" not in said
    assert "Error while uploading 'model.safetensors' to the Hub.: Bad request: the store is full" in said
    assert "model.safetensors" not in hub.repos["ada/assistant"].files
    hub.broken = False
    assert call(hub, "private", out, "ada/assistant", "merged")[0] == 0
    assert hub.repos["ada/assistant"].files["model.safetensors"] == b"merged" * 1000


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("assistant", "'assistant' names no owner"),
        ("a/b/c", "'a/b/c' has more than one /"),
        ("ada/as--sistant", "Cannot have -- or .."),
        ("ada/" + "x" * 90, "maximum length is 96"),  # with -adapter
        ("ada/assistant.git", ".git"),
    ],
)
def test_names_that_a_hub_refuses(name: str, said: str) -> None:
    with pytest.raises(HubError) as caught:
        push.repositories(name, ["merged", "adapter"])
    assert said in str(caught.value)


def test_the_dry_run_lists_every_file_with_its_size(out: Path) -> None:
    found = push.parcels(out, "ada/assistant", ["merged", "adapter"])
    assert push.lines(found) == [
        "ada/assistant: 3 files, 6.0 kB",
        f"{'31 B':>12}  README.md",
        f"{'18 B':>12}  config.json",
        f"{'6.0 kB':>12}  model.safetensors",
        "ada/assistant-adapter: 3 files, 7.0 kB",
        f"{'31 B':>12}  README.md",
        f"{'19 B':>12}  config.json",
        f"{'7.0 kB':>12}  model.safetensors",
    ]


def test_a_form_that_was_not_exported_is_named(out: Path) -> None:
    with pytest.raises(HubError, match="gguf: nothing was exported there"):
        push.parcels(out, "ada/assistant", ["merged", "gguf"])
