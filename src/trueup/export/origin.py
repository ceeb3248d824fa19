"""Which model an exported adapter belongs to, in words that another machine understands."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from pathlib import Path

from trueup.models import packaged
from trueup.run import base, reachable
from trueup.run.files import read_json

# names that a training script gives to folders of its own, and that look like owner/name
LOCAL = re.compile(
    r"(?:outputs?|runs?|models?|results?|tmp|temp|checkpoints?|ckpts?|experiments?|saved?|saves|trained|local|data|logs?"
    r"|home|content|workspace|work|weights)/.*|.*/(?:checkpoint|ckpt|step|epoch)s?[-_]?\d+(?:@.*)?",
    re.IGNORECASE,
)
SNAPSHOT = re.compile(r".*/models--([^/]+)--([^/]+)/snapshots/([0-9a-f]{40})/?")  # a folder of the hub's own cache


@dataclass(frozen=True)
class Origin:
    """The base of an adapter: `name` is owner/name on the hub, or ./FOLDER where nothing says which model it is."""

    name: str
    revision: str | None = None
    notes: list[str] = field(default_factory=list)  # what whoever loads the adapter must know about its base

    @property
    def on_hub(self) -> bool:
        return not self.name.startswith("./")


def of(model_base: str, named: str | None = None) -> Origin:
    """The origin of `model.base`; `named` is `export.base`, owner/name or owner/name@revision.

    A path of this machine never becomes part of it.
    """
    if named is not None:
        return Origin(*base.of_hub(named))
    if base.is_package(model_base):
        return _of_package(model_base.removeprefix(base.PACKAGE))
    if base.is_hub_id(model_base):
        name, revision = base.of_hub(model_base)
        return Origin(name, base.cached_commit(model_base) or revision)
    if found := SNAPSHOT.fullmatch(str(model_base)):
        return Origin(f"{found[1]}/{found[2]}", found[3])
    return _of_folder(Path(model_base))


def _of_package(name: str) -> Origin:
    package = packaged.PACKAGES[name]
    note = (
        f"The adapter was trained on the weights of the Python package {package.requirement}: {package.made_from}, "
        f"rounded to {package.rounded_to}. On the hub's own weights it was not measured."
    )
    return Origin(package.made_from, package.revision, [note])


def _of_folder(folder: Path) -> Origin:
    config = read_json(folder / "config.json") or {}
    named = config.get("_name_or_path")
    if not isinstance(named, str) or not base.is_hub_id(named) or LOCAL.fullmatch(named):
        named = None
    there = named is not None and _on_hub(base.of_hub(named)[0])
    if named is not None and there is not False:
        asked = "" if there else " Whether the hub has that model was not asked, since it was not reachable."
        note = (
            f"The base is a folder, and its config.json says that it was loaded from {named}. If its weights were "
            "trained further since, the adapter does not fit that model: then set export.base to the one it fits."
            + asked
        )
        return Origin(*base.of_hub(named), [note])
    note = (
        f"The base is a folder, {folder.name}, and nothing in it says which model of the hub it is. Load it first and "
        "put the adapter on it, or set export.base to its owner/name and export again."
    )
    return Origin(f"./{folder.name}", None, [note])


@functools.cache
def _on_hub(name: str) -> bool | None:
    """Whether the hub has a model owner/name; None where it cannot be asked. A model that is not public counts as none
    that others know."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import RepositoryNotFoundError

    if constants.is_offline_mode() or not reachable.is_reachable():
        return None
    try:
        HfApi(token=False).model_info(name, timeout=reachable.LIMIT_S)
    except RepositoryNotFoundError:
        return False
    except Exception:  # the client raises errors of many libraries
        return None
    return True
