"""What is summed on a GPU is summed in fp32, a block at a time; what is compared is computed alike."""

from pathlib import Path
from typing import Any

import emulated
import pytest

pytestmark = emulated.needs_compiler
TOKENS, VOCABULARY = 1100, 20_000


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("products")
    return emulated.run("products.py", tokens=TOKENS, vocabulary=VOCABULARY, folder=str(folder / "model"))


def test_log_probabilities_of_bf16_states_are_as_good_as_fp32_sums(found: Any) -> None:
    """A logit rounded to bf16 would be wrong by up to 0.06 (8 bits of mantissa, logits up to 40)."""
    assert found["logps"]["logp"] < 1e-4
    assert found["logps"]["gradient"] < 2**-8  # probabilities are rounded to bf16 before they weigh the layer's rows


def test_no_tensor_has_logits_of_the_whole_vocabulary(found: Any) -> None:
    assert found["logps"]["elements"] < TOKENS * VOCABULARY / 2


def test_a_score_is_fp32_under_autocast(found: Any) -> None:
    assert found["score"]["dtype"] == "torch.float32"
    assert found["score"]["error"] < 1e-5


def test_a_reference_is_computed_as_the_policy_that_trains(found: Any) -> None:
    assert found["arithmetic"] == 0
