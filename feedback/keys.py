"""Keys that Label Studio lacks: a script in the pages of the server that trueup runs. A server of others has none."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

from trueup.errors import ServerError

BEGIN, END = '<script nonce="{{request.csp_nonce}}" data-from="trueup">\n', "</script>\n"


def install(environment: Path) -> None:
    """Put the script into the one template of Label Studio's pages; doing it twice changes nothing.

    The file is replaced, never written to: uv shares its contents with other environments. In an environment of
    somebody else's, which cannot be changed, Label Studio's own keys remain. Raises ServerError without the template.
    """
    page = next(environment.glob("lib/python3*/site-packages/label_studio/templates/base.html"), None)
    text = "" if page is None else page.read_text(encoding="utf-8")
    if page is None or "</head>" not in text:
        raise ServerError(
            str(environment),
            found="a Label Studio without its page template",
            expected="label_studio/templates/base.html with a head",
            next_step=f"remove {environment}, and run the same command again",
        )
    before, old, rest = text.partition(BEGIN)
    plain = before + rest.partition(END)[2] if old else text
    keys = files("trueup.feedback.interfaces").joinpath("keys.js").read_text(encoding="utf-8")
    wanted = plain.replace("</head>", f"{BEGIN}{keys}{END}</head>", 1)
    if wanted != text:
        aside = page.with_name(f"base.html.{os.getpid()}")
        with suppress(PermissionError):
            aside.write_text(wanted, encoding="utf-8")
            aside.replace(page)
