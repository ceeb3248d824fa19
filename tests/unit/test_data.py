"""The user's files as rows for the stages: every faulty line is named."""

import re
from pathlib import Path
from typing import Any

import pytest

from trueup.data import read_demonstrations, read_preferences, read_prompts
from trueup.errors import DataError
from trueup.run.data_config import DataConfig


def data(**fields: Any) -> DataConfig:
    return DataConfig.model_validate(fields)


def test_a_csv_with_other_column_names(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("question,response\nHi?,Hello\n")
    rows = read_demonstrations(data(demonstrations=path, columns={"prompt": "question"}, system="Be kind."))
    assert [m["content"] for m in rows[0]["messages"]] == ["Be kind.", "Hi?", "Hello"]


def test_broken_line_17_and_a_prompt_without_text_are_both_named(tmp_path: Path) -> None:
    lines = ['{"prompt": "a"}'] * 20
    lines[16], lines[18] = '{"prompt": ', '{"prompt": " "}'
    path = tmp_path / "p.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"(?s)line 17: not JSON.*line 19: prompt has no text"):
        read_prompts(data(prompts=path))


def test_twenty_faults_are_shown_in_the_files_order_and_all_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text("".join("{\n" if i % 2 else '{"prompt": ""}\n' for i in range(50)) + '{"prompt": "q"}\n')
    with pytest.raises(DataError) as caught:
        read_prompts(data(prompts=path))
    assert [int(n) for n in re.findall(r"line (\d+):", str(caught.value))] == list(range(1, 21))
    assert "and 30 more" in str(caught.value)


def test_an_empty_file_a_missing_one_and_none(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text("")
    with pytest.raises(DataError, match="no rows"):
        read_prompts(data(prompts=tmp_path / "e.jsonl"))
    with pytest.raises(DataError, match="no such file"):
        read_prompts(data(prompts=tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match=r"data\.prompts: not set"):
        read_prompts(data())


def test_a_misnamed_column_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompts\nHi\n")
    with pytest.raises(DataError, match=r"did you mean prompts\? Then write .*columns: {prompt: prompts}"):
        read_prompts(data(prompts=tmp_path / "p.csv"))


def test_prompts_are_no_demonstrations_and_the_answers_name_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("prompt,respons\nHi,Hello\n")
    with pytest.raises(DataError, match=r"(?s)no demonstrations.*columns: {response: respons}"):
        read_demonstrations(data(demonstrations=tmp_path / "d.csv"))


def test_few_shot_turns_follow_the_system_message_everywhere(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text(
        '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}\n'
        '{"messages": [{"role": "system", "content": "own"}, {"role": "user", "content": "r"},'
        ' {"role": "assistant", "content": "b"}]}\n'
    )
    shots = [{"prompt": "1+1", "response": "2"}]
    run = data(demonstrations=tmp_path / "d.jsonl", prompts=tmp_path / "d.jsonl", system="S", few_shot=shots)
    demonstrations = [[m["content"] for m in row["messages"]] for row in read_demonstrations(run)]
    assert demonstrations == [["S", "1+1", "2", "q", "a"], ["own", "1+1", "2", "r", "b"]]
    assert [[m["content"] for m in row["messages"]] for row in read_prompts(run)] == [d[:-1] for d in demonstrations]


def test_weights_repeat_and_thin_out_the_rows_of_each_source(tmp_path: Path) -> None:
    for name, letter in (("a", "x"), ("b", "y")):
        (tmp_path / f"{name}.csv").write_text("prompt,response\n" + "".join(f"{letter}{i},ok\n" for i in range(1000)))
    sources = [{"path": tmp_path / "a.csv", "weight": 2}, {"path": tmp_path / "b.csv", "weight": 0.3}]
    prompts = [row["messages"][0]["content"] for row in read_demonstrations(data(demonstrations=sources), seed=1)]
    assert prompts.count("x7") == 2
    assert sum(p.startswith("x") for p in prompts) == 2000
    kept = [p for p in prompts if p.startswith("y")]
    assert 240 < len(kept) == len(set(kept)) < 360  # 300, four standard deviations of 14.5 either way
    again = [row["messages"][0]["content"] for row in read_demonstrations(data(demonstrations=sources), seed=1)]
    assert again == prompts


def test_one_source_with_a_weight_needs_no_list() -> None:
    one = {"path": "p.csv", "weight": 0.5}
    assert data(prompts=one) == data(prompts=[one])
    assert data(prompts=["p.csv", one]) == data(prompts=[{"path": "p.csv"}, one])
    with pytest.raises(ValueError, match="or a list of these"):
        data(prompts=[7])


def test_prompts_are_kept_once_so_a_weight_above_1_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        data(prompts=[{"path": "p.csv", "weight": 2}])


def test_unusable_preferences_are_counted_and_a_broken_line_stops(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    good = '{"prompt": "q", "chosen": "a", "rejected": "b"}\n'
    path.write_text(
        good + '{"prompt": "q", "chosen": "a", "rejected": ""}\n{"prompt": "q", "chosen": "a", "rejected": "a"}\n'
    )
    rows, left_out = read_preferences(data(preferences=path))
    assert [(row["completion"], row["rejected"], row["votes"]) for row in rows] == [("a", "b", (1, 0))]
    assert left_out == {"empty answer": 1, "chosen and rejected are the same": 1}
    path.write_text(good + "{\n")
    with pytest.raises(DataError, match="line 2: not JSON"):
        read_preferences(data(preferences=path))


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ("instruction,context,response", "{input: context, output: response}"),  # Dolly: the question is instruction
        ("instruction,answer", "{output: answer}"),
        ("input,output", "{prompt: input, response: output}"),
        ("question,answer", "{prompt: question, response: answer}"),
    ],
)
def test_columns_that_others_use_are_named_and_what_was_named_is_read(tmp_path: Path, columns: str, named: str) -> None:
    (tmp_path / "d.csv").write_text(f"{columns}\n" + ",".join(["Which?", "Out of it", "Yes"][: columns.count(",") + 1]))
    with pytest.raises(DataError) as caught:
        read_demonstrations(data(demonstrations=tmp_path / "d.csv"))
    assert f"columns: {named}" in str(caught.value)
    taken = dict(pair.split(": ") for pair in named.strip("{}").split(", "))
    [row] = read_demonstrations(data(demonstrations=tmp_path / "d.csv", columns=taken))
    asked = "Which?\n\nOut of it" if "context" in columns else "Which?"
    answered = "Yes" if "context" in columns else "Out of it"
    assert [turn["content"] for turn in row["messages"]] == [asked, answered]
