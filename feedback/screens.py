"""The labelling screens: each interface is a Label Studio configuration, with the guidelines on it."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from xml.sax.saxutils import quoteattr

from trueup.feedback.annotations import STAMP
from trueup.feedback.tasks import clean

FOLDER = "trueup.feedback.interfaces"


def screen(interface: str, guidelines: str = "") -> str:
    """The configuration of a screen. `guidelines` fold into a panel above the dialogue.

    Their version goes with every label: a text box that nobody sees holds it, and Label Studio stores what is in a
    text box whether or not it was touched.
    """
    begin = f"<Style>\n{_part('style.css')}</Style>\n"
    stamp = ""
    if guidelines:
        told = _part("guidelines.xml").replace("{version}", version(guidelines))
        begin += told.replace('"{text}"', quoteattr(clean(guidelines), {"\n": "&#10;"}))
        hidden = f'<TextArea name="{STAMP}" toName="response" value="{version(guidelines)}" maxSubmissions="1"/>'
        stamp = f'<View className="rl-stamp">{hidden}</View>'
    return (
        _part(f"{interface}.xml")
        .replace("<!-- begin -->", begin + _part("dialogue.xml").strip())
        .replace("<!-- stamp -->", stamp)
    )


def version(guidelines: str) -> str:
    """Eight hexadecimal digits that are others as soon as a character of the guidelines is."""
    return hashlib.sha256(guidelines.encode()).hexdigest()[:8] if guidelines else ""


def _part(name: str) -> str:
    return files(FOLDER).joinpath(name).read_text(encoding="utf-8")
