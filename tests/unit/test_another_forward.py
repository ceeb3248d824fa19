"""The forward in use is held against transformers' own: one chaotic token is no fault, a wrong row is."""

from pathlib import Path

import pytest
import torch
from tiny import make_model

from trueup.errors import ModelError
from trueup.models import base, causal

FIRST_ROW = 8  # tokens; five more in the second, which is padded


@pytest.mark.parametrize(
    ("wrong", "refused"), [([3], False), ([3, 9], False), (range(FIRST_ROW, 13), True), ([], False)]
)
def test_a_row_that_is_wrong_is_refused_and_a_token_is_not(tmp_path: Path, wrong: list[int], *, refused: bool) -> None:
    make_model(tmp_path)
    model = base.load_base(str(tmp_path), four_bit=False)
    plain = causal.plain_outputs(model)
    assert len(plain) == 13
    other = plain.clone()
    for token in wrong:
        other[token] = plain[token].flip(-1)
    if refused:
        with pytest.raises(ModelError, match="differ from transformers' own"):
            causal.refuse_another_forward(model, other, "model.base")
    else:
        causal.refuse_another_forward(model, other, "model.base")


def test_outputs_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    make_model(tmp_path)
    model = base.load_base(str(tmp_path), four_bit=False)
    with pytest.raises(ModelError):
        causal.refuse_another_forward(model, torch.full_like(causal.plain_outputs(model), torch.nan), "model.base")
