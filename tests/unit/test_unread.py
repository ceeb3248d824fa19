"""Nothing of a row is read by halves: fields that are not used are counted, tools and system messages are kept."""

import json
from pathlib import Path
from typing import Any

import pandas
import pytest

from trueup.data import read_demonstrations, read_preferences, read_prompts
from trueup.data.check import check, findings
from trueup.data.report import ReadReport, tell
from trueup.data.sources import Reader
from trueup.errors import DataError
from trueup.run.data_config import DataConfig, Source


def says(role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text} | more


def write(folder: Path, *records: Any, name: str = "d.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def call(name: str = "stock", arguments: Any = '{"item": "tent"}', **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}} | more


TOOL = {"type": "function", "function": {"name": "stock", "parameters": {"type": "object", "properties": {}}}}
USER, CALLING = says("user", "Any tents?"), says("assistant", "I look.", tool_calls=[call(id="c1")])
RESULT, ANSWER = says("tool", "12", tool_call_id="c1"), says("assistant", "Twelve.")


def demonstrations(path: Path, **more: Any) -> list[dict[str, Any]]:
    return read_demonstrations(DataConfig.model_validate({"demonstrations": path} | more), takes_tools=True)


def test_tools_and_calls_reach_the_template_with_their_arguments_as_an_object(tmp_path: Path) -> None:
    path = write(tmp_path, {"tools": [TOOL], "messages": [USER, CALLING, RESULT, ANSWER]})
    (row,) = demonstrations(path)
    assert row["tools"] == [TOOL]
    assert [message["role"] for message in row["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert row["messages"][1]["tool_calls"] == [call(arguments={"item": "tent"}, id="c1")]
    assert row["messages"][2] == RESULT


def test_a_call_alone_is_an_answer_without_text(tmp_path: Path) -> None:
    path = write(tmp_path, {"messages": [USER, says("assistant", "", tool_calls=[call()])]})
    assert demonstrations(path)[0]["messages"][-1] == says(
        "assistant", "", tool_calls=[call(arguments={"item": "tent"})]
    )


def test_tools_written_as_texts_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    columns = {"tools": [json.dumps([TOOL])], "messages": [str([USER, CALLING])]}
    pandas.DataFrame(columns).to_csv(path, index=False)
    (row,) = demonstrations(path)
    assert (row["tools"], row["messages"][-1]["tool_calls"][0]["function"]["arguments"]) == ([TOOL], {"item": "tent"})


def test_keys_that_arrow_adds_to_calls_are_not_arguments(tmp_path: Path) -> None:
    """Arrow gives all objects of a column one shape: what the other rows have comes as nulls."""
    calls = [call("stock", {"item": "tent"}), call("hours", {"day": "Sunday"})]
    rows = [{"messages": [USER, says("assistant", "", tool_calls=[one])]} for one in calls]
    pandas.DataFrame(rows).to_parquet(tmp_path / "d.parquet")
    found = [row["messages"][-1]["tool_calls"][0] for row in demonstrations(tmp_path / "d.parquet")]
    assert found == calls


HALF_UNDERSTOOD = [
    ([USER, says("assistant", "a", function_call={"name": "f", "arguments": "{}"})], "has a function_call"),
    ([USER, says("assistant", "a", tool_calls=[call(arguments="{")])], "the arguments of stock are no JSON"),
    ([USER, says("assistant", "a", tool_calls=[call(arguments="[1]")])], "are no JSON object"),
    ([USER, says("assistant", "a", tool_calls=[call(name="")])], "a function without a name"),
    ([USER, says("assistant", "a", tool_calls=[{"type": "retrieval"}])], "is no {"),
    ([USER, says("assistant", "a", tool_calls="call stock")], "is no list of calls"),
    ([says("user", "q", tool_calls=[call()]), ANSWER], "has tool_calls, but is the user's"),
    ([USER, CALLING, says("tool", "12", tool_call_id="c2"), ANSWER], "the result of no call: 'c2'"),
    ([USER, CALLING, says("user", "Hm?"), ANSWER], "expected the tool's"),
    ([USER, says("assistant", "", tool_calls=[call(id="c1"), call(id="c2")]), RESULT, ANSWER],
     "comes before 1 of the calls have a result"),
    ([USER, RESULT, ANSWER], "is the tool's, expected the assistant's"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "words"), HALF_UNDERSTOOD, ids=[words for _, words in HALF_UNDERSTOOD])
def test_a_call_that_is_half_understood_is_a_fault(tmp_path: Path, messages: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        demonstrations(write(tmp_path, {"messages": messages}))
    assert words in str(caught.value)


@pytest.mark.parametrize("tools", [[{"name": "f"}], [{"type": "retrieval"}], "f", [1]])
def test_tools_that_are_no_functions_are_a_fault(tmp_path: Path, tools: Any) -> None:
    with pytest.raises(DataError, match="line 1: tools"):
        demonstrations(write(tmp_path, {"messages": [USER, ANSWER], "tools": tools}))


def test_what_cannot_have_tools_refuses_them(tmp_path: Path) -> None:
    path = write(tmp_path, {"messages": [USER, CALLING, RESULT, ANSWER]})
    with pytest.raises(DataError, match="line 1: tools or tool calls"):
        read_demonstrations(DataConfig.model_validate({"demonstrations": path}))
    with pytest.raises(DataError, match="line 1: tools or tool calls"):
        read_prompts(DataConfig.model_validate({"prompts": path}))
    pairs = write(tmp_path, {"tools": [TOOL], "prompt": "q", "chosen": "a", "rejected": "b"}, name="p.jsonl")
    with pytest.raises(DataError, match="line 1: tools or tool calls"):
        read_preferences(DataConfig.model_validate({"preferences": pairs}))


SYSTEM = [
    {"instruction": "q", "output": "a"},
    {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
    {"prompt": "q", "response": "a"},
    {"prompt": "q", "completion": "a"},
    {"messages": [says("user", "q"), says("assistant", "a")]},
]


@pytest.mark.parametrize("name", ["system", "system_prompt"])
@pytest.mark.parametrize("record", SYSTEM, ids=[",".join(record) for record in SYSTEM])
def test_a_system_column_is_the_system_message(tmp_path: Path, record: Any, name: str) -> None:
    (row,) = demonstrations(write(tmp_path, record | {name: "Answer in Dutch."}), system="Of the run.")
    assert row["messages"] == [says("system", "Answer in Dutch."), says("user", "q"), says("assistant", "a")]
    (row,) = demonstrations(write(tmp_path, record | {name: None}), system="Of the run.")
    assert row["messages"][0] == says("system", "Of the run.")


def test_a_system_column_beside_pairs_thumbs_and_prompts(tmp_path: Path) -> None:
    system = {"system": "Answer in Dutch.", "prompt": "q"}
    for more in ({"chosen": "a", "rejected": "b"}, {"completion": "a", "label": True}):
        rows, _ = read_preferences(DataConfig.model_validate({"preferences": write(tmp_path, system | more)}))
        assert rows[0]["messages"] == [says("system", "Answer in Dutch."), says("user", "q")]
    (row,) = read_prompts(DataConfig.model_validate({"prompts": write(tmp_path, system)}))
    assert row["messages"] == [says("system", "Answer in Dutch."), says("user", "q")]


def test_two_system_messages_are_a_fault_and_one_said_twice_is_not(tmp_path: Path) -> None:
    messages = [says("system", "A"), says("user", "q"), says("assistant", "a")]
    assert demonstrations(write(tmp_path, {"system": "A", "messages": messages}))[0]["messages"] == messages
    for other in ({"system": "B", "messages": messages}, {"system": "A", "system_prompt": "B", "messages": messages}):
        with pytest.raises(DataError, match="two system messages that differ"):
            demonstrations(write(tmp_path, other))


UNUSED = [
    ({"prompt": "q", "response": "a", "source": "web", "empty": "", "none": None, "list": []}, ["source"]),
    ({"messages": [says("user", "q"), says("assistant", "a", weight=0)]}, ["messages[].weight"]),
    ({"messages": [says("user", "q", name="Jo"), says("assistant", "a")]}, ["messages[].name"]),
    ({"messages": [says("user", "q"), says("assistant", "a", value="b")]}, ["messages[].value"]),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q", "cache": 1}]},
                says("assistant", "a"),
            ]
        },
        ["messages[].content[].cache"],
    ),
    ({"instruction": "q", "instances": [{"input": "", "output": "a", "id": 1}]}, ["instances[].id"]),
    ({"prompt": "q", "completion": "a", "input": "b"}, ["input"]),
    ({"text": "a", "system": "b"}, ["system"]),
    ({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 2, "score_rejected": 1, "margin": 1}, ["margin"]),
    ({"instruction": "q", "response1": "a", "response2": "b", "annotator1": 1, "annotator2": 1, "id": 7}, ["id"]),
]


@pytest.mark.parametrize(("record", "names"), UNUSED, ids=[names[0] for _, names in UNUSED])
def test_each_field_that_is_not_read_is_counted(tmp_path: Path, record: Any, names: list[str]) -> None:
    reader = Reader(Source(path=write(tmp_path, record, record)))
    list(reader)
    assert reader.unused == dict.fromkeys(names, 2)
    (survey,) = check({"d": [Source(path=tmp_path / "d.jsonl")]})
    assert {f.kind: f.count for f in findings(survey) if "not used" in f.kind} == {f"field not used: {names[0]}": 2}


def test_pictures_beside_the_text_are_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="images is set; trueup reads text alone"):
        demonstrations(write(tmp_path, {"prompt": "q", "response": "a", "images": ["a.png"]}))


def test_the_report_says_what_was_read_and_what_was_not(tmp_path: Path) -> None:
    long = [says("user", "q"), says("assistant", "a"), says("user", "r"), says("assistant", "b")]
    path = write(tmp_path, {"messages": long, "id": 1}, {"messages": long[:2], "id": 2})
    read_demonstrations(DataConfig.model_validate({"demonstrations": path}), report=(report := ReadReport()))
    assert report.as_metrics() == {
        "num_rows": 2,
        "num_used": 2,
        "num_untrained_turns": 1,
        "unused_fields": {"id": 2},
        "left_out": {},
        "notes": {},
        "files_not_read": [],
        "shares": [],
    }
    assert report.lines() == ["data.demonstrations: field not used: id, in 2 rows"]
    every = DataConfig.model_validate({"demonstrations": path, "train_on": "all"})
    read_demonstrations(every, report=(report := ReadReport()))
    assert report.num_untrained_turns == 0


def test_prompts_that_are_repeated_and_answers_beside_them_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, *({"prompt": q, "response": "a"} for q in "qqr"))
    read_prompts(DataConfig.model_validate({"prompts": path}), report=(report := ReadReport()))
    assert (report.num_used, report.left_out, report.unused_fields) == (2, {"prompt repeated": 1}, {"response": 3})


