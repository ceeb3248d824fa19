"""Two tiny 4-bit policies after SFT, for all tests."""

import pytest
import torch
from tiny import make_run

from trueup.run.pipeline import Pipeline

torch.set_num_threads(1)  # on a busy machine, two threads wait for each other longer than a tiny model takes


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A policy that an adapter alone can make certain of a token, for PPO and GRPO; sample is built as well."""
    made = make_run(tmp_path_factory.mktemp("sharp"), sharp=True, num_prompts=10, sft_epochs=6)
    made.execute("sample")
    return made
