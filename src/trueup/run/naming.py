"""The names of runs and of variants, and the folders of a round that bear them."""

from __future__ import annotations

import re

MAX_NAME = 100  # characters: a folder bears the name, and file systems take 255 bytes
NAME = f"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}"
IN_WORDS = f"at most {MAX_NAME} letters, digits, '.', '_' and '-', beginning with a letter or a digit"


def is_name(text: str) -> bool:
    """Whether a run or a variant may be called `text`."""
    return re.fullmatch(NAME, text) is not None


def folder_of(stage: str, variant: str = "") -> str:
    """The name of a stage's folder: `dpo`, or `dpo@beta-0.3` of a variant."""
    return f"{stage}@{variant}" if variant else stage


def split(folder: str) -> tuple[str, str]:
    """(stage, variant) of a folder's name, of one that is half-built, too; the variant is empty where it is none."""
    stage, _, variant = folder.removesuffix(".partial").partition("@")
    return stage, variant


def stage_of(folder: str) -> str:
    """The stage whose folder this is, of whatever variant."""
    return split(folder)[0]