@pytest.mark.parametrize("missing", [None, float("nan"), "", "  ", "\u200b"])
def test_a_missing_value_of_every_writer_is_no_text(tmp_path: Path, missing: Any) -> None:
    path = write(tmp_path, {"prompt": "q", "response": missing})
    with pytest.raises(DataError, match="line 1: response has no text"):
        demonstrations(path)
    (row,) = demonstrations(write(tmp_path, {"instruction": "q", "input": missing, "output": "a"}))
    assert row["messages"][0]["content"] == "q"


def test_missing_values_of_pandas_in_parquet_and_csv(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"instruction": ["q", "r"], "input": [float("nan"), "more"], "output": ["a", None]})
    frame.to_parquet(tmp_path / "d.parquet")
    frame.to_csv(tmp_path / "d.csv", index=False)
    for name in ("d.parquet", "d.csv"):
        reader = Reader(Source(path=tmp_path / name))
        assert [example.prompt[0]["content"] for _, example in reader] == ["q"]
        assert dict(reader.faults.counts) == {"empty answer": 1}


@pytest.mark.parametrize("text", ["nan", "None", "NULL", "NaT", "<NA>"])
def test_a_text_that_reads_like_a_missing_value_is_named(tmp_path: Path, text: str) -> None:
    rows = [{"instruction": "q", "input": "", "output": text}, {"instruction": "q", "input": text, "output": "None."}]
    reader = Reader(Source(path=write(tmp_path, *rows)))
    assert len(list(reader)) == 2
    assert reader.notes.counts == {"reads like a missing value": 2}


