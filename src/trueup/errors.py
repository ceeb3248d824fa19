"""The tree of errors a user can meet. Each says where, what was found, what was expected, what to type next."""


def visible(text: str) -> str:
    """`text` with control characters and lone surrogates written out, so that no file's escape sequence reaches a
    terminal; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class TrueupError(Exception):
    """Base of every error shown to a user: one message, exit code 2, no traceback.

    `where` is a file and line, a stage or an address; `found` and `expected` are plain phrases; `next_step` is
    what the user should type or change.
    """

    def __init__(self, where: str, *, found: str, expected: str = "", next_step: str = "") -> None:
        self.where = where
        self.found = found
        self.expected = expected
        self.next_step = next_step
        super().__init__(self.message())

    def message(self) -> str:
        lines = [f"{self.where}: {self.found}"]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.next_step:
            lines.append(f"  next: {self.next_step}")
        return visible("\n".join(lines))


class ConfigError(TrueupError):
    """The run file is wrong; `found` lists every fault at once."""


class DataError(TrueupError):
    """A data file is missing, broken or empty."""


class ModelError(TrueupError):
    """A base model or adapter cannot be loaded, or is not what it should be."""


class DeviceError(TrueupError):
    """A GPU is there and would be left unused, or cannot be used."""


class FeedbackError(TrueupError):
    """Annotations that cannot become training data."""


class ServerError(TrueupError):
    """Label Studio is down, refuses the token, or lost the project."""


class PortTakenError(ServerError):
    """Another program listens on the port that a server of ours should have."""


class HubError(TrueupError):
    """A hub refuses a name, a token or an upload, or cannot be asked."""


class ReferenceProofError(TrueupError):
    """The reference proof failed: the reference is not the adapter it should be."""


class StageError(TrueupError):
    """A stage cannot start or go on: an input is missing, the configuration drifted, the disk is full."""


class PreflightError(TrueupError):
    """The tokens a stage is about to train on would ruin it; `found` lists every kind of fault at once."""
