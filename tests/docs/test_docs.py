"""The pages say what is there: commands, options and keys that exist, the code's own messages, links that lead on."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import generated
import messages
import pytest
import yaml
from pydantic import BaseModel

from trueup.cli.main import main
from trueup.run.data_config import Shot, Source
from trueup.run.run_file import model
from trueup.stages import STAGES

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name not in generated.PAGES)
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *PAGES]
SHAPE = model({stage.name: stage.config for stage in STAGES})
MAX_LINES = 120  # of README


def code(path: Path) -> Iterator[str]:
    """Each line of code of a page: from indented and fenced blocks, and from between backticks."""
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line
        else:
            yield from re.findall(r"`([^`]+)`", line)


def commands(path: Path) -> Iterator[list[str]]:
    """The words after each `trueup` of a page's code, as far as the command goes."""
    for line in code(path):
        for typed in re.findall(r"(?:^|[\s/(])trueup ((?:[a-z]|--)[^;|]*)", re.sub(r"(?:^|\s)#.*", "", line)):
            yield typed.split()


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_commands_and_their_options_exist(path: Path) -> None:
    for words in commands(path):
        command: click.Command = main
        while words and isinstance(command, click.Group) and not words[0].startswith("-"):
            assert words[0] in command.commands, f"trueup {' '.join(words)}"
            command = command.commands[words.pop(0)]
        known = {name for option in command.params for name in option.opts} | {"--help"}
        options = [word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z-]+(=.*)?", word)]
        assert set(options) <= known, f"{command.name} {' '.join(words)}"


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_keys_exist(path: Path) -> None:
    """`section.key` in code, `--set section.key=value`, and every key of a block that is part of a run file."""
    for line in code(path):
        for section, key in re.findall(r"(?<![\w./-])([a-z]+)\.([a-z_]+)(?![\w(/]|\.[a-z])", line):
            if section in SHAPE.model_fields and key not in ("yaml", "json", "md", "html", "py", "csv", "jsonl"):
                assert key in fields(SHAPE.model_fields[section].annotation), f"{section}.{key}"
    for block in blocks(path):
        if isinstance(block, dict) and block.keys() <= SHAPE.model_fields.keys():
            for section, value in block.items():
                known = fields(SHAPE.model_fields[section].annotation)
                unknown = value.keys() - known if isinstance(value, dict) and known else ()
                assert not unknown, f"{section}: {unknown}"


def fields(annotation: Any) -> set[str]:
    """The keys of a section, or none of a plain value."""
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return set(annotation.model_fields) if is_section else set()


def blocks(path: Path) -> Iterator[Any]:
    """Blocks of code that are YAML."""
    text = path.read_text(encoding="utf-8")
    for block in re.findall(r"(?:^|\n\n)((?:    [^\n]*(?:\n|$))+)|```yaml\n(.*?)```", text, re.DOTALL):
        try:
            yield yaml.safe_load("\n".join(line.removeprefix("    ") for line in "".join(block).splitlines()))
        except yaml.YAMLError:
            continue


def test_the_reference_is_what_the_code_says() -> None:
    for name, make in generated.PAGES.items():
        assert (ROOT / "docs" / name).read_text(encoding="utf-8") == make(), f"docs/{name}: run `make reference`"


def test_every_key_has_a_row_and_every_command_a_section() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", generated.configuration(), re.MULTILINE)
    wanted = [name for name, field in SHAPE.model_fields.items() if not fields(field.annotation)]
    wanted += [key for field in SHAPE.model_fields.values() for key in fields(field.annotation)]
    assert sorted(rows) == sorted([*wanted, *Source.model_fields, *Shot.model_fields])
    headings = re.findall(r"^#+ trueup (.+)$", generated.commands(), re.MULTILINE)
    leaves = [name for name, command in main.commands.items() if not isinstance(command, click.Group)]
    assert set(leaves) <= set(headings)
    assert {"data check", "data prepare", "labelstudio start"} <= set(headings)


def test_troubleshooting_quotes_messages_that_exist() -> None:
    """A paragraph that begins in bold with a small letter quotes a message; what depends on the case is `...`."""
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    quoted = [one for one in re.findall(r"\*\*([^*]+?)\.?\*\*", text) if one[0] in "." or one[0].islower()]
    assert len(quoted) > 25
    sources = [path for _, path in messages.files()]
    said = re.sub(r'"\s*\n\s*f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    for one in quoted:
        for piece in filter(None, (part.strip(" ,.") for part in one.split("..."))):
            assert piece in said, piece


def test_every_message_of_the_code_is_on_the_page() -> None:
    """As found by another way: the words between `found=` and the end of a plain string."""
    page = messages.page().replace("\\", "").replace("&lt;", "<")
    for _, path in messages.files():
        for said in re.findall(r'found="([^"{}`\n]+)"(?!\.)', path.read_text(encoding="utf-8")):
            assert said in page, said


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    """As they are read in the repository; the site's own links are checked by its build."""
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", path.read_text(encoding="utf-8")):
        link = "".join(target)
        if not link.startswith(("https:", "http:", "mailto:")):
            assert (path.parent / link).exists(), link


def test_the_site_builds_without_a_warning_and_without_the_network(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    dead = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | dead | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr  # with --quiet mkdocs would count no warnings
    assert (done.returncode, "WARNING" in said) == (0, False), said
    pages = list((tmp_path / "site").glob("*.html"))
    assert {path.stem for path in PAGES} <= {path.stem for path in pages}
    fetched = re.compile(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"')
    assert not [found for page in pages for found in fetched.findall(page.read_text(encoding="utf-8"))]


def test_ci_elsewhere_runs_the_same_command_and_reports_of_bugs_bring_what_doctor_says() -> None:
    folder = ROOT / ".github"
    jobs = yaml.safe_load((folder / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]
    assert [step["run"] for step in jobs["test"]["steps"] if "run" in step] == [".ci/run"]
    classifiers = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert jobs["test"]["strategy"]["matrix"]["python"] == classifiers
    form = yaml.safe_load((folder / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8"))
    asked = {part["id"]: part for part in form["body"] if "id" in part}
    assert asked["doctor"]["validations"]["required"]
    assert "trueup doctor" in asked["doctor"]["attributes"]["label"]
