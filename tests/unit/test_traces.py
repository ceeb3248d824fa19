"""Thumbs out of production traces: chat logs with feedback, and what Langfuse and LangSmith export.

The rows have the fields that these services document: langfuse.com, "Blob storage export field reference", and
docs.langchain.com, "Run data format" and "Feedback data format".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trueup.data import read_preferences
from trueup.data.names import NAMES_NOBODY
from trueup.data.report import ReadReport
from trueup.data.score_rows import pseudonym
from trueup.errors import ConfigError, DataError
from trueup.feedback.files import judgements_of
from trueup.run.data_config import DataConfig
from trueup.run.run_file import load

USER, ANSWER = {"role": "user", "content": "Any tents?"}, {"role": "assistant", "content": "Two."}
LATER, LAST = {"role": "user", "content": "For winter?"}, {"role": "assistant", "content": "One."}


def read(folder: Path, rows: list[Any], scores: list[Any] | None = None, **source: Any) -> tuple[Any, ReadReport]:
    """((prompt's last turn, answer, thumb up, who, when) of each judgement, what was not read)."""
    for name, some in (("traces.jsonl", rows), ("scores.jsonl", scores or [])):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in some))
    given = {"path": folder / "traces.jsonl"} | ({"scores": folder / "scores.jsonl"} if scores is not None else {})
    judged, _ = read_preferences(DataConfig.model_validate({"preferences": given | source}), report=(r := ReadReport()))
    said, completions = judgements_of(judged)
    known = {row["uid"]: row for row in completions}
    return [
        (known[one.uid]["messages"][-1]["content"], known[one.uid]["completion"], one.verdict, one.annotator, one)
        for one in said
    ], r


def test_a_chat_log_with_feedback_in_each_of_its_shapes(tmp_path: Path) -> None:
    rows = [
        {"messages": [USER, ANSWER], "feedback": {"score": 1, "user": "u1", "timestamp": 1716981226, "comment": "ok"}},
        {
            "messages": [USER, ANSWER],
            "feedback": {"rating": "down", "tag": "slow"},
            "user_id": "u2",
            "model": "m",
            "metadata": {"k": "v"},
        },
        {"messages": [USER, ANSWER], "feedback": [{"value": True, "user": "u1"}, {"value": False, "user": "u3"}]},
        {"messages": [USER, ANSWER], "feedback": None, "model": "m"},
        {"messages": [USER, ANSWER]},
        {"messages": [USER], "feedback": 1},
    ]
    found, report = read(tmp_path, rows)
    assert [(one[2], one[3]) for one in found] == [
        *((True, pseudonym("u1")), (False, pseudonym("u2")), (True, pseudonym("u1")), (False, pseudonym("u3"))),
    ]
    assert (found[0][4].updated_at, found[0][4].comment) == ("2024-05-29T11:13:46+00:00", "ok")
    assert report.unused_fields == {"model": 2, "metadata": 1, "feedback.tag": 1}
    assert report.left_out == {"no score": 2, "empty answer": 1}
    assert "u1" not in found[0][3]


def test_feedback_on_several_turns_is_several_thumbs_each_with_what_came_before(tmp_path: Path) -> None:
    rated = [USER, ANSWER | {"feedback": "down"}, LATER, LAST | {"feedback": {"score": 1}}]
    found, _ = read(tmp_path, [{"messages": rated}, {"messages": [USER, ANSWER, LATER, LAST], "score": 0}])
    assert [one[:3] for one in found] == [
        ("Any tents?", "Two.", False),
        ("For winter?", "One.", True),
        ("For winter?", "One.", False),
    ]


def test_a_logged_request_and_its_response(tmp_path: Path) -> None:
    request = {"model": "m", "messages": [{"role": "system", "content": "Be kind."}, USER]}
    response = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": ANSWER | {"refusal": None}}]}
    found, _ = read(tmp_path, [{"request": request, "response": json.dumps(response), "score": "👍"}])
    assert [one[:3] for one in found] == [("Any tents?", "Two.", True)]


