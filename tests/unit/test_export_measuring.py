"""The distance between two models is what plain logits give: exact KL, and the share of equal choices."""

import pytest
import torch
from test_export_adapter import tiny
from torch import Tensor

from trueup.export import measuring
from trueup.export.measuring import Trained
from trueup.export.receipt import Way, choose, preferred_gguf

ROWS = [([3, 4, 5], [6, 7]), ([8, 9], [10, 11, 12, 13]), ([20], [21])]


def sharp() -> torch.nn.Module:
    """A tiny model that is sure of its choices: between two such models KL has a direction."""
    model = tiny()
    model.lm_head.weight.data *= 30
    return model


def other() -> torch.nn.Module:
    """A model like the sharp one, a little off, so that some of its choices differ."""
    model = sharp()
    for parameter in model.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


def logps(model: torch.nn.Module, whole: list[int]) -> Tensor:
    with torch.no_grad():
        return model(torch.tensor([whole])).logits[0].log_softmax(-1)


def by_hand() -> tuple[float, float]:
    kl, back, same = [], [], []
    for prompt, answer in ROWS:
        places = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        p, q = (logps(model, prompt + answer)[places] for model in (sharp(), other()))
        kl.append((p.exp() * (p - q)).sum(-1))
        back.append((q.exp() * (q - p)).sum(-1))
        same.append((p.argmax(-1) == q.argmax(-1)).float())
    assert torch.cat(back).mean().item() != pytest.approx(torch.cat(kl).mean().item(), rel=0.02)
    return torch.cat(kl).mean().item(), torch.cat(same).mean().item()


def test_it_is_the_kl_of_plain_logits() -> None:
    trained = Trained.of(sharp(), ROWS, pad_id=0)
    kl, agreement = by_hand()
    assert kl > 1e-3 and 0 < agreement < 1
    found = trained.distance(other())
    assert (found.kl, found.agreement) == (pytest.approx(kl, rel=1e-3), pytest.approx(agreement))
    read = (logps(other(), prompt + answer) for prompt, answer in ROWS)
    found = trained.distance_of_logps(read)
    assert (found.kl, found.agreement) == (pytest.approx(kl, rel=1e-3), pytest.approx(agreement))


@pytest.mark.parametrize("tokens", [1, 10, 12, 4096])
def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    monkeypatch.setattr(measuring, "BATCH_TOKENS", tokens)
    kl, agreement = by_hand()
    found = Trained.of(sharp(), ROWS, pad_id=0).distance(other())
    assert (found.kl, found.agreement) == (pytest.approx(kl, rel=1e-3), pytest.approx(agreement))


def test_a_model_is_at_no_distance_from_itself() -> None:
    found = Trained.of(sharp(), ROWS, pad_id=0).distance(sharp())
    assert (found.kl, found.agreement) == (pytest.approx(0, abs=1e-6), 1)


def way(name: str, kl: float | None, *, alone: bool = False) -> Way:
    return Way(name=name, path=name, how="", stands_alone=alone, kl_nats_per_token=kl)


@pytest.mark.parametrize(
    ("ways", "ship"),
    [
        ([way("adapter_4bit", 0.0), way("merged", 0.001, alone=True), way("adapter_16bit", 0.2)], "merged"),
        ([way("adapter_4bit", 0.0), way("merged", 0.005, alone=True)], "adapter_4bit"),
        ([way("merged", None, alone=True), way("adapter_16bit", 0.2)], "adapter_16bit"),
        ([way("adapter_4bit", 0.00005), way("adapter_16bit", 0.00001)], "adapter_16bit"),  # fitted to 16 bits
        ([way("merged", 0.001, alone=True), way("gguf_q8_0", 0.002, alone=True)], "merged"),
        ([way("merged", None, alone=True)], None),
    ],
)
def test_the_nearest_is_shipped_and_of_equals_what_stands_alone(ways: list[Way], ship: str | None) -> None:
    assert choose(ways, None)[0] == ship


def test_what_lost_a_quarter_of_the_alignment_is_warned_of() -> None:
    ways = [way("merged", 0.001, alone=True), way("adapter_16bit", 0.1995)]
    for moved in (0.009, 0.2029, 0.79):
        said = choose(ways, moved)[1]
        assert len(said) == 2 and said[1].startswith("Do not ship adapter_16bit"), moved
        assert "0.1995" in said[1] and f"{moved:.4f}" in said[1]
    assert len(choose(ways, 0.80)[1]) == len(choose(ways, None)[1]) == 1
    alone = choose(ways[1:], 0.2029)
    assert alone[0] == "adapter_16bit" and alone[1][1].startswith("No way is nearer, but this one is 0.1995")


@pytest.mark.parametrize(
    ("f16", "q8_0", "moved", "chosen"),
    [
        (0.0001, 0.005, 0.2, "gguf_q8_0"),
        (0.0001, 0.005, None, "gguf_q8_0"),
        (None, None, 0.2, "gguf_q8_0"),  # nothing was measured: nothing speaks against it
        (0.0001, 0.005, 0.003, "gguf_f16"),  # 8 bits lost more than alignment moved
        (0.3, 0.2, 0.1, "gguf_q8_0"),  # all are far: the nearest
    ],
)
def test_the_gguf_of_a_modelfile_keeps_the_alignment(
    f16: float | None, q8_0: float | None, moved: float | None, chosen: str
) -> None:
    ways = [way("gguf_f16", f16, alone=True), way("gguf_q8_0", q8_0, alone=True)]
    assert preferred_gguf(ways, moved).name == chosen
