"""Reading the user's files into chat messages, every fault of a file at once."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

from rapidfuzz import process

from trueup.errors import DataError

Messages = list[dict[str, str]]


def read_demonstrations(path: Path, columns: dict[str, str], system: str | None) -> list[dict[str, Any]]:
    """Rows of {id, messages}, the last message the assistant's. Raises DataError naming every faulty line."""
    return _read(path, columns, system, ("prompt", "response"))


def read_prompts(path: Path, columns: dict[str, str], system: str | None) -> list[dict[str, Any]]:
    """Rows of {id, messages}, the last message the user's; a repeated prompt is kept once."""
    rows = {row["id"]: row for row in _read(path, columns, system, ("prompt",))}
    return list(rows.values())


def _read(path: Path, columns: dict[str, str], system: str | None, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    faults: list[str] = []
    rows: list[dict[str, Any]] = []
    for line, record in _records(path, faults):
        texts = {}
        for field in fields:
            name = columns.get(field, field)
            if name not in record:
                near = process.extractOne(name, list(record), score_cutoff=60)
                hint = f"; did you mean {near[0]}? Then set data.columns.{field}: {near[0]}" if near else ""
                faults.append(f"line {line}: no {name!r} among {', '.join(record) or 'no columns'}{hint}")
            elif not isinstance(record[name], str) or not record[name].strip():
                faults.append(f"line {line}: {name} has no text")
            else:
                texts[field] = record[name].strip()
        if len(texts) == len(fields):
            messages: Messages = [{"role": "system", "content": system}] if system else []
            messages.append({"role": "user", "content": texts["prompt"]})
            if "response" in texts:
                messages.append({"role": "assistant", "content": texts["response"]})
            canonical = json.dumps(messages, ensure_ascii=False, sort_keys=True)
            rows.append({"id": hashlib.sha256(canonical.encode()).hexdigest()[:16], "messages": messages})
    if faults:
        shown = "\n  ".join(faults[:20]) + (f"\n  and {len(faults) - 20} more" if len(faults) > 20 else "")
        raise DataError(str(path), found=shown, expected=f"{' and '.join(fields)} in every row")
    if not rows:
        raise DataError(str(path), found="no rows", expected=f"rows with {' and '.join(fields)}")
    return rows


def _records(path: Path, faults: list[str]) -> list[tuple[int, dict[str, Any]]]:
    """(line number, record) of a CSV, JSONL or JSON file; broken lines go to `faults`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(str(path), found="no such file", next_step="mend the data section of the run file") from None
    except UnicodeDecodeError as error:
        raise DataError(str(path), found=f"byte {error.start} is not UTF-8", expected="a UTF-8 file") from None
    if path.suffix == ".csv":
        reader = csv.DictReader(text.splitlines(keepends=True))
        return [(reader.line_num, dict(record)) for record in reader]
    if path.suffix == ".json":
        try:
            return list(enumerate(json.loads(text), start=1))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{error.lineno}", found=f"not JSON: {error.msg}") from None
    records: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            faults.append(f"line {number}: not JSON ({error.msg} at column {error.colno})")
            continue
        if isinstance(value, dict):
            records.append((number, value))
        else:
            faults.append(f"line {number}: {type(value).__name__}, expected an object")
    return records
