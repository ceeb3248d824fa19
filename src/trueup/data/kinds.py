"""Kinds of files that hold no rows we can read, each with the way to a file that we can."""

from __future__ import annotations

from pathlib import Path

from trueup.errors import DataError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".txt")
READ = ", ".join(SUFFIXES) + ", or .gz of one of them"
AS_UTF8 = "save it again as `CSV UTF-8` (in Excel: File, Save As, `CSV UTF-8 (Comma delimited)`)"

_SPREADSHEET = ("a spreadsheet", "save its sheet as `CSV UTF-8` (in Excel: File, Save As), and name that file")
_DOCUMENT = ("a document", "put its texts into a table with a column for each field, saved as `CSV UTF-8`")
_ARCHIVE = ("an archive", "unpack it, and name the files in it")
_PICKLE = ("a file that can run code when it is opened", "write it as JSON Lines or Parquet from the program it is of")
_BY_SUFFIX = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".xlsb", ".ods", ".numbers"), _SPREADSHEET),
    **dict.fromkeys((".docx", ".doc", ".odt", ".rtf", ".pdf", ".pages", ".html", ".htm"), _DOCUMENT),
    **dict.fromkeys((".zip", ".7z", ".rar", ".tar", ".tgz", ".bz2", ".xz", ".zst"), _ARCHIVE),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth", ".bin", ".npy", ".npz"), _PICKLE),
}
_BY_BEGINNING = {
    b"PK\x03\x04": ("a spreadsheet or an archive", "save a spreadsheet as `CSV UTF-8`; unpack an archive"),
    b"\xd0\xcf\x11\xe0": ("an old spreadsheet or document", _SPREADSHEET[1]),
    b"%PDF": _DOCUMENT,
    b"7z\xbc\xaf": _ARCHIVE,
    b"BZh": _ARCHIVE,
    b"\xfd7zXZ": _ARCHIVE,
    b"(\xb5/\xfd": _ARCHIVE,
    b"SQLite format": ("a database", "write the table as CSV, UTF-8"),
}
_BOMS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_READ_AS_IT_IS = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")  # Parquet; Arrow as a file, and as a stream


def refused(path: Path) -> tuple[str, str] | None:
    """(what kind of file it is, the way on) by its name, where it is none that holds rows; else None."""
    return _BY_SUFFIX.get(path.suffix.lower())


def refuse_unreadable(path: Path, head: bytes) -> None:
    """Raises DataError where the name or the first bytes are those of a spreadsheet, a document, an archive, UTF-16."""
    known = refused(path) or next((kind for mark, kind in _BY_BEGINNING.items() if head.startswith(mark)), None)
    if known is not None:
        raise DataError(str(path), found=f"{known[0]}, which is not read", expected=READ, next_step=known[1])
    if head.startswith(_READ_AS_IT_IS):
        return
    encoding = next((name for mark, name in _BOMS.items() if head.startswith(mark)), "")
    if not encoding and b"\0" in head:
        encoding = "UTF-16LE" if head[1:2] == b"\0" else "UTF-16BE" if head[:1] == b"\0" else ""
        if not encoding:
            raise DataError(str(path), found="not a text file: it holds zero bytes", expected=READ)
    if encoding:
        command = f"iconv -f {encoding} -t UTF-8 {path.name} > utf8-{path.name}"
        raise DataError(
            str(path), found=f"encoded as {encoding}", expected="UTF-8", next_step=f"{AS_UTF8}; or: {command}"
        )
