"""A run with a reward model, for the tests that talk to it: each module builds on a copy."""

from __future__ import annotations

import pytest
from judged import judge, judged_pairs

from trueup.run.pipeline import Pipeline


@pytest.fixture(scope="session")
def rewarded(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The tiny run with preferences, and a reward model that learned from them."""
    made = judge(pipeline, tmp_path_factory.mktemp("rewarded") / "run", judged_pairs(), [])
    made.execute("reward")
    return made
