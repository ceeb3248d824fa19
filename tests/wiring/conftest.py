"""The tiny run with judgements, frozen."""

from __future__ import annotations

from pathlib import Path

import pytest
from judged import judge, judged_pairs, judged_thumbs
from tiny import copy_of

from trueup.run.pipeline import Pipeline


@pytest.fixture(scope="session")
def judged(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The tiny run after `collect` of `judged_pairs` and `judged_thumbs`."""
    return judge(pipeline, tmp_path_factory.mktemp("judged") / "run", judged_pairs(), judged_thumbs())


@pytest.fixture
def run_copy(judged: Pipeline, tmp_path: Path) -> Path:
    """The folder of a copy of `judged`."""
    return copy_of(judged, tmp_path / "run")