LISTS = [says("system", "S"), says("user", "q"), says("assistant", 'it\'s "a"\nb')]


@pytest.mark.parametrize("written", [json.dumps, str, lambda value: json.dumps(value, indent=1)])
def test_lists_of_turns_written_as_texts_are_read_in_every_column(tmp_path: Path, written: Any) -> None:
    pandas.DataFrame({"messages": [written(LISTS)]}).to_csv(tmp_path / "d.csv", index=False)
    assert demonstrations(tmp_path / "d.csv")[0]["messages"] == LISTS
    other = [*LISTS[:2], says("assistant", "c")]
    pandas.DataFrame({"chosen": [written(LISTS)], "rejected": [written(other)]}).to_csv(tmp_path / "p.csv", index=False)
    rows, _ = read_preferences(DataConfig.model_validate({"preferences": tmp_path / "p.csv"}))
    assert (rows[0]["messages"], rows[0]["completion"], rows[0]["rejected"]) == (LISTS[:2], LISTS[2]["content"], "c")
    pandas.DataFrame({"prompt": [written(LISTS[:2])]}).to_csv(tmp_path / "q.csv", index=False)
    assert read_prompts(DataConfig.model_validate({"prompts": tmp_path / "q.csv"}))[0]["messages"] == LISTS[:2]


