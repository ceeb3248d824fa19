"""The license of the base: what the run file, the base's card or its LICENSE file says. Nothing is guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.export.origin import Origin
from trueup.models import base, packaged
from trueup.run import reachable
from trueup.run.base import PACKAGE, is_hub_id, is_package, of_hub

# before a license's own words: white space, a heading's markup, and lines of copyright
BEFORE = re.compile(r"(?:[\s#*=_>-]*(?:copyright\b|\(c\)|©|all rights reserved\b)[^\n]*\n)*[\s#*=_>-]*", re.IGNORECASE)
TEXTS = {  # how licenses begin -> the hub's identifier
    r"apache license\s+version 2\.0": "apache-2.0",
    r"(?:the )?mit license(?: \(mit\))?[*_]*\s*(?:\n|$)": "mit",
    r"permission is hereby granted, free of charge,\s+to any person\s+obtaining\s+a\s+copy": "mit",  # without its title
    r"llama 2 community license": "llama2",
    r"meta llama 3 community license": "llama3",
    r"llama 3\.([123]) community license": r"llama3.\1",
    r"llama 4 community license": "llama4",
    r"gemma terms of use": "gemma",
    r"bsd 3-clause license": "bsd-3-clause",
    r"gnu general public license\s+version 3": "gpl-3.0",
    r"mozilla public license version 2\.0": "mpl-2.0",
}


@dataclass(frozen=True)
class License:
    """As a card's front matter has it. `found_in` is said in the card."""

    identifier: str  # of the hub: apache-2.0, or `other`, which has a name
    found_in: str
    name: str | None = None
    link: str | None = None

    def front_matter(self) -> dict[str, str]:
        known = {"license": self.identifier, "license_name": self.name, "license_link": self.link}
        return {key: value for key, value in known.items() if value}


def of_run(model_base: str, given: str | None, origin: Origin) -> License | None:
    """The license of the base that `model.base` names, whose origin is known; None where nobody says.

    `given` is the run file's `export.license`, which comes first.
    """
    if given:
        return License(given, "the run file's export.license")
    if is_package(model_base):
        return License(packaged.PACKAGES[model_base.removeprefix(PACKAGE)].license, "the model the package was made of")
    return find(base.locate(model_base), origin.name if origin.on_hub else None)


def find(folder: str | Path, hub_id: str | None = None) -> License | None:
    """The license of the base in `folder`, or of the hub's model `hub_id`, owner/name; None where nobody says."""
    where = Path(folder)
    card = where / "README.md" if where.is_dir() else None
    if card is None or not card.is_file():
        card = _fetched(hub_id) if hub_id and is_hub_id(hub_id) else None
    if card is not None and (found := _of_card(card)):
        return found
    for path in sorted(where.glob("LICEN[CS]E*")) if where.is_dir() else ():
        if found := _of_text(path):
            return found
    return None


def _fetched(hub_id: str) -> Path | None:
    """The card of a model of the hub, from this machine's copy or the hub; None where there is neither."""
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    name, revision = of_hub(hub_id)
    known = try_to_load_from_cache(name, "README.md", revision=revision)
    if isinstance(known, str):
        return Path(known)
    if constants.is_offline_mode() or not reachable.is_reachable():
        return None
    try:
        return Path(hf_hub_download(name, "README.md", revision=revision))
    except Exception:  # the client raises errors of many libraries; then the license is not known, which is said
        return None


def _of_card(path: Path) -> License | None:
    from huggingface_hub import ModelCard

    try:
        data: Any = ModelCard(path.read_text(encoding="utf-8"), ignore_metadata_errors=True).data
    except Exception:  # whatever a torn file makes the library raise
        return None
    found = data.get("license")
    if isinstance(found, list):
        found = found[0] if len(found) == 1 else None
    if not isinstance(found, str) or found in ("", "unknown"):
        return None
    name, link = data.get("license_name"), data.get("license_link")
    return License(found, "the base's own card", _text(name), _text(link))


def _of_text(path: Path) -> License | None:
    try:
        whole = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    start = BEFORE.match(whole)
    text = whole[start.end() if start else 0 :]
    for pattern, identifier in TEXTS.items():
        if match := re.match(pattern, text, re.IGNORECASE):
            return License(match.expand(identifier), f"the base's {path.name}")
    first = whole.splitlines()[0].strip() if whole else ""
    return License("other", f"the base's {path.name}", name=first[:80]) if first else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
