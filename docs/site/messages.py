"""The page of every message: read from the code, where each is raised with `found`, `expected` and `next_step`."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAX_DEPTH = 3  # of names that are assigned other names
GAP = "…"  # for what is known only when the message is printed

HEAD = """# Every message

What trueup says when something is wrong, by its text. A message has the place, what was found, what was expected, and
what to type next; here "…" replaces the parts that depend on the case. [Troubleshooting](troubleshooting.md) explains
the common ones. This page is made from the code by `make reference`.
"""

AREAS = {  # of the code -> the heading
    "run": "Run file, stages and files of a run",
    "cli": "Commands",
    "data": "Data",
    "chat": "Templates and tokens",
    "models": "Models and adapters",
    "feedback": "Label Studio and judgements",
    "sampling": "Sampling",
    "training": "Training",
    "online": "PPO, GRPO and rewards",
    "stages": "Stages",
    "evaluation": "Evaluation",
    "judges": "Judges",
    "export": "Export",
    "report": "Report",
    "planning": "Plan",
    "demo": "Demo",
}


def page() -> str:
    """docs/messages.md."""
    rows: dict[str, dict[tuple[str, str, str], None]] = defaultdict(dict)  # of each area, once each, in order
    for area, path in files():
        for found, expected, after in _messages(ast.parse(path.read_text(encoding="utf-8"))):
            rows[area][found, expected, after] = None
    parts = [HEAD]
    for area, heading in AREAS.items():
        if rows[area]:
            table = [f"| {' | '.join(map(_cell, row))} |" for row in rows[area]]
            parts.append("\n".join([f"## {heading}\n", "| found | expected | next |", "|---|---|---|", *table, ""]))
    return "\n".join(parts)


def files() -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / "src" / "trueup").rglob("*.py")):
        yield path.relative_to(ROOT / "src" / "trueup").parts[0].removesuffix(".py"), path
    for area in ("stages", "feedback"):
        for path in sorted((ROOT / area).rglob("*.py")):
            yield area, path


def _messages(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """(found, expected, next step) of each call with these arguments, and what their names were assigned nearby."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    common = _assigned(tree.body)
    for function in functions:
        names = common | _assigned(ast.walk(function))
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            given = {argument.arg: argument.value for argument in call.keywords if argument.arg}
            if "found" not in given:
                continue
            expected, after = (
                " or ".join(_texts(given[name], names)) if name in given else "" for name in ("expected", "next_step")
            )
            for found in _texts(given["found"], names):
                if found.strip(f"{GAP} ;:'\n"):
                    yield found, expected, after


def _assigned(statements: Iterable[ast.AST]) -> dict[str, list[ast.expr]]:
    """The values that names are given by plain assignments, of which some hold words."""
    found: dict[str, list[ast.expr]] = defaultdict(list)
    for statement in statements:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    found[target.id].append(statement.value)
    return found


def _texts(node: ast.expr, names: dict[str, list[ast.expr]], depth: int = 0) -> list[str]:
    """What an expression may read: its own text, both sides of a condition, or what its name was assigned."""
    match node:
        case ast.Constant(value=value):
            return [str(value or "")]
        case ast.JoinedStr(values=values):
            return ["".join(str(one.value) if isinstance(one, ast.Constant) else GAP for one in values)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a in _texts(left, names, depth) for b in _texts(right, names, depth)]
        case ast.IfExp(body=body, orelse=orelse):
            return [*_texts(body, names, depth), *_texts(orelse, names, depth)]
        case ast.BoolOp(values=values):
            return [text for one in values for text in _texts(one, names, depth)]
        case ast.Name(id=name) if depth < MAX_DEPTH and name in names:
            return [text for one in names[name] for text in _texts(one, names, depth + 1) if text]
    return [GAP]


def _cell(text: str) -> str:
    text = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;").replace("`", "")
    return text.replace("*", "\\*").replace("_", "\\_")
