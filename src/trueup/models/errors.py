"""What libraries raise while they read somebody's files, as one message: which file, what is wrong, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trueup.errors import ModelError, TrueupError
from trueup.run import weights

AGAIN = "copy or download the model again, or set model.base to another"

# (the name of an exception's class, or what its message holds; what was found; what to do)
KINDS: tuple[tuple[str, str, str], ...] = (
    ("GatedRepoError", "its licence has to be accepted first", "accept it on the model's page, then set HF_TOKEN"),
    ("RepositoryNotFoundError", "the hub has no such model, or it is private", "correct model.base, or set HF_TOKEN"),
    ("RevisionNotFoundError", "the hub has no such revision of it", "correct model.revision"),
    ("OfflineModeIsEnabled", "a file of it is not on this machine, and HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"),
    ("LocalEntryNotFoundError", "a file of it is not on this machine, and the hub does not answer", "try again later"),
    ("HFValidationError", "neither a folder nor a hub id", "set model.base to a folder, or to owner/name on the hub"),
    ("HfHubHTTPError", "the hub answered with an error", "try again later"),
    ("trust_remote_code", "it needs Python code of its own, which is never run", "set model.base to another model"),
    ("does not recognize this architecture", "this version of transformers does not know its model_type", AGAIN),
    ("Unrecognized model", "its config.json has no model_type that transformers knows", AGAIN),
    ("Unrecognized configuration class", "it is no causal language model", "set model.base to a chat model"),
    ("does not appear to have a file named", "a file is missing", AGAIN),
    ("no file named", "a file is missing", AGAIN),
    ("ignore_mismatched_sizes", "the shapes of its tensors are not those that its config.json says", AGAIN),
    ("StrictDataclassError", "its config.json has a value of another type than expected", AGAIN),
    ("size mismatch", "the shapes of its tensors are not those its configuration says", AGAIN),
    ("SafetensorError", "its weights cannot be read", AGAIN),
    ("sentencepiece", "its tokenizer needs the package sentencepiece", "pip install sentencepiece"),
    ("tiktoken", "its tokenizer needs the package tiktoken", "pip install tiktoken"),
)


@contextmanager
def loading(where: str, folder: Path | str | None = None, next_step: str = "") -> Iterator[None]:
    """Within the block a library reads the files of `folder`, or of a hub id. Raises ModelError for what it raises."""
    try:
        yield
    except (TrueupError, MemoryError):
        raise
    except Exception as error:  # a torn file makes the libraries raise nearly anything
        if "OutOfMemory" in type(error).__name__ or "can't allocate memory" in str(error):
            raise
        raise explained(error, where, folder, next_step) from error


def of_adapter(folder: Path) -> str:
    """What to do about an adapter that cannot be read: one that a stage made is made again."""
    if (folder / "record.json").exists():
        return f"trueup {folder.name} RUN.yaml --rebuild"
    return "copy or save the adapter again"


def refuse_missing(where: str, missing: Iterable[str]) -> None:
    """Raises ModelError for parameters that the files do not hold: the library fills them with random numbers."""
    if names := sorted(missing):
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        raise ModelError(
            where,
            found=f"no weights for {', '.join(names[:3])}{more}",
            expected="a tensor for each parameter that config.json describes",
            next_step=AGAIN,
        )


def explained(error: Exception, where: str, folder: Path | str | None = None, next_step: str = "") -> ModelError:
    """The message for an error of a library; what is wrong with the files themselves comes first."""
    path = Path(folder) if folder is not None else None
    if path is not None and (lines := weights.torn(path)):
        return ModelError(where, found="\n  ".join(lines), expected="whole files", next_step=next_step or AGAIN)
    if path is not None and weights.without_tokenizer(path) and (path / "config.json").exists():
        named = ", ".join(weights.TOKENIZERS[:3])
        return ModelError(where, found="no tokenizer in this folder", expected=f"{named}, ...", next_step=AGAIN)
    chain = list(_chain(error))
    said = _first_line(error)
    for sign, found, way in KINDS:
        if any(sign in [kind.__name__ for kind in type(one).__mro__] or sign in str(one) for one in chain):
            return ModelError(where, found=f"{found} ({said})", next_step=next_step or way)
    return ModelError(where, found=f"it cannot be loaded ({said})", next_step=next_step or AGAIN)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _first_line(error: Exception, limit: int = 200) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    said = f"{type(error).__name__}: {line}" if line else type(error).__name__
    return said if len(said) <= limit else f"{said[: limit - 3]}..."