def test_a_list_that_numpy_wrote_is_refused_with_a_way(tmp_path: Path) -> None:
    array = pandas.DataFrame({"messages": [LISTS]})
    array.to_parquet(tmp_path / "d.parquet")
    pandas.read_parquet(tmp_path / "d.parquet").to_csv(tmp_path / "d.csv", index=False)  # arrays, without commas
    with pytest.raises(DataError, match="neither JSON nor Python; save the file as JSON Lines"):
        demonstrations(tmp_path / "d.csv")


@pytest.mark.parametrize("text", ['[{"name": "tent"}] - which is it?', "[INST] hi", '["a", "b"]', '[{"id": 1}]'])
def test_a_prompt_that_quotes_json_stays_a_text(tmp_path: Path, text: str) -> None:
    (row,) = demonstrations(write(tmp_path, {"prompt": text, "response": "a"}))
    assert row["messages"][0]["content"] == text


ULTRA = {
    "prompt": "q",
    "chosen": [says("user", "q"), says("assistant", "a")],
    "rejected": [says("user", "q"), says("assistant", "b")],
    "messages": [says("user", "q"), says("assistant", "a")],
    "score_chosen": 8.0,
    "score_rejected": 7.5,
}


def test_whole_dialogues_beside_pairs_are_demonstrations_and_one_score_for_both_is_a_tie(tmp_path: Path) -> None:
    path = write(tmp_path, ULTRA, ULTRA | {"score_rejected": 8.0})
    data = DataConfig.model_validate({"preferences": path, "demonstrations": path})
    rows, left_out = read_preferences(data)
    assert [(row["completion"], row["rejected"]) for row in rows] == [("a", "b")]
    assert left_out == {"no preference": 1}
    read_demonstrations(data, report=(report := ReadReport()))
    assert (report.num_used, dict(report.unused_fields)) == (
        2,
        dict.fromkeys(("prompt", "chosen", "rejected", "score_chosen", "score_rejected"), 2),
    )


def test_scores_that_contradict_the_choice_are_left_out_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, ULTRA, ULTRA | {"score_chosen": 7.0}, ULTRA | {"score_chosen": "high"})
    _, left_out = read_preferences(DataConfig.model_validate({"preferences": path}))
    assert left_out == {"the rejected answer has the higher score": 1, "unknown verdict": 1}


def test_thumbs_are_no_demonstrations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"KTO rows .*no demonstrations"):
        demonstrations(write(tmp_path, {"prompt": "q", "completion": "a", "label": False}))


def test_a_share_that_the_run_file_asks_for_is_said_and_is_no_warning(tmp_path: Path, capsys: Any) -> None:
    path = write(tmp_path, *({"prompt": f"q{n}", "response": "a"} for n in range(10)))
    config = DataConfig.model_validate({"demonstrations": {"path": path, "weight": 0.5}})
    read_demonstrations(config, report=(report := ReadReport()))
    tell(report)
    assert (
        capsys.readouterr().out == f"data.demonstrations: 0.5 of the rows of {path.name} are used, as its weight says\n"
    )