def observation(number: int, trace: str, moment: str, output: Any, **more: Any) -> dict[str, Any]:
    """A row of observations_v2/; input and output are JSON in a text there."""
    times = {"start_time": f"2024-05-29 13:46:{moment}", "end_time": f"2024-05-29 13:47:{moment}"}
    given = {"input": json.dumps([USER]), "output": json.dumps(output) if isinstance(output, dict) else output}
    row = {"id": f"obs-{number}", "trace_id": trace, "project_id": "p", "type": "GENERATION", "metadata": {"key": "x"}}
    return row | times | given | {"parent_observation_id": "", "user_id": f"user-of-{trace}"} | more


def score(number: int, trace: str, value: float, **more: Any) -> dict[str, Any]:
    """A row of scores/."""
    row = {"id": f"s{number}", "timestamp": "2024-05-30 10:00:00.000000", "trace_id": trace, "observation_id": None}
    said = {"name": "user-feedback", "value": value, "source": "API", "comment": None}
    return row | said | {"data_type": "NUMERIC", "string_value": None} | more


def test_langfuse_observations_with_the_scores_beside_them(tmp_path: Path) -> None:
    rows = [
        observation(2, "t1", "02", LAST),  # the last generation of its trace: a score of the trace is about it
        observation(1, "t1", "01", ANSWER),
        observation(3, "t1", "03", "tool result", type="SPAN"),
        observation(4, "t2", "04", "Plain."),
        observation(5, "t3", "05", ANSWER),
    ]
    scores = [
        score(1, "t1", 1, data_type="BOOLEAN", comment="great"),
        score(2, "t2", 0, observation_id="obs-4", source="ANNOTATION", author_user_id="reviewer"),
        score(3, "t2", 0.2, name="user-feedback", source="EVAL"),
        score(4, "t9", 1),
        score(5, "t2", 1, data_type="CATEGORICAL", string_value="thumbs up", metadata={"secret": "x"}),
    ]
    found, report = read(tmp_path, rows, scores)
    assert [one[1:4] for one in found] == [
        ("One.", True, pseudonym("user-of-t1")),
        ("Plain.", False, pseudonym("reviewer")),
        ("Plain.", True, pseudonym("user-of-t2")),
    ]
    assert (found[0][4].comment, found[0][4].updated_at) == ("great", "2024-05-30T10:00:00")
    assert report.left_out == {
        "no score": 2,
        "observation that is no generation": 1,
        "score of a model, not of a person": 1,
        "score of no row in the file": 1,
    }
    assert {"metadata": 5, "project_id": 5, "scores: metadata": 1}.items() <= report.unused_fields.items()


def test_langfuse_traces_of_its_api_with_their_scores_inside(tmp_path: Path) -> None:
    given = {"id": "t1", "timestamp": "2024-05-29T13:46:19.963Z", "userId": "u", "input": {"messages": [USER]}}
    inside = {"id": "s", "name": "thumb", "value": 1, "dataType": "BOOLEAN", "stringValue": "True", "source": "API"}
    row = given | {"output": {"role": "assistant", "content": "Two."}, "scores": [inside | {"traceId": "t1"}]}
    other = given | {"id": "t2", "output": "None.", "scores": [inside | {"value": 0, "stringValue": "False"}]}
    found, _ = read(tmp_path, [row, other])
    assert [one[:4] for one in found] == [
        ("Any tents?", "Two.", True, pseudonym("u")),
        ("Any tents?", "None.", False, pseudonym("u")),
    ]


LC = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "HumanMessage"]}
AI = {"lc": 1, "type": "constructor", "id": ["langchain", "schema", "messages", "AIMessage"]}


def ran(number: int, outputs: Any, inputs: Any = None, **more: Any) -> dict[str, Any]:
    """A run in LangSmith's format."""
    asked = {"messages": [[LC | {"kwargs": {"content": "Any tents?", "type": "human"}}]]}
    row = {"id": f"run-{number}", "name": "ChatOpenAI", "run_type": "llm", "trace_id": "t", "session_id": "p"}
    return row | {"start_time": "2024-04-29T00:49:12.090000", "inputs": inputs or asked, "outputs": outputs} | more


def feedback(run: int, given: float | None, **more: Any) -> dict[str, Any]:
    """A row of LangSmith's feedback."""
    row = {"id": "f", "created_at": "2024-05-05T23:23:11.077838", "modified_at": "2024-05-05T23:23:11.232962"}
    source = {"type": "app", "metadata": None, "user_id": "9"}
    said = {"run_id": f"run-{run}", "key": "user_score", "score": given, "value": None, "comment": None}
    return row | said | {"correction": None, "feedback_source": source} | more


