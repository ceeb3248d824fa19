"""Which files a path of the run file means: a file, a folder, a pattern, a folder that datasets has saved."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from pathlib import Path

from trueup.data.kinds import READ, SUFFIXES, refused
from trueup.errors import DataError
from trueup.run.data_config import matches

NO_ROWS = ("record.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
SPLITS = {
    "train": "train|training",
    "test": "test|testing",
    "validation": "validation|valid|val|dev|eval",
    "held out": "held[-_ ]?out",
}
SPLIT = re.compile("|".join(f"(?P<{name.replace(' ', '_')}>{words})" for name, words in SPLITS.items()), re.IGNORECASE)
WORD = re.compile(r"(?<![^\W_])(?:held[-_ ]?out|[^\W_]+)", re.IGNORECASE)


def expand(path: Path) -> tuple[list[Path], list[Path]]:
    """(the files of a path, files of a folder that are not read). Patterns such as train-*.parquet are matched.

    Raises DataError when there is no data file, or when the files are of several splits: reading test questions as
    training rows would be said by nothing later.
    """
    found: list[Path] = []
    not_read: list[Path] = []
    several = matches(path)
    if not several:
        raise DataError(str(path), found="no file matches this pattern", next_step="correct the path")
    for one in several:
        if one.is_dir():
            inside, others = _in_folder(one)
            found += inside
            not_read += others
        else:
            found.append(one)
    if len(found) > 1:
        _refuse_splits(path, found)
    return found, not_read


def _in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    if (folder / "dataset_dict.json").is_file():
        return _of_saved_splits(folder)
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return _saved(folder), []
    every = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    found = [file for file in every if _holds_rows(file)]
    not_read = [file for file in every if file not in found and refused(file) is not None]
    if not found:
        others = f"; there are {', '.join(file.name for file in not_read[:5])}" if not_read else ""
        way = refused(not_read[0]) if not_read else None
        raise DataError(
            str(folder),
            found=f"no data file in this folder{others}",
            expected=READ,
            next_step=way[1] if way else "",
        )
    return found, not_read


def _holds_rows(file: Path) -> bool:
    return file.name.lower().removesuffix(".gz").endswith(SUFFIXES) and file.name not in NO_ROWS


def _saved(folder: Path) -> list[Path]:
    """The Arrow files of a folder that datasets.save_to_disk wrote, in their order."""
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        names = [Path(entry["filename"]).name for entry in state["_data_files"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        names = []
    files = [folder / name for name in names]
    if not files or not all(file.is_file() for file in files):
        raise DataError(
            str(folder), found="a data set saved by datasets, but not whole", next_step="save or copy the folder again"
        )
    return files


def _of_saved_splits(folder: Path) -> tuple[list[Path], list[Path]]:
    splits = sorted(one.name for one in folder.iterdir() if (one / "state.json").is_file())
    if len(splits) != 1:
        raise DataError(
            str(folder),
            found=f"a data set of {len(splits)} splits, saved by datasets: {', '.join(splits) or 'none'}",
            expected="one split",
            next_step=f"name it: path: {folder / (splits[0] if 'train' not in splits else 'train')}" if splits else "",
        )
    return _saved(folder / splits[0]), []


def _refuse_splits(path: Path, files: list[Path]) -> None:
    by_split: dict[str, list[Path]] = defaultdict(list)
    base = path if path.is_dir() else Path(os.path.commonpath([str(file.parent) for file in files]))
    for file in files:
        by_split[_split_of(file.relative_to(base))].append(file)
    if len(by_split) < 2:
        return
    said = ", ".join(f"{name or 'no split'} ({len(found)} files)" for name, found in by_split.items())
    chosen = by_split.get("train") or by_split.get("") or next(iter(by_split.values()))
    raise DataError(
        str(path),
        found=f"files of several splits: {said.replace('(1 files)', '(1 file)')}",
        expected="files of one split",
        next_step=f"name them: path: {_pattern(chosen)}",
    )


def _split_of(file: Path) -> str:
    """The split that a file or folder is named after; empty where it is none."""
    for part in (*file.parts[:-1], file.name.split(".")[0], file.name):
        for word in WORD.findall(part):
            if found := SPLIT.fullmatch(word):
                return str(found.lastgroup).replace("_", " ")
    return ""


def _pattern(files: list[Path]) -> str:
    """The file, or a pattern that matches these files of one folder."""
    if len(files) == 1:
        return str(files[0])
    folder = os.path.commonpath([str(file.parent) for file in files])
    if any(str(file.parent) != folder for file in files):
        return folder
    starts = {re.split(r"\d|\.", file.name)[0] for file in files}
    return f"{folder}/{starts.pop() if len(starts) == 1 else ''}*{files[0].suffix}"
