"""What is installed is all that was written: the wheel's files, its description, and the command in an empty folder."""

import os
import re
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import trueup

ROOT = Path(__file__).parents[2]
FOLDERS = {"src/trueup": "trueup", "stages": "trueup/stages", "feedback": "trueup/feedback"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what is tracked, so that nothing of an earlier build joins it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for path in (*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        run("cp", "-r", str(ROOT / path), str(source / path))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    run(sys.executable, "-m", "pip", "wheel", *options, str(source))
    return next(folder.glob("*.whl"))


def run(*command: str, folder: Path | None = None, path: Path | None = None) -> str:
    env = os.environ | ({"PYTHONPATH": str(path)} if path else {})
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    wanted = {
        f"{inside}/{path.relative_to(ROOT / folder)}"
        for folder, inside in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == wanted


def test_its_description_is_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as files:
        name = next(name for name in files.namelist() if name.endswith("METADATA"))
        metadata = message_from_bytes(files.read(name))
    assert (metadata["Name"], metadata["Version"]) == ("trueup", trueup.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {"gguf", "report", "docs", "dev"} <= set(metadata.get_all("Provides-Extra", []))
    assert "pip install trueup" in str(metadata.get_payload())
    twine = pytest.importorskip("twine.commands.check", reason="twine is not installed")
    assert twine.check([str(wheel)], strict=True) is False  # no fault


def test_it_works_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    installed, folder = tmp_path / "installed", tmp_path / "empty"
    folder.mkdir()
    with zipfile.ZipFile(wheel) as files:
        files.extractall(installed)
    trueup_command = (sys.executable, "-m", "trueup.cli.main")
    where = run(sys.executable, "-c", "import trueup; print(trueup.__file__)", folder=folder, path=installed)
    assert Path(where.strip()).is_relative_to(installed)
    shown = run(*trueup_command, "--help", folder=folder, path=installed)
    assert re.search(r"^  export ", shown, re.MULTILINE)
    run(*trueup_command, "init", "run.yaml", folder=folder, path=installed)
    for name, columns in {"demonstrations": "prompt,response", "prompts": "prompt", "held_out": "prompt"}.items():
        row = "Hello from {0}?,Hello." if "response" in columns else "Is {0} here?"
        (folder / f"{name}.csv").write_text(f"{columns}\n{row.format(name)}\n")
    run(*trueup_command, "data", "check", "run.yaml", folder=folder, path=installed)
    assert (folder / "data-check.html").exists()
    assert run(*trueup_command, "schema", folder=folder, path=installed) == (folder / "run.schema.json").read_text()