def test_langsmith_runs_with_their_feedback_beside_them(tmp_path: Path) -> None:
    generations = {"generations": [[{"text": "Two.", "message": AI | {"kwargs": {"content": "Two.", "type": "ai"}}}]]}
    rows = [
        ran(1, generations),
        ran(2, {"choices": [{"message": ANSWER}]}, {"messages": [USER]}),
        ran(3, {"output": "One."}, {"question": "For winter?"}, run_type="chain"),
        ran(4, {"messages": [{"type": "ai", "content": "Four."}]}, {"input": "How many?"}),
    ]
    given = [
        *(feedback(1, 1.0), feedback(2, 0.0, correction="Two, and one for winter.")),
        feedback(3, 1, feedback_source={"type": "model"}),
        feedback(4, None, value="thumbs down"),
    ]
    found, report = read(tmp_path, rows, given)
    who = pseudonym("9")
    assert [one[:4] for one in found] == [
        ("Any tents?", "Two.", True, who),
        ("Any tents?", "Two.", "Two, and one for winter.", who),
        ("Any tents?", "Two.", False, who),
        ("How many?", "Four.", False, who),
    ]
    assert report.left_out == {"score of a model, not of a person": 1, "no score": 1}


def test_langsmith_statistics_count_thumbs_and_refuse_other_means(tmp_path: Path) -> None:
    rows = [
        ran(1, {"output": "One."}, feedback_stats={"user_score": {"n": 3, "avg": 2 / 3}}),
        ran(2, {"output": "Two."}, feedback_stats={"user_score": {"n": 2, "avg": 0.8}}),
        ran(3, {"output": "Two."}, feedback_stats={"user_score": {"n": 0, "avg": None}}),
    ]
    found, report = read(tmp_path, rows)
    assert [one[2] for one in found] == [True, True, False]
    assert len({one[3] for one in found}) == 3  # nobody is named: each is a person of its own
    assert report.left_out == {"unknown verdict": 1, "no score": 1}


def test_a_scale_is_refused_until_the_run_file_says_where_a_thumb_begins(tmp_path: Path) -> None:
    rows = [{"messages": [USER, ANSWER], "score": stars} for stars in (5, 4, 3, 2, 1)]
    with pytest.raises(DataError, match="a scale, not thumbs") as caught:
        read(tmp_path, rows)
    assert "thumbs_up_from: 4, thumbs_down_to: 2" in caught.value.next_step
    found, report = read(tmp_path, rows, thumbs_up_from=4, thumbs_down_to=2)
    assert [one[2] for one in found] == [True, True, False, False]
    assert report.left_out == {"score that says neither up nor down": 1, "no score": 1}


def test_of_scores_of_several_names_one_has_to_be_chosen(tmp_path: Path) -> None:
    rows = [observation(1, "t1", "01", ANSWER), observation(2, "t2", "02", LAST)]
    scores = [score(1, "t1", 1), score(2, "t1", 0, name="resolved"), score(3, "t2", 0)]
    with pytest.raises(DataError, match=r"several names: user-feedback \(2\), resolved \(1\)"):
        read(tmp_path, rows, scores)
    found, report = read(tmp_path, rows, scores, score="user-feedback")
    assert [one[1:3] for one in found] == [("Two.", True), ("One.", False)]
    assert report.left_out == {"another score: resolved": 1}
    with pytest.raises(DataError, match="no score named stars"):
        read(tmp_path, rows, scores, score="stars")


@pytest.mark.parametrize("thresholds", ["thumbs_up_from: 4", "thumbs_up_from: 2, thumbs_down_to: 2"])
def test_thresholds_that_cannot_be_meant_are_refused(tmp_path: Path, thresholds: str) -> None:
    (tmp_path / "run.yaml").write_text(f"name: x\ndata: {{preferences: {{path: t.jsonl, {thresholds}}}}}\n")
    with pytest.raises(ConfigError, match="thumbs_up_from"):
        load(tmp_path / "run.yaml", {})


