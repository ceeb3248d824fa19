"""Folders, patterns, splits and folders that datasets saved; names of the hub are names, not folders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from trueup.data import read_prompts
from trueup.data.faults import Faults
from trueup.data.files import DataFile, files_of
from trueup.errors import DataError
from trueup.run.artifacts import write_jsonl
from trueup.run.data_config import DataConfig
from trueup.run.hashes import Hashes
from trueup.run.identity import made_of
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES

SECTIONS = {stage.name: stage.config for stage in STAGES}


def make(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, [{"prompt": name}])
    return folder


def prompts(path: Path) -> list[str]:
    rows = read_prompts(DataConfig.model_validate({"prompts": path}))
    return [row["messages"][0]["content"] for row in rows]


SPLITS = [
    (("data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"),
     "data/train-*.jsonl"),
    (("train.jsonl", "validation.jsonl"), "train.jsonl"),
    (("train/a.jsonl", "test/a.jsonl"), "train/a.jsonl"),
    (("d.jsonl", "d.held_out.jsonl"), "d.jsonl"),
    (("en/test.jsonl", "en/dev.jsonl"), "en/dev.jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("names", "advised"), SPLITS, ids=[names[-1] for names, _ in SPLITS])
def test_a_folder_of_several_splits_is_refused_and_what_is_advised_works(
    tmp_path: Path, names: tuple[str, ...], advised: str
) -> None:
    make(tmp_path, *names)
    with pytest.raises(DataError, match="files of several splits") as caught:
        prompts(tmp_path)
    path = caught.value.next_step.removeprefix("name them: path: ")
    assert path == str(tmp_path / advised)
    found = prompts(Path(path))
    assert found == [name for name in names if Path(tmp_path / name).match(advised)]


def test_files_that_are_named_alike_or_of_one_split_are_one_source(tmp_path: Path) -> None:
    names = ("contest.jsonl", "latest.jsonl", "trainers.jsonl")
    assert prompts(make(tmp_path / "a", *names)) == list(names)
    assert len(prompts(make(tmp_path / "b", "train-0.jsonl", "train-1.jsonl"))) == 2


def test_a_pattern_matches_in_order_and_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "part-2.jsonl", "part-1.jsonl", "other.jsonl", "sub/part-3.jsonl")
    assert prompts(tmp_path / "part-?.jsonl") == ["part-1.jsonl", "part-2.jsonl"]
    assert len(prompts(tmp_path / "**" / "part-*.jsonl")) == 3
    with pytest.raises(DataError, match="no file matches this pattern"):
        prompts(tmp_path / "none-*.jsonl")
    make(tmp_path, "a[1].jsonl")
    assert prompts(tmp_path / "a[1].jsonl") == ["a[1].jsonl"]  # a file of that name is no pattern
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prompts(Path("~/other.jsonl")) == ["other.jsonl"]


def test_a_pattern_and_the_home_folder_in_a_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "part-1.jsonl", "part-2.jsonl", "home/h.jsonl")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "run.yaml").write_text("name: x\ndata: {prompts: part-*.jsonl, held_out: ~/h.jsonl}\n")
    run = Pipeline(load(tmp_path / "run.yaml", SECTIONS), STAGES, tmp_path / "runs")
    assert not any("prompts" in line or "held_out" in line for line in run.missing_files())
    assert len(read_prompts(run.run.data)) == 2
    assert len(read_prompts(run.run.data, "held_out")) == 1
    hashes = Hashes(tmp_path / "hashes.json")
    before = made_of(run.run, run.stages["sample"], {}, tmp_path, hashes)["data"]
    make(tmp_path, "part-3.jsonl")
    assert made_of(run.run, run.stages["sample"], {}, tmp_path, hashes)["data"] != before


def test_a_folder_that_datasets_saved_is_read(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}", "messages": [{"role": "user", "content": f"q{i}"}]} for i in range(2500)]
    saved = datasets.Dataset.from_list(rows)
    saved.save_to_disk(tmp_path / "one", num_shards=3)
    found = [record for file in files_of(tmp_path / "one")[0] for _, record in file.records(Faults())]
    assert found == rows
    datasets.DatasetDict({"train": saved}).save_to_disk(tmp_path / "dict")
    assert len(prompts(tmp_path / "dict")) == 2500
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(tmp_path / "two")
    with pytest.raises(DataError, match="2 splits, saved by datasets: test, train") as caught:
        prompts(tmp_path / "two")
    assert len(prompts(Path(caught.value.next_step.removeprefix("name it: path: ")))) == 2500
    (next((tmp_path / "one").glob("*.arrow"))).unlink()
    with pytest.raises(DataError, match="not whole"):
        prompts(tmp_path / "one")


def test_other_files_of_a_folder_are_named(tmp_path: Path) -> None:
    make(tmp_path, "a.jsonl", "README.md", "more.xlsx")
    assert files_of(tmp_path)[1] == ["more.xlsx"]
    make(tmp_path / "b", "more.xlsx")
    with pytest.raises(DataError, match=r"there are more.xlsx(?s:.*)CSV UTF-8"):
        files_of(tmp_path / "b")


@pytest.mark.parametrize("name", ["hub:../x", "hub:/etc", "hub:x", "hub:./a/b", "hub:a/..", "hub:a/b/c", "hub:"])
def test_a_name_of_the_hub_is_no_path(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make(tmp_path, "x/d.jsonl", "a/b/d.jsonl") / "x")
    with pytest.raises(DataError, match="no name of a data set of the hub"):
        prompts(Path(name))


def test_a_folder_of_the_same_name_is_not_read_in_place_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(make(tmp_path, "owner/name/d.jsonl"))
    with pytest.raises(DataError, match="owner/name is also a folder here"):
        prompts(Path("hub:owner/name"))


def test_a_stream_of_the_hub_that_breaks_off_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: Any, **__: Any) -> Iterator[dict[str, str]]:
        yield {"prompt": "a"}
        yield {"prompt": "b"}
        raise ConnectionError("reset by peer")

    monkeypatch.setattr("trueup.data.hub.is_reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match="the stream broke off after 2 rows: reset by peer"):
        list(DataFile(Path("hub:owner/name")).records(Faults()))


def test_arrow_and_parquet_cut_anywhere_are_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{i}"} for i in range(50)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "d.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "saved")
    arrow = next((tmp_path / "saved").glob("*.arrow"))
    for whole in (tmp_path / "d.parquet", arrow):
        content = whole.read_bytes()
        for length in (20, len(content) // 2):
            (tmp_path / whole.name).with_stem("cut").write_bytes(content[:length])
            with pytest.raises(DataError, match=r"broken (Arrow|Parquet)"):
                prompts((tmp_path / whole.name).with_stem("cut"))
