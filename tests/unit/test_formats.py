"""Each format of the field, read from a file of it into the same typed form."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trueup.data.example import Example, Verdict
from trueup.data.sources import Reader, unusable
from trueup.errors import DataError
from trueup.run.data_config import Source

USER, LATER = {"role": "user", "content": "q"}, {"role": "user", "content": "r"}
ANSWER = {"role": "assistant", "content": "a"}
LONG = [USER, ANSWER, LATER]  # a prompt of several turns
TALK = "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: "
ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data"


def read(path: Path, wanted: str | None = None, **source: Any) -> tuple[Reader, list[Example]]:
    reader = Reader(Source(path=path, **source), wanted)
    return reader, [example for _, example in reader]


def write(folder: Path, *records: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def says(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def compared(preferred: str, who: str) -> Verdict:
    return Verdict("comparison", preferred, who)


CASES = [
    ("chat messages", {"messages": [*LONG, says("assistant", "b")]}, Example(LONG, "b")),
    ("chat messages", {"messages": LONG}, Example(LONG)),
    ("chat messages", {"messages": [says("user", [{"type": "text", "text": "q"}]), ANSWER]}, Example([USER], "a")),
    (
        "ShareGPT",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        Example([USER], "a"),
    ),
    ("prompt/completion", {"prompt": "q", "completion": "a"}, Example([USER], "a")),
    ("prompt/completion", {"prompt": LONG, "completion": [says("assistant", "b")]}, Example(LONG, "b")),
    ("prompt/response", {"prompt": "q", "response": "a"}, Example([USER], "a")),
    ("Alpaca", {"instruction": "q", "input": "r", "output": "a"}, Example([says("user", "q\n\nr")], "a")),
    ("Alpaca", {"instruction": "q", "input": "", "output": "a"}, Example([USER], "a")),
    (
        "self-instruct",
        {"instruction": "q", "instances": [{"input": "", "output": "a"}]},
        Example([USER], "a"),
    ),
    (
        "preference pairs, explicit prompt",
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        Example([USER], "a", "b"),
    ),
    (
        "preference pairs, explicit prompt",
        {"prompt": "q", "chosen": [USER, ANSWER], "rejected": [USER, says("assistant", "b")]},
        Example([USER], "a", "b"),
    ),
    (
        "preference pairs, explicit prompt",
        {"prompt": LONG, "chosen": [says("assistant", "b")], "rejected": [says("assistant", "c")]},
        Example(LONG, "b", "c"),
    ),
    ("preference pairs, implicit prompt", {"chosen": TALK + "b", "rejected": TALK + "c"}, Example(LONG, "b", "c")),
    (
        "preference pairs, implicit prompt",
        {"chosen": [*LONG, says("assistant", "b")], "rejected": [*LONG, says("assistant", "c")]},
        Example(LONG, "b", "c"),
    ),
    ("KTO rows", {"prompt": "q", "completion": "a", "label": True}, Example([USER], "a", label=True)),
    ("KTO rows", {"prompt": "q", "completion": "a", "label": 0}, Example([USER], "a", label=False, votes=(0, 1))),
    (
        "KTO rows, counted",
        {"prompt": "q", "completion": "a", "up": 1, "down": 3},
        Example([USER], "a", label=False, votes=(1, 3)),
    ),
    (
        "judged pairs",
        {"instruction": "q", "input": "", "response1": "a", "response2": "b"}
        | {"annotator1": 2, "annotator2": 1, "annotator3": 2},
        Example(
            *([USER], "b", "a"),
            votes=(2, 1),
            verdicts=[compared("b", "annotator1"), compared("a", "annotator2"), compared("b", "annotator3")],
            sides=("a", "b"),
            one_question=True,
        ),
    ),
    (
        "preference pairs, explicit prompt",
        {"prompt": "q", "chosen": "a", "rejected": "b", "annotator": 3.0},
        Example([USER], "a", "b", verdicts=[compared("a", "3")]),
    ),
    (
        "KTO rows",
        {"prompt": "q", "completion": "a", "label": "good", "annotator": "ann", "lead_time": 2.5, "comment": "yes"},
        Example([USER], "a", label=True, verdicts=[Verdict("thumb", True, "ann", lead_time=2.5, comment="yes")]),
    ),
    (
        "thumbs by person",
        {"prompt": "q", "completion": "a", "annotator_ann": "up", "annotator_bo": "down", "annotator_cy": 1},
        Example(
            *([USER], "a"),
            label=True,
            votes=(2, 1),
            verdicts=[
                Verdict("thumb", up, f"annotator_{who}") for who, up in (("ann", True), ("bo", False), ("cy", True))
            ],
        ),
    ),
    (
        "ratings",
        {"prompt": "q", "completion": "a", "rating": "4", "annotator": "ann"},
        Example([USER], "a", verdicts=[Verdict("rating", 4, "ann")]),
    ),
    (
        "ratings by person",
        {"prompt": "q", "completion": "a", "rating_ann": 2, "rating_bo": None},
        Example([USER], "a", verdicts=[Verdict("rating", 2, "rating_ann")]),
    ),
    (
        "judgements",
        {"kind": "comparison", "annotator": "ann", "prompt": [USER], "completion_a": "a", "completion_b": "b"}
        | {"preferred": "b", "uid": "1", "a": "2", "b": "3"},
        Example([USER], "b", "a", verdicts=[compared("b", "ann")], sides=("a", "b")),
    ),
    (
        "judgements",
        {"kind": "edit", "annotator": "ann", "prompt": "q", "completion": "a", "text": "better"},
        Example([USER], "a", verdicts=[Verdict("edit", "better", "ann")]),
    ),
    ("prompts", {"prompt": "q"}, Example([USER])),
    ("prompts", {"prompt": "\n\nHuman: q\n\nAssistant:"}, Example([USER])),
    ("plain text", {"text": "a"}, Example([], "a")),
]


@pytest.mark.parametrize(("name", "record", "expected"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)])
def test_each_format_from_a_file_of_it(tmp_path: Path, name: str, record: Any, expected: Example) -> None:
    reader, found = read(write(tmp_path, record))
    assert list(reader.formats.values()) == [name]
    assert reader.faults.lines() == []
    assert found == [expected]


def test_every_format_is_among_the_cases() -> None:
    from trueup.data.formats import FORMATS

    assert {case[0] for case in CASES} == {known.name for known in FORMATS if known.trace is None}  # test_traces.py


def test_every_row_of_the_documentation_is_what_it_says(tmp_path: Path) -> None:
    from trueup.data.formats import FORMATS

    table = re.findall(r"^\| (.+?) \| `(\{.*\})` \|", (ROOT / "docs" / "data.md").read_text(), flags=re.MULTILINE)
    for said, row in table:
        reader, found = read(write(tmp_path, json.loads(row)))
        assert next(iter(reader.formats.values())) in said
        assert (reader.faults.lines(), len(found)) == ([], 1)
    assert all(any(known.name in said for said, _ in table) for known in FORMATS)


def test_turns_of_one_speaker_in_a_transcript_are_one_turn(tmp_path: Path) -> None:
    text = "\n\nHuman: q\n\nAssistant: Just a second.\n\nAssistant: a"
    _, found = read(write(tmp_path, {"chosen": text, "rejected": "\n\nHuman: q\n\nAssistant: b"}))
    assert found == [Example([USER], "Just a second.\n\na", "b")]


@pytest.mark.parametrize("tie", [{"annotator1": 1, "annotator2": 2}, {"annotator1": 0}])
def test_a_tie_is_no_preference(tmp_path: Path, tie: dict[str, int]) -> None:
    reader, found = read(
        write(tmp_path, {"instruction": "q", "response1": "a", "response2": "b", "annotator1": 0} | tie)
    )
    assert (found, dict(unusable(reader))) == ([], {"no preference": 1})


FAULTS = [
    ([LATER, USER], "roles out of order", "messages 2 is the user's, expected the assistant's"),
    ([ANSWER, USER], "roles out of order", "messages 1 is the assistant's, expected the user's"),
    ([USER, says("assistant", "  ")], "empty assistant turn", "messages 2 (assistant) has no text"),
    ([says("user", ""), ANSWER], "no text", "messages 1 (user) has no text"),
    ([says("narrator", "x")], "unknown role", "messages 1 has the unknown role 'narrator'"),
    ([{"content": "x"}], "unknown role", "messages 1 has the unknown role None"),
    ([says("user", [{"type": "image_url", "image_url": "x"}])], "an image in a message", "messages 1 holds an image"),
    ([says("user", [{"type": "image"}])], "an image in a message", "messages 1 holds an image"),
    ([says("system", "x")], "no text", "messages holds a system message alone"),
    (["hello"], "not a dialogue", "messages 1 is of type str"),
    ([], "not a dialogue", "messages is no list of turns"),
    ([USER, {"role": "assistant", "content": {"text": "a"}}], "not a text", "is of type dict, expected text"),
]


@pytest.mark.parametrize(("messages", "kind", "words"), FAULTS, ids=[f"{i}-{f[1]}" for i, f in enumerate(FAULTS)])
def test_a_faulty_dialogue_is_named_with_its_line(tmp_path: Path, messages: Any, kind: str, words: str) -> None:
    reader, found = read(write(tmp_path, {"messages": [USER, ANSWER]}, {"messages": messages}))
    assert len(found) == 1
    assert dict(reader.faults.counts) == {kind: 1}
    assert reader.faults.lines()[0].startswith("line 2: ")
    assert words in reader.faults.lines()[0]


PAIR_FAULTS = [
    ({"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen and rejected are the same"),
    ({"prompt": "q", "chosen": "", "rejected": "a"}, "empty answer"),
    ({"prompt": None, "chosen": "a", "rejected": "b"}, "no prompt"),
    (
        {"prompt": "q", "chosen": [USER, ANSWER], "rejected": [LATER, ANSWER]},
        "chosen and rejected answer different prompts",
    ),
]


@pytest.mark.parametrize(("record", "kind"), PAIR_FAULTS, ids=[fault[1] for fault in PAIR_FAULTS])
def test_a_faulty_pair_is_named(tmp_path: Path, record: Any, kind: str) -> None:
    reader, _ = read(write(tmp_path, {"prompt": "q", "chosen": "a", "rejected": "b"}, record))
    assert dict(reader.faults.counts) == {kind: 1}


def test_formats_mixed_in_one_file_are_named(tmp_path: Path) -> None:
    reader, found = read(
        write(tmp_path, {"prompt": "q", "response": "a"}, {"instruction": "q", "output": "a"}, {"x": 1})
    )
    assert len(found) == 1
    assert reader.faults.lines() == ["line 2: Alpaca in a file of prompt/response", "line 3: unknown fields x"]


def test_a_number_where_a_text_is_expected_is_written_out(tmp_path: Path) -> None:
    assert read(write(tmp_path, {"prompt": "1+1", "response": 2}))[1][0].completion == "2"


def test_columns_are_named_in_the_run_file(tmp_path: Path) -> None:
    path = write(tmp_path, {"instruction": "q", "context": "r", "response": "a"})
    reader, found = read(path, columns={"input": "context", "output": "response"})
    assert list(reader.formats.values()) == ["Alpaca"]
    assert found == [Example([says("user", "q\n\nr")], "a")]


REAL = [  # rows and ties as the files' own description counts them; faulty rows counted by hand
    (
        "hh_helpful_base.train",
        "preference pairs, implicit prompt",
        1952,
        {"empty answer": 2, "empty assistant turn": 1},
    ),
    ("oasst_ranked_pairs", "preference pairs, explicit prompt", 754, {}),
    ("oasst_thumbs", "KTO rows, counted", 455, {"no preference": 25}),
    ("sft_dolly_open_qa", "prompt/response", 2000, {}),
    ("sft_self_instruct_seed", "self-instruct", 175, {}),
]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not here")
@pytest.mark.parametrize(("name", "known_as", "num_rows", "left_out"), REAL, ids=[real[0] for real in REAL])
def test_real_files_are_read_as_they_are(name: str, known_as: str, num_rows: int, left_out: dict[str, int]) -> None:
    reader, found = read(SHARED / f"{name}.jsonl.gz")
    assert list(reader.formats.values()) == [known_as]
    assert (reader.num_rows, dict(unusable(reader))) == (num_rows, left_out)
    assert len(found) == num_rows - sum(left_out.values())


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not here")
def test_pandalm_gives_the_majority_of_three_annotators() -> None:
    import gzip

    def majority(row: dict[str, Any]) -> int:
        verdicts = [row[f"annotator{i}"] for i in (1, 2, 3)]
        return verdicts.count(1) - verdicts.count(2)

    with gzip.open(SHARED / "pandalm_testset_v1.jsonl.gz") as lines:
        rows = [json.loads(line) for line in lines]
    whole = [
        row
        for row in rows
        if (row["instruction"].strip() or row["input"].strip())
        and str(row["response1"]).strip()
        and str(row["response2"]).strip()
    ]
    expected = [
        str(row["response1"] if majority(row) > 0 else row["response2"]).strip() for row in whole if majority(row)
    ]
    reader, found = read(SHARED / "pandalm_testset_v1.jsonl.gz")
    assert [example.completion for example in found] == expected
    assert reader.num_ties == sum(majority(row) == 0 for row in whole)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not here")
def test_votes_on_safety_are_none_of_the_formats_and_refused() -> None:
    with pytest.raises(DataError, match="columns id, user_prompt, response, votes, expert_gold: no known format"):
        read(SHARED / "dices_350_crowdsourced.jsonl.gz")
