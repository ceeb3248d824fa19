"""`data prepare`: what it writes is read again without a fault, and every dropped row is accounted for."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from trueup.cli.main import main
from trueup.data import read_demonstrations, read_preferences, read_prompts
from trueup.data.prepare import prepare
from trueup.data.sources import Reader
from trueup.errors import DataError
from trueup.run.data_config import DataConfig, Source

SHARED = Path(__file__).parents[3] / "shared" / "data"


def write(folder: Path, rows: list[Any], name: str = "d.jsonl") -> list[Source]:
    (folder / name).write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return [Source(path=folder / name)]


def test_faults_and_duplicates_go_and_prompts_stay_on_one_side(tmp_path: Path) -> None:
    good = [{"prompt": f"q{i}", "response": f"a{i} {side}"} for i in range(200) for side in "xy"]
    bad = ["{", {"prompt": "q", "response": ""}, good[0], good[1], {"prompt": "c\x07d", "response": "e"}]
    record = prepare({"d": write(tmp_path, [*good, *bad])}, tmp_path / "out", held_out=0.25)
    done = record["fields"]["d"]
    assert done["dropped"] == {"exact duplicate": 2, "not JSON": 1, "empty answer": 1}
    train = read_demonstrations(DataConfig.model_validate({"demonstrations": tmp_path / "out" / "d.parquet"}))
    aside = read_demonstrations(DataConfig.model_validate({"demonstrations": tmp_path / "out" / "d.held_out.parquet"}))
    assert len(train) + len(aside) == 401 == sum(written["rows"] for written in done["written"].values())
    prompts = [{row["messages"][0]["content"] for row in rows} for rows in (train, aside)]
    assert prompts[0] & prompts[1] == set()
    assert 26 <= len(prompts[1]) <= 75  # a quarter of 201, four standard deviations of 6.1 either way
    assert "cd" in prompts[0] | prompts[1]
    for name, written in done["written"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == written["sha256"]
    assert json.loads((tmp_path / "out" / "record.json").read_text()) == record


def test_the_same_seed_splits_the_same_way(tmp_path: Path) -> None:
    sources = {"d": write(tmp_path, [{"prompt": f"q{i}", "response": "a"} for i in range(50)])}
    hashes = [prepare(sources, tmp_path / name, seed=seed)["fields"] for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert hashes[0]["d"]["written"] == hashes[1]["d"]["written"] != hashes[2]["d"]["written"]


def test_with_held_out_prompts_training_rows_of_the_same_prompt_go(tmp_path: Path) -> None:
    sources = {
        "demonstrations": write(tmp_path, [{"prompt": p, "response": "a"} for p in ("One ?", "two", "three")]),
        "held_out": write(tmp_path, [{"prompt": "one  ?"}, {"prompt": "four"}], "h.jsonl"),
    }
    record = prepare(sources, tmp_path / "out")
    assert record["fields"]["demonstrations"]["dropped"] == {"prompt is held out": 1}
    data = DataConfig.model_validate(
        {
            "demonstrations": tmp_path / "out" / "demonstrations.parquet",
            "held_out": tmp_path / "out" / "held_out.parquet",
        }
    )
    assert [row["messages"][0]["content"] for row in read_demonstrations(data)] == ["two", "three"]
    assert [row["messages"][0]["content"] for row in read_prompts(data, "held_out")] == ["one  ?", "four"]


def test_near_duplicates_go_when_asked(tmp_path: Path) -> None:
    long = " ".join(f"w{i}" for i in range(100))
    rows = [{"prompt": "q", "response": long}, {"prompt": "q", "response": long + " more"}]
    kept = prepare({"d": write(tmp_path, rows)}, tmp_path / "a", held_out=0)["fields"]["d"]
    assert (kept["dropped"], kept["written"]["d.parquet"]["rows"]) == ({}, 2)
    dropped = prepare({"d": write(tmp_path, rows)}, tmp_path / "b", held_out=0, near=True)["fields"]["d"]
    assert dropped["dropped"] == {"near duplicate": 1}


@pytest.mark.parametrize("name", ["hh_helpful_base.train", "oasst_ranked_pairs", "oasst_thumbs", "pandalm_testset_v1"])
@pytest.mark.skipif(not SHARED.is_dir(), reason="the real files are not here")
def test_real_preferences_say_the_same_after_preparing(tmp_path: Path, name: str) -> None:
    source = SHARED / f"{name}.jsonl.gz"
    prepare({"d": [Source(path=source)]}, tmp_path / "out", held_out=0)
    before, _ = read_preferences(DataConfig.model_validate({"preferences": source}))
    after, left_out = read_preferences(DataConfig.model_validate({"preferences": tmp_path / "out" / "d.parquet"}))
    assert left_out == {}
    if name == "pandalm_testset_v1":  # people are told apart, so a row for each of them is written
        assert _said(after) == _said(before)
        return
    seen: dict[str, Any] = {}
    for row in before:
        seen.setdefault(json.dumps([row["messages"], row["completion"], row["rejected"]]), row)
    assert after == [*seen.values()]


def test_two_people_on_one_answer_are_no_duplicates(tmp_path: Path) -> None:
    row = {"prompt": "q", "completion": "a", "label": 1}
    rows = [row | {"annotator": who} for who in ("ann", "bo", "bo")]
    record = prepare({"preferences": write(tmp_path, rows)}, tmp_path / "out", held_out=0)["fields"]["preferences"]
    assert record["dropped"] == {"exact duplicate": 1}
    after, _ = read_preferences(DataConfig.model_validate({"preferences": tmp_path / "out" / "preferences.parquet"}))
    assert [(row["votes"], row["verdicts"][0].annotator) for row in after] == [((1, 0), "ann"), ((1, 0), "bo")]


def _said(rows: list[dict[str, Any]]) -> set[tuple[str, ...]]:
    return {
        (json.dumps(row["messages"]), *row["sides"], one.annotator, one.value)
        for row in rows
        for one in row["verdicts"]
    }


@pytest.mark.parametrize("record", [{"text": "a b"}, {"prompt": "a"}])
def test_texts_and_prompts_keep_their_format(tmp_path: Path, record: dict[str, str]) -> None:
    prepare({"d": write(tmp_path, [record])}, tmp_path / "out", held_out=0)
    reader = Reader(Source(path=tmp_path / "out" / "d.parquet"))
    assert [example for _, example in reader] == [example for _, example in Reader(write(tmp_path, [record])[0])]


def test_a_folder_that_exists_and_a_file_without_a_usable_row_are_refused(tmp_path: Path) -> None:
    sources = write(tmp_path, [{"prompt": "q", "response": ""}])
    with pytest.raises(DataError, match=r"nothing is left \(empty answer: 1\)"):
        prepare({"d": sources}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "there").mkdir()
    result = CliRunner().invoke(main, ["data", "prepare", str(sources[0].path), "--out", str(tmp_path / "there")])
    assert (result.exit_code, "it exists already" in result.output) == (2, True)
