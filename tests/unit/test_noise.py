"""Warnings of libraries reach the user once, but for those that are known; none about a line of ours passes a test."""

import logging
import subprocess
import sys
import warnings

import pytest

from trueup.models import noise


def test_a_warning_that_is_not_known_shows_once_and_errors_always(capsys: pytest.CaptureFixture[str]) -> None:
    noise.sift()
    logger = logging.getLogger("transformers.some.module")
    for _ in range(3):
        logger.warning("weights were not what they seemed, %s", "first of its kind")
        logger.info("not a warning")
    logger.error("broken")
    logger.error("broken")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "transformers.some.module: weights were not what they seemed, first of its kind",
        "transformers.some.module: broken",
        "transformers.some.module: broken",
    ]


def test_known_warnings_are_left_out_as_logs_and_as_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    known = "\x1b[1mLlamaForSequenceClassification LOAD REPORT\x1b[0m from: /somewhere\nKey | Status"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        noise.sift()
        logging.getLogger("transformers.modeling_utils").warning(known)
        advice = logging.getLogger("bitsandbytes.backends.cpu.ops")
        advice.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s", "No module named 'kernels'")
        warnings.warn("`gradient_checkpointing_enable` is deprecated and will be removed in v6.", FutureWarning, 1)
        warnings.warn("something new is deprecated", FutureWarning, 1)
    assert [str(one.message) for one in caught] == ["something new is deprecated"]
    assert capsys.readouterr().err == ""


def test_each_known_warning_has_a_reason() -> None:
    assert all(len(reason.split()) > 3 for reason in noise.KNOWN.values())


def test_transformers_sets_its_logging_up_before_or_after() -> None:
    """Its import adds a handler of its own: nothing is written twice."""
    code = (
        "from trueup.models import base, noise\nnoise.sift()\nimport transformers\nbase.quiet()\n"
        "transformers.utils.logging.get_logger('transformers.x').warning('only once')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.count("only once") == 1
