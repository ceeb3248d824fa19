"""What `data check` finds is what was planted in the file, with its line, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from trueup.cli.main import main
from trueup.data import survey as module
from trueup.data.check import Finding, check, findings
from trueup.data.closer import NearDuplicates, language_of
from trueup.data.survey import Survey, cut_sign, spread
from trueup.run.data_config import Source

ANIMALS = ["otter", "heron", "badger", "lynx", "marten", "stoat", "weasel", "shrew", "vole", "mole", "newt", "toad"]
ANIMALS += ["adder", "kite", "merlin", "osprey"]


def sentence(number: int) -> str:
    """Thirty words in an order that no other number has."""
    start, step = number % 16, 1 + 2 * (number // 16 % 8)
    return " ".join(f"{ANIMALS[(start + i * step) % 16]}{number}" for i in range(30)) + "."


def write(folder: Path, rows: list[Any], name: str = "d.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def row(number: int, **other: Any) -> dict[str, Any]:
    return {"prompt": f"question {number}?", "response": sentence(number)} | other


def found_in(path: Path, **options: Any) -> dict[str, Finding]:
    surveys = check({"d": [Source(path=path)]}, **options)
    return {finding.kind: finding for finding in findings(surveys[0])}


PLANTED = [
    ("exact duplicate", row(3), "line 21: the same as line 4"),
    ("near duplicate", row(3, response=sentence(3).rsplit(" ", 1)[0] + " frog."), "line 21: nearly the same as line 4"),
    ("answer may be cut", row(30, response=sentence(30) + " and then " + sentence(31)[:-1]), "line 21: ends with"),
    ("answer may be cut", row(30, response="```python\nprint(1)"), "line 21: a code block never ends"),
    ("e-mail address", row(30, response="Write to jo.doe+x@example.org."), "line 21: holds"),
    ("key", row(30, prompt="Use AKIAABCDEFGHIJKLMNOP"), "line 21: holds"),
    ("key", row(30, prompt="My token is ghp_" + "a1B2" * 9), "line 21: holds"),
    ("key", row(30, response="-----BEGIN RSA PRIVATE KEY----- MII..."), "line 21: holds"),
    ("empty answer", row(30, response=" "), "line 21: response has no text"),
    ("not JSON", '{"prompt": ', "line 21: not JSON"),
    ("another format", {"instruction": "a", "output": "b"}, "line 21: Alpaca in a file of prompt/response"),
    (
        "roles out of order",
        row(30, prompt=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
        "line 21: prompt 2 is the user's, expected the assistant's",
    ),
]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("kind", "planted", "words"), PLANTED, ids=[f"{i}-{p[0]}" for i, p in enumerate(PLANTED)])
def test_one_planted_row_is_found_and_nothing_else(
    tmp_path: Path, kind: str, planted: Any, words: str, full: bool
) -> None:
    found = found_in(write(tmp_path, [*(row(i) for i in range(20)), planted]), full=full)
    assert list(found) == [kind]
    assert found[kind].count == 1
    assert found[kind].where[0].startswith(words)


def test_a_clean_file_has_no_findings(tmp_path: Path) -> None:
    assert found_in(write(tmp_path, [row(i) for i in range(200)])) == {}


def test_words_that_only_resemble_keys_are_left_alone(tmp_path: Path) -> None:
    texts = ["risk-averse task-force", "AKIA", "snake_case_name_that_is_long", "me at home", "eyJ", "a private key"]
    assert found_in(write(tmp_path, [{"prompt": text, "response": "Fine."} for text in texts])) == {}


def test_all_duplicates_are_counted_and_twenty_shown(tmp_path: Path) -> None:
    found = found_in(write(tmp_path, [row(i % 30) for i in range(90)]))["exact duplicate"]
    assert (found.count, len(found.where), found.more) == (60, 20, "and 40 more")
    assert found.where[0] == "line 31: the same as line 1"


def test_a_prompt_that_is_held_out_too_is_found_whatever_its_case_and_spaces(tmp_path: Path) -> None:
    train = write(tmp_path, [row(1), row(2, prompt="  What   IS red? "), row(3)])
    aside = write(tmp_path, [{"prompt": "what is Red?"}, {"prompt": "else"}], "held_out.jsonl")
    surveys = check({"demonstrations": [Source(path=train)], "held_out": [Source(path=aside)]})
    leak, few = findings(surveys[0])
    assert (few.kind, few.where) == (
        "few rows",
        ["3 demonstrations are few; docs/choosing.md asks for 100 or more"],
    )
    assert (leak.kind, leak.count) == ("prompt is held out too", 1)
    assert leak.where == ["line 2: its prompt is among the held-out ones"]
    assert findings(surveys[1]) == []


def test_lengths_are_those_of_the_texts(tmp_path: Path) -> None:
    lengths = [1, 2, 3, 4, 100]
    rows = [{"prompt": "p" * n, "response": "r" * 2 * n} for n in lengths]
    (done,) = check({"d": [Source(path=write(tmp_path, rows))]}, count_tokens=lambda texts: [len(t) for t in texts])
    assert done.prompt_lengths.tolist() == lengths
    assert done.answer_lengths.tolist() == [2 * n for n in lengths]
    assert done.closer.tokens == [3 * n + 1 for n in lengths]  # and the line break between them
    assert spread(done.prompt_lengths) == {"min": 1, "median": 3, "p95": 81, "max": 100}  # 4 + 0.8 x 96 = 80.8


def test_the_sample_is_seeded_uniform_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 100)
    path = write(tmp_path, [row(i) for i in range(1000)])
    seen: list[list[int]] = []
    monkeypatch.setattr(module.Closer, "add", lambda self, place, *_: seen[-1].append(place[1]))
    for seed in (0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9):
        seen.append([])
        check({"d": [Source(path=path)]}, seed=seed)
    assert seen[0] == seen[1] != seen[2]
    assert all(len(set(lines)) == 100 and lines == sorted(lines) for lines in seen)
    early = sum(line <= 500 for lines in seen[1:] for line in lines)
    assert 405 < early < 595  # 500 of 1000 drawn; six standard deviations of 15.8 either way


def test_near_duplicates_are_those_with_a_jaccard_of_four_fifths() -> None:
    words = [f"w{i}" for i in range(102)]  # 100 trigrams
    index = NearDuplicates()
    assert index.add((0, 1), " ".join(words)) is None
    assert index.add((0, 2), " ".join(words[:-2]) + " x y") == (0, 1)  # 98 of 102 trigrams in common
    assert index.add((0, 3), " ".join(words[:50])) is None  # 48 of 100
    assert index.add((0, 4), " ".join(reversed(words))) is None  # none


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The tent is on the first floor, next to the boots and the ropes.", "en"),
        ("Das Zelt steht im ersten Stock, neben den Stiefeln und den Seilen.", "de"),
        ("La tienda está en el primer piso, al lado de las botas.", "es"),
        ("Палатка находится на первом этаже, рядом с ботинками.", "ru"),
        ("42", "unsure"),
    ],
)
def test_the_language_of_a_sentence(text: str, code: str) -> None:
    assert language_of(text) == code


@pytest.mark.parametrize(
    ("answer", "sign"),
    [
        ("Yes", ""),
        ("word " * 60 + "and", "ends with 'd word word word and'"),
        ("word " * 60 + "end.", ""),
        ("語" * 250 + "。", ""),
        ("Type this:\n```\nls", "a code block never ends"),
        ("Type this:\n```\nls\n```", ""),
    ],
)
def test_an_answer_looks_cut_when_long_without_an_end_mark_or_in_the_middle_of_code(answer: str, sign: str) -> None:
    assert cut_sign(answer) == sign


def test_a_file_that_cannot_be_read_is_a_finding_beside_the_others(tmp_path: Path) -> None:
    good = write(tmp_path, [row(1)])
    sources = {"demonstrations": [Source(path=good)], "prompts": [Source(path=tmp_path / "none.csv")]}
    surveys = check(sources)
    assert [[f.kind for f in findings(survey)] for survey in surveys] == [["few rows"], ["unreadable"]]


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["data", *map(str, arguments)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_the_command_prints_a_table_writes_a_page_and_exits_2_on_faults(tmp_path: Path) -> None:
    evil = "[red]<script>alert(1)</script>"
    path = write(
        tmp_path, [row(1), row(2, response=""), row(3, response=sentence(3)[:-1] + " " + "a " * 99 + evil + "a")]
    )
    page = tmp_path / "page.html"
    code, said = run("check", path, "--page", page)
    assert code == 2
    assert "line 2: response has no text" in said
    assert "prompt/response" in said
    html = page.read_text()
    assert html.count("<svg") == 2
    assert "&lt;/script&gt;a" in html
    assert "<script>" not in html
    assert run("check", write(tmp_path, [row(1)]), "--page", page)[0] == 0


def test_the_command_reads_a_run_file(tmp_path: Path) -> None:
    write(tmp_path, [row(1), row(2)])
    write(tmp_path, [{"prompt": "question 2?"}], "h.jsonl")
    (tmp_path / "run.yaml").write_text(
        "name: x\nmodel: {base: ./nowhere}\ndata: {demonstrations: d.jsonl, held_out: h.jsonl}\n"
    )
    code, said = run("check", tmp_path / "run.yaml", "--page", tmp_path / "page.html")
    assert code == 0, said
    assert "lengths are in characters" in said  # no such model, no tokenizer
    assert "line 2: its prompt is among the" in said
    (tmp_path / "run.yaml").write_text("name: x\n")
    code, said = run("check", tmp_path / "run.yaml")
    assert (code, "no data" in said) == (2, True)


def test_memory_a_row_is_bounded(tmp_path: Path) -> None:
    """What is kept of every row are four numbers, besides the sample."""
    path = write(tmp_path, [row(i) for i in range(10)])
    (done,) = check({"d": [Source(path=path)]})
    assert isinstance(done, Survey)
    kept = [value for value in vars(done).values() if hasattr(value, "__len__") and len(value) == 10]
    assert sum(value.itemsize for value in kept) <= 40
