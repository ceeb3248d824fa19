"""Pushing what was exported to a hub, each form as a repository of its own, private unless it is asked to be public.

The token comes from the environment variable HF_TOKEN alone, and HF_ENDPOINT says which hub.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TOKEN = "HF_TOKEN"  # noqa: S105 - the name of the variable
SUFFIXES = {"merged": "", "adapter": "-adapter", "gguf": "-GGUF"}  # the first of them has none
TAG = "trueup"  # of every card that trueup writes


@dataclass(frozen=True)
class Parcel:
    """One folder and the repository that it becomes."""

    repo: str
    folder: Path

    def files(self) -> list[tuple[str, int]]:
        """(path in the repository, bytes) of everything that goes, sorted."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted((str(path.relative_to(self.folder)), path.stat().st_size) for path in found)


def repositories(name: str, forms: Sequence[str]) -> dict[str, str]:
    """The repository of each form: `name` itself for the first of merged, adapter, gguf; a suffix for the others.

    Raises HubError for names that a hub refuses, all of them at once.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    ordered = [form for form in SUFFIXES if form in forms]
    repos = {form: name + (SUFFIXES[form] if number else "") for number, form in enumerate(ordered)}
    faults = []
    for repo in repos.values():
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            faults.append(str(error).rstrip("."))
    if name.count("/") != 1:
        faults = [f"{name!r} names no owner" if "/" not in name else f"{name!r} has more than one /"]
    if faults:
        raise HubError(
            f"export.push: {name}",
            found="\n  ".join(faults),
            expected="owner/name, at most 96 characters with its suffix, of letters, digits, -, _ and . (no -- or ..)",
            next_step="correct --push",
        )
    return repos


def check(name: str, forms: Sequence[str], *, private: bool = True) -> None:
    """Before anything is built: the names, the token, and whether the hub takes both.

    Raises HubError; it never holds the token.
    """
    where = f"export.push: {name}"
    for repo in repositories(name, forms).values():
        _standing(_api(where), repo, where, private=private)


def parcels(out: Path, name: str, forms: Sequence[str]) -> list[Parcel]:
    """What would go where, out of an export's folder. Raises HubError as `repositories` does, and for an empty form."""
    found = [Parcel(repo, out / form) for form, repo in repositories(name, forms).items()]
    if missing := [parcel for parcel in found if not parcel.files()]:
        raise HubError(
            f"export.push: {name}",
            found=f"{', '.join(parcel.folder.name for parcel in missing)}: nothing was exported there",
            expected="a complete export",
            next_step="trueup export RUN.yaml",
        )
    return found


def lines(found: Sequence[Parcel]) -> list[str]:
    """What a dry run prints: each repository, each file of it with its size, and the sum."""
    said = []
    for parcel in found:
        files = parcel.files()
        said.append(f"{parcel.repo}: {len(files):,} files, {_size(sum(size for _, size in files))}")
        said += [f"  {_size(size):>10}  {path}" for path, size in files]
    return said


def send(found: Sequence[Parcel], *, private: bool = True) -> list[str]:
    """Create the repositories and upload the folders; files of an earlier push that are gone here are deleted there.

    Returns an address each. Raises HubError when the hub refuses or breaks off; the same call then goes on, since what
    has arrived is not sent again.
    """
    addresses = []
    for parcel in found:
        where = f"pushing {parcel.repo}"
        api = _api(where)
        _standing(api, parcel.repo, where, private=private)
        url = _asking(where, lambda p=parcel, a=api: a.create_repo(p.repo, private=private, exist_ok=True))
        _asking(
            where,
            lambda p=parcel, a=api: a.upload_folder(
                repo_id=p.repo, folder_path=p.folder, commit_message="Export by trueup", delete_patterns="*"
            ),
        )
        addresses.append(str(url))
    return addresses


def _api(where: str) -> HfApi:
    """The hub's client with the token of the environment. Raises HubError without one, and when we may not ask."""
    from huggingface_hub import HfApi, constants

    token = os.environ.get(TOKEN, "").strip()
    if not token or any(c.isspace() or not c.isprintable() for c in token):
        raise HubError(
            where,
            found=f"{TOKEN} is not set" if not token else f"{TOKEN} holds spaces or control characters",
            expected=f"a token of the hub that may write, in the environment variable {TOKEN}",
            next_step=f"export {TOKEN}=..., with a token from the settings of your account on the hub",
        )
    if constants.is_offline_mode():
        raise HubError(where, found="HF_HUB_OFFLINE forbids asking the hub", next_step="unset HF_HUB_OFFLINE")
    return HfApi(token=token)


def _standing(api: HfApi, repo: str, where: str, *, private: bool) -> None:
    """Raises HubError unless the token's owner may write there, and `repo` is new or an earlier export of trueup's."""
    from huggingface_hub.errors import RepositoryNotFoundError

    known = _asking(where, api.whoami)
    owners = [str(known.get("name")), *(str(org.get("name")) for org in known.get("orgs") or [])]
    if repo.split("/")[0] not in owners:
        raise HubError(
            where,
            found=f"the token is that of {owners[0]}, who has no say in {repo.split('/')[0]}",
            expected=f"one of {', '.join(owners)} before the /",
            next_step="correct --push, or use a token of that owner",
        )
    try:
        info = _asking(where, lambda: api.model_info(repo), passing=RepositoryNotFoundError)
    except RepositoryNotFoundError:
        return
    files = {file.rfilename for file in info.siblings or []} - {".gitattributes"}
    if files and TAG not in (info.tags or []):
        raise HubError(
            where,
            found=f"{repo} exists and holds {len(files):,} files that trueup did not push",
            expected="a name that is free, or a repository whose card has the tag trueup",
            next_step="choose another name for --push",
        )
    if private and info.private is False:
        raise HubError(
            where,
            found=f"{repo} exists and is public",
            expected="a private repository, unless you ask for a public one",
            next_step="make it private on the hub, choose another name, or add --push-public",
        )


def _asking(where: str, call: Any, passing: type[Exception] | tuple[type[Exception], ...] = ()) -> Any:
    """What `call` returns; its errors as HubError, without the token."""
    try:
        return call()
    except passing:
        raise
    except Exception as error:  # the client raises errors of many libraries
        said = ": ".join(_on_one_line(one) for one in (error, error.__cause__) if one is not None)
        token = os.environ.get(TOKEN, "").strip()
        raise HubError(
            where,
            found=(said.replace(token, "***") if token else said)[:300],
            expected="a hub that answers, and a token that may write",
            next_step="check HF_TOKEN, HF_ENDPOINT and the connection, and run the same command again",
        ) from None


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _size(count: int) -> str:
    """Bytes as people read them, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.2f} GB"
