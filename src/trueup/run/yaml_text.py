"""YAML text as plain values with the line of each, in bounded time and memory.

The text is only composed into nodes, never constructed into objects: dates stay text, unknown tags are refused, aliases
and merge keys are followed while they stay small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import MappingEndEvent, MappingStartEvent, SequenceEndEvent, SequenceStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

At = tuple[str | int, ...]  # the keys and places that lead to a value

MAX_DEPTH = 20  # mappings and lists inside one another
MAX_VALUES = 20_000  # keys and values, each alias counted in full

TAG = "tag:yaml.org,2002:"
# what ruamel's scanner says, and what a person should look for
HINTS = {
    r"found character '\t'": ("a tab character", "indent with spaces instead of tabs"),
    "mapping values are not allowed": ("a colon that begins no value here", "put text that contains ': ' in quotes"),
    "could not find expected ':'": ("a key without a colon", "write key: value"),
    "found character '@'": ("a value that begins with '@'", "put it in quotes"),
    "found character '`'": ("a value that begins with a backquote", "put it in quotes"),
    "found character '%'": ("a value that begins with '%'", "put it in quotes"),
    "found unknown escape character": ("an unknown escape in a double-quoted text", "use single quotes, or / in paths"),
    "while scanning a quoted scalar": ("a quote that is never closed", "close it"),
    "found unexpected end of stream": ("a quote that is never closed", "close it"),
    "node content, but found '<stream end>'": ("a bracket or brace that is never closed", "close it"),
    "expected the node content": ("a missing value", "write it, or remove what stands before it"),
    "but got '<stream end>'": ("a bracket or brace that is never closed", "close it"),
    "expected ',' or": ("a list or mapping in brackets without a comma or its closing bracket", "add what is missing"),
    "expected <block end>": ("indentation that does not match the lines above", "align it with its neighbours"),
    "found undefined alias": ("an alias of an anchor that is not defined above it", "define it: key: &name value"),
    "expected a single document": ("a second YAML document", "keep one document per file; remove the '---' line"),
}


class NotYAML(Exception):
    """The text cannot be read at all: the 1-based line, what is wrong with it, what to do about it."""

    def __init__(self, line: int, found: str, next_step: str) -> None:
        self.line, self.found, self.next_step = line, found, next_step
        super().__init__(f"line {line}: {found}")


@dataclass
class Plain:
    """The value of a text, the 1-based line of each key and list item, and faults that did not stop the reading."""

    value: Any = None
    lines: dict[At, int] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)
    aliased: set[At] = field(default_factory=set)  # what an alias or a merge key took up again
    num_values: int = 0
    first: dict[int, At] = field(default_factory=dict)  # of each node, where it was met first


def read(text: str) -> Plain:
    """The plain value of a YAML text; None for an empty one. Raises NotYAML."""
    try:
        _refuse_deep(text)
        node = _yaml().compose(text)
    except MarkedYAMLError as error:
        raise _explained(error) from None
    except ReaderError as error:
        line = text[: error.position].count("\n") + 1 if isinstance(error.position, int) else 1
        raise NotYAML(line, f"no text: {error.reason} ({error.character!r})", "remove this character") from None
    except (YAMLError, ValueError, LookupError, AttributeError, TypeError, AssertionError) as error:
        # ruamel fails on some rare texts with errors of its own code
        raise NotYAML(1, f"not YAML ({error})", "compare it with the file that `trueup init` writes") from None
    made = Plain()
    if node is not None:
        made.value = _plain(node, (), made, ())
    return made


def _yaml() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.composer.warn_double_anchors = False
    return yaml


def _refuse_deep(text: str) -> None:
    """The parser yields events one at a time, so that 200,000 open brackets stop at the first few."""
    depth = 0
    for event in _yaml().parse(text):
        depth += isinstance(event, MappingStartEvent | SequenceStartEvent)
        depth -= isinstance(event, MappingEndEvent | SequenceEndEvent)
        if depth > MAX_DEPTH:
            raise NotYAML(event.start_mark.line + 1, f"nested more than {MAX_DEPTH} deep", "remove the extra brackets")


def _explained(error: MarkedYAMLError) -> NotYAML:
    problem = f"{error.context or ''} {error.problem or ''}".strip()
    mark = error.problem_mark or error.context_mark
    found, next_step = error.problem or problem, "correct this line, or the one above it"
    for said, hint in HINTS.items():
        if said in problem:
            found, next_step = hint
            break
    if "never closed" in found:  # where it was opened says more than where the text ends
        mark = error.context_mark or mark
    return NotYAML(mark.line + 1 if mark else 1, f"not YAML: {found}", next_step)


def _plain(node: Node, at: At, made: Plain, above: tuple[int, ...]) -> Any:
    made.num_values += 1
    line = node.start_mark.line + 1
    if made.num_values > MAX_VALUES:
        raise NotYAML(
            line, f"more than {MAX_VALUES:,} values, aliases counted in full", "keep data in files of its own"
        )
    if id(node) in above:
        raise NotYAML(line, f"the anchor &{cut(node.anchor)} contains an alias of itself", "write the values out")
    if len(above) > MAX_DEPTH:
        raise NotYAML(line, f"nested more than {MAX_DEPTH} deep, aliases followed", "write the values out")
    if id(node) in made.first:
        made.aliased.add(made.first[id(node)])
    made.first.setdefault(id(node), at)
    inside = (*above, id(node))
    if isinstance(node, MappingNode):
        _refuse_tag(node, f"{TAG}map", line, made)
        return _mapping(node, at, made, inside)
    if isinstance(node, SequenceNode):
        _refuse_tag(node, f"{TAG}seq", line, made)
        items = []
        for i, item in enumerate(node.value):
            made.lines[(*at, i)] = item.start_mark.line + 1
            items.append(_plain(item, (*at, i), made, inside))
        return items
    return _scalar(node, line, made)


def _mapping(node: MappingNode, at: At, made: Plain, above: tuple[int, ...]) -> dict[str, Any]:
    own: dict[str, Any] = {}
    merged: list[MappingNode] = []
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            made.faults.append((line, "a list or mapping as a key; expected a name"))
            continue
        name = str(key.value)
        _refuse_control(name, line, made)
        if name in seen:
            made.faults.append((line, f"{cut(name)} is given twice, first in line {seen[name]}"))
            continue
        seen[name] = line
        if key.tag == f"{TAG}merge":
            merged += _sources(value, line, made)
            continue
        made.lines[(*at, name)] = line
        own[name] = _plain(value, (*at, name), made, above)
    for source in merged:  # of several, the first has the last word (https://yaml.org/type/merge.html)
        scratch = Plain(num_values=made.num_values, aliased=made.aliased, first=made.first)
        values = _plain(source, at, scratch, above)
        made.num_values = scratch.num_values
        made.faults += [fault for fault in scratch.faults if fault not in made.faults]
        for name, value in values.items():
            if name not in own:
                own[name] = value
                start = (*at, name)
                made.lines |= {k: v for k, v in scratch.lines.items() if k[: len(start)] == start}
    return own


def _sources(value: Node, line: int, made: Plain) -> list[MappingNode]:
    """What `<<` merges: an alias of a mapping, or a list of these."""
    many = value.value if isinstance(value, SequenceNode) else [value]
    if not all(isinstance(one, MappingNode) for one in many):
        made.faults.append((line, "<<: found no mapping; expected an alias such as *defaults of a mapping"))
        return []
    return list(many)


def _scalar(node: Node, line: int, made: Plain) -> Any:
    text, kind = str(node.value), str(node.tag).removeprefix(TAG)
    try:
        if kind == "null":
            return None
        if kind == "bool":
            return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}[text.lower()]
        if kind == "int":
            digits = text.replace("_", "")
            return int(digits) if digits.lstrip("+-").isdigit() else int(digits, 0)
        if kind == "float":
            return float(text.replace("_", "").lower().replace(".inf", "inf").replace(".nan", "nan"))
    except (KeyError, ValueError):  # `!!int x`, sexagesimals of YAML 1.1, more digits than Python reads
        made.faults.append((line, f"{shortened(text)} is no {kind}"))
        return None
    if kind not in ("str", "timestamp", "value", "merge"):  # a date is text: a run may be named by one
        made.faults.append((line, f"the tag {shortened(str(node.tag))}; expected plain values"))
        return None
    _refuse_control(text, line, made)
    return text


def _refuse_tag(node: Node, expected: str, line: int, made: Plain) -> None:
    if node.tag != expected:
        made.faults.append((line, f"the tag {shortened(str(node.tag))}; expected plain values"))


def _refuse_control(text: str, line: int, made: Plain) -> None:
    """NUL and escapes end up in paths and on terminals; half an emoji cannot be written to any file."""
    odd = next((c for c in text if (ord(c) < 32 and c not in "\n\t\r") or 0x7F <= ord(c) < 0xA0 or _half(c)), None)
    if odd is not None:
        made.faults.append((line, f"the character {odd!r} in {shortened(text)}; expected printable text"))


def _half(character: str) -> bool:
    return 0xD800 <= ord(character) <= 0xDFFF


def cut(text: str, limit: int = 60) -> str:
    """`text`, its middle left out when it is longer than `limit`."""
    return text if len(text) <= limit else f"{text[: limit - 13]}...{text[-10:]}"


def shortened(value: Any, limit: int = 60) -> str:
    """`value` as a short text in one line, quoted when it is text."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    written = ascii(value) if isinstance(value, str) and any(_half(c) for c in value) else repr(value)
    return cut(written, limit)
