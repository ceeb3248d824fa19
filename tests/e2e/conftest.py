"""One real Label Studio server, and one tiny 4-bit policy after SFT, for all tests of this folder."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import WORDS, make_model

from trueup.artifacts import write_jsonl
from trueup.config import load
from trueup.feedback import server
from trueup.pipeline import Pipeline
from trueup.stages import STAGES


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def labelstudio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a running server."""
    folder = tmp_path_factory.mktemp("labelstudio")
    server.start(folder, free_port())
    yield folder
    assert server.stop(folder)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    folder = tmp_path_factory.mktemp("run")
    make_model(folder / "model")
    questions = [f"{a} {b}" for a in WORDS for b in WORDS]
    write_jsonl(folder / "d.jsonl", [{"prompt": q, "response": f"glad {q}"} for q in questions[:40]])
    write_jsonl(folder / "p.jsonl", [{"prompt": q} for q in questions[40:46]])
    (folder / "run.yaml").write_text(
        f"name: tiny\nmodel: {{base: {folder / 'model'}}}\n"
        "data: {demonstrations: d.jsonl, prompts: p.jsonl, held_out: p.jsonl}\n"
        "sft: {learning_rate: 0.01, num_train_epochs: 3}\n"
        "sample: {num_completions: 2, max_new_tokens: 8}\nevaluate: {num_completions: 1, max_new_tokens: 8}\n"
    )
    run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
    made = Pipeline(run, STAGES, folder / "runs")
    made.execute("sft")
    return made