def test_traces_with_tools_or_of_an_unknown_shape_are_counted(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    tools = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}]
    tools += [{"role": "tool", "tool_call_id": "c", "content": "2"}, ANSWER]
    rows = [
        {"messages": tools, "feedback": 1},
        {"messages": [USER, ANSWER], "tools": [{"type": "function", "function": {"name": "look"}}], "feedback": 1},
        {"messages": "no list", "feedback": 1},
        {"messages": [USER, ANSWER], "feedback": 1},
        {"messages": [USER, ANSWER], "feedback": 0},
    ]
    found, report = read(tmp_path, rows)
    assert len(found) == 2
    assert report.left_out == {"tool calls": 2, "not a dialogue": 1}


def test_a_broken_line_of_the_scores_stops_the_stage(tmp_path: Path) -> None:
    read(tmp_path, [observation(1, "t1", "01", ANSWER)], [score(1, "t1", 1)])
    (tmp_path / "scores.jsonl").write_text('{"id": \n')
    given = {"path": tmp_path / "traces.jsonl", "scores": tmp_path / "scores.jsonl"}
    with pytest.raises(DataError, match="line 1: not JSON"):
        read_preferences(DataConfig.model_validate({"preferences": given}))


def test_calls_that_failed_are_counted_and_stop_nothing(tmp_path: Path) -> None:
    call = {"id": "o1", "trace_id": "t1", "type": "GENERATION", "input": "Hi", "output": "Two."}
    mine = {"scores": [{"name": "thumb", "value": 0, "source": "API"}]}
    bare = {name: call[name] for name in ("id", "trace_id", "type", "input")}
    found, report = read(tmp_path, [call | mine, bare | {"id": "o2"}, bare | {"id": "o3"} | mine])
    assert len(found) == 1
    assert report.left_out == {"no score": 1, "empty answer": 1}


@pytest.mark.parametrize("response", [{}, {"choices": []}, {"error": "overloaded"}, None])
def test_a_request_that_was_not_answered_is_no_empty_answer(tmp_path: Path, response: Any) -> None:
    answered = {"request": {"messages": [USER]}, "response": {"choices": [{"message": ANSWER}]}, "score": 0}
    found, report = read(tmp_path, [answered, answered | {"response": response}])
    assert (len(found), report.left_out) == (1, {"empty answer": 1})


@pytest.mark.parametrize("without", ["output", "input"])
def test_traces_whose_first_calls_failed_are_known_by_a_later_row(tmp_path: Path, without: str) -> None:
    call = {"id": "o1", "trace_id": "t1", "type": "GENERATION", "input": "Hi", "output": "Two."}
    scored = {"scores": [{"name": "thumb", "value": 0, "source": "API"}]}
    failed = {name: value for name, value in (call | scored).items() if name != without}
    found, report = read(tmp_path, [failed, failed | {"id": "o2"}, call | scored | {"id": "o3"}])
    assert len(found) == 1
    assert sum(report.left_out.values()) == 2 and "unknown fields" not in report.left_out


def test_runs_and_logs_whose_first_row_has_no_answer_are_known_too(tmp_path: Path) -> None:
    run = {
        "id": "r1",
        "run_type": "llm",
        "inputs": {"messages": [USER]},
        "feedback_stats": {"thumb": {"n": 1, "avg": 1}},
    }
    done = {"outputs": {"choices": [{"message": ANSWER}]}}
    found, report = read(tmp_path, [run, run | done | {"id": "r2"}])
    assert len(found) == 1 and sum(report.left_out.values()) == 1
    asked = {"request": {"messages": [USER]}, "feedback": 1}
    found, report = read(tmp_path, [asked, asked | {"response": {"choices": [{"message": ANSWER}]}}])
    assert len(found) == 1 and sum(report.left_out.values()) == 1


def test_users_whose_ids_differ_in_case_alone_are_not_guessed_about(tmp_path: Path) -> None:
    rows = [{"messages": [USER, ANSWER], "feedback": {"score": 1, "user": who}} for who in ("ann@x", "Ann@x")]
    with pytest.raises(DataError, match="differ only in upper and lower case"):
        read(tmp_path, rows)
    found, report = read(tmp_path, [rows[0], {"messages": [USER, ANSWER], "feedback": {"score": 0, "user": "None"}}])
    assert [one[3] for one in found] == [pseudonym("ann@x"), "unnamed 2.0"]
    assert report.notes == {NAMES_NOBODY: 1}
