"""The labelling screens: each interface is a Label Studio configuration, with the guidelines on it."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path
from xml.sax.saxutils import quoteattr

from trueup.errors import ConfigError
from trueup.feedback.annotations import STAMP
from trueup.feedback.tasks import clean

FOLDER = "trueup.feedback.interfaces"
TEXTS = (".md", ".txt")
MOST_OF_A_NAME = 200  # characters
FILE_NAME = re.compile(r"(?i)[^\n]*\.(md|txt)|\S*\.(html?|docx?|pdf|odt|rtf|rst|markdown|text)")  # of guidelines


def screen(interface: str, guidelines: str = "") -> str:
    """The configuration of a screen. `guidelines` fold into a panel above the dialogue.

    Their version goes with every label: a text box that nobody sees holds it, and Label Studio stores what is in a
    text box whether or not it was touched.
    """
    begin = f"<Style>\n{_part('style.css')}</Style>\n"
    stamp = ""
    if guidelines:
        told = _part("guidelines.xml").replace("{version}", version(guidelines))
        begin += told.replace('"{text}"', quoteattr(_literal(clean(guidelines)), {"\n": "&#10;"}))
        hidden = f'<TextArea name="{STAMP}" toName="response" value="{version(guidelines)}" maxSubmissions="1"/>'
        stamp = f'<View className="rl-stamp">{hidden}</View>'
    return (
        _part(f"{interface}.xml")
        .replace("<!-- begin -->", begin + _part("dialogue.xml").strip())
        .replace("<!-- stamp -->", stamp)
    )


def read_guidelines(given: str | None, folder: Path) -> str:
    """The guidelines of a run file: the text itself, or a file in `folder`. Raises ConfigError where it has none."""
    given = (given or "").strip()
    if not FILE_NAME.fullmatch(given) and not _is_there(given, folder):
        return given
    path, found = folder / Path(given).expanduser(), ""
    try:
        text = path.read_text(encoding="utf-8-sig") if given.lower().endswith(TEXTS) else ""
    except FileNotFoundError:
        text, found = "", "no such file"
    except (OSError, ValueError) as error:
        text, found = "", f"a file that cannot be read: {error}"
    else:
        found = "an empty file" if given.lower().endswith(TEXTS) else "another kind of file"
    if not clean(text).strip():
        raise ConfigError(
            "collect.guidelines",
            found=f"{path}: {found}",
            expected=f"a text file in UTF-8 ({' or '.join(TEXTS)})",
            next_step="correct the path, or write the guidelines into the run file",
        )
    return text.strip()


def _is_there(given: str, folder: Path) -> bool:
    """Whether the guidelines are the name of a file or folder, whatever it is called."""
    if not given or "\n" in given or len(given) > MOST_OF_A_NAME:
        return False
    try:
        return (folder / given).exists()
    except (OSError, ValueError):  # no name of a file
        return False


def version(guidelines: str) -> str:
    """Eight hexadecimal digits that are others as soon as a character of the guidelines is."""
    return hashlib.sha256(guidelines.encode()).hexdigest()[:8] if guidelines else ""


def _literal(text: str) -> str:
    """The text with a word joiner, which nobody sees, after each $: Label Studio would read a variable's name there."""
    return text.replace("$", "$\u2060")


def _part(name: str) -> str:
    return files(FOLDER).joinpath(name).read_text(encoding="utf-8")
