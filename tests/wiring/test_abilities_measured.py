"""The perplexity of a general text, against transformers' own forward and against what adapters do to it."""

from pathlib import Path

import pytest
import torch
from tiny import make_run
from transformers import AutoModelForCausalLM

from trueup.evaluation import general
from trueup.models import adapters, base

DOCUMENTS = ["red tent, blue rope", "a boot", "yes no yes no glad sorry", "x"] + ["green boot"] * 8


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("general")
    make_run(folder, sft_epochs=1)
    return folder


def test_the_figures_are_those_of_transformers_own_forward(place: Path) -> None:
    """The bare base, each document alone and unpadded; the cut one as it is cut."""
    text = general.Text("a text", DOCUMENTS, max_tokens=5)
    tokenizer = base.load_tokenizer(str(place / "model"))
    bare = base.load_base(str(place / "model"), four_bit=False)
    model = adapters.load_adapter(bare, place / "runs/tiny/sft", trainable=False)
    seen: list[int] = []
    found = general.measure(model, tokenizer, text, {"base": None, "sft": "default"}, seen.append)
    plain = AutoModelForCausalLM.from_pretrained(place / "model", dtype=torch.float32)
    expected: dict[int, list[float]] = {}
    for document in DOCUMENTS:
        ids = torch.tensor([tokenizer(document)["input_ids"][:5]])
        if ids.shape[1] > 1:
            with torch.no_grad():
                loss = plain(input_ids=ids, labels=ids).loss
            expected.setdefault(ids.shape[1] - 1, []).append(float(loss) * (ids.shape[1] - 1))
    assert found["num_tokens"] == sorted(found["num_tokens"]) and len(found["num_tokens"]) == len(DOCUMENTS) - 1
    assert found["num_left_out"] == 1  # of one token nothing is predicted
    assert found["num_cut"] == sum(len(tokenizer(document)["input_ids"]) > 5 for document in DOCUMENTS) > 0
    flat = [value for length in sorted(expected) for value in expected[length]]
    assert sorted(found["nll"]["base"]) == pytest.approx(sorted(flat), rel=0.02)  # bf16 against fp32
    assert sum(seen) == 2 * (len(DOCUMENTS) - 1)
    assert found["nll"]["sft"] != found["nll"]["base"]
    assert model.active_adapter == "default"
