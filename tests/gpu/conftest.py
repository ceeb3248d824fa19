"""A tiny run that is built on the GPU of this machine, all stages, once for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from on_gpu import RUN, STAGES
from tiny import WORDS, make_model, open_run

from trueup.run.artifacts import write_jsonl
from trueup.run.pipeline import Pipeline


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder needs a GPU."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("gpu")
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="there is no GPU"))


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The run; nothing of it is built."""
    folder = tmp_path_factory.mktemp("gpu")
    make_model(folder / "model", sharp=True)
    asked = [f"{a} {b}" for a in WORDS for b in WORDS]
    write_jsonl(folder / "d.jsonl", [{"prompt": q, "response": f"glad {q}"} for q in asked[:40]])
    write_jsonl(folder / "p.jsonl", [{"prompt": q} for q in asked[40:48]])
    write_jsonl(folder / "h.jsonl", [{"prompt": q} for q in asked[48:52]])
    pairs = [{"prompt": q, "chosen": WORDS[i % 5], "rejected": "no"} for i, q in enumerate(asked[60:84])]
    write_jsonl(folder / "c.jsonl", pairs)
    (folder / "run.yaml").write_text(RUN.format(base=folder / "model"))
    return open_run(folder)


@pytest.fixture(scope="session")
def record(chain: Pipeline) -> Callable[[str], dict[str, Any]]:
    """The record of a stage, which is built first, with those before it."""

    def of(name: str) -> dict[str, Any]:
        for stage in STAGES[: STAGES.index(name) + 1]:
            if stage in ("kto", "ppo", "grpo") and stage != name:
                continue  # no other stage needs it
            chain.execute(stage)
        return chain.stages[name].makes(chain.path(name)).record()

    return of
