"""The packed forward and its hand-written backward give the hidden states and gradients of transformers."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import bitsandbytes as bnb
import pytest
import torch
from tiny import make_model
from torch.nn import functional

from trueup.cpu import attention, block, grouping, linear, logits, precision, trunk
from trueup.cpu.packing import pack
from trueup.models import adapters, base, head
from trueup.run.run_file import AdapterConfig

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="what helps only CPUs")
SCALING = 1.5
SHARED = 12  # tokens the rows of `batch` begin with


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.detach().double() - expected.detach().double()).norm() / expected.detach().double().norm())


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 0.01)])
def test_a_4_bit_map_with_lora_is_that_of_autograd(dtype: torch.dtype, rounding: float) -> None:
    layer = bnb.nn.Linear4bit(128, 64, bias=False, compute_dtype=dtype, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(normal(0, 64, 128).to(dtype), requires_grad=False, quant_type="nf4")
    layer = layer.to("cpu")
    weight = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    x, a, b = (normal(i, *shape).requires_grad_() for i, shape in ((1, (6, 128)), (2, (4, 128)), (3, (64, 4))))
    expected = x @ weight.T + x @ a.T @ b.T * SCALING  # eq. 3 of Hu et al. 2021
    grad = normal(4, 6, 64)
    wanted = torch.autograd.grad(expected, (x, a, b), grad)

    ours = linear.Linear(layer.weight, None, a, b, SCALING)
    with torch.no_grad():
        assert relative(ours.forward(x.to(dtype)), expected) < rounding
        for found, right in zip(ours.backward(grad.to(dtype), x.to(dtype)), wanted, strict=True):
            assert found is not None
            assert relative(found, right) < rounding


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Five rows of 30 tokens: three share their beginning, two of those even more; padding on both sides."""
    ids = torch.randint(5, 250, (5, 30), generator=torch.Generator().manual_seed(0))
    ids[1:3, :SHARED] = ids[0, :SHARED]
    ids[2, SHARED:22] = ids[1, SHARED:22]
    mask = torch.ones_like(ids)
    mask[1, -3:], mask[3, :5], mask[4, 10:] = 0, 0, 0
    return ids, mask


def test_what_rows_begin_with_is_packed_once() -> None:
    ids, mask = batch()
    packed = pack(ids, mask)
    assert len(packed.ids) == int(mask.sum()) - 2 * SHARED - (22 - SHARED)
    assert torch.equal(packed.ids[packed.place][mask.bool()], ids[mask.bool()])
    assert packed.positions[packed.place][3, 5:].tolist() == list(range(25))  # padding on the left is not counted


def test_equal_rows_and_a_row_that_begins_another() -> None:
    ids = torch.arange(20).repeat(3, 1) + 5
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    packed = pack(ids, mask)
    assert packed.ids.tolist() == ids[0].tolist()  # nothing twice
    assert torch.equal(packed.ids[packed.place][mask.bool()], ids[mask.bool()])


@pytest.mark.parametrize("waste", [0, grouping.WASTE])
def test_attention_and_its_gradients_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, waste: int) -> None:
    monkeypatch.setattr(grouping, "WASTE", waste)
    ids, mask = batch()
    packed = pack(ids, mask)
    n = len(packed.ids)
    q, k, v = (normal(i, n, heads, 16).requires_grad_() for i, heads in ((1, 4), (2, 2), (3, 2)))
    grad = normal(4, n, 4, 16)
    expected = torch.zeros_like(q)
    for row, real in zip(packed.place, packed.mask, strict=True):
        at = row[real]
        heads = [x[at].transpose(0, 1)[None] for x in (q, k, v)]
        seen = functional.scaled_dot_product_attention(*heads, is_causal=True, enable_gqa=True)[0].transpose(0, 1)
        expected = expected.index_put((at,), seen)
    wanted = torch.autograd.grad(expected, (q, k, v), grad)
    with torch.no_grad():
        groups = grouping.group(packed.nodes)
        assert any(group.padding is not None for group in groups) == (waste > 0)
        out = attention.forward(q, k, v, groups)
        assert relative(out, expected) < 1e-5
        for found, right in zip(attention.backward(grad, q, k, v, out, groups), wanted, strict=True):
            assert relative(found, right) < 1e-5


def test_every_token_is_in_one_group_and_no_group_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(*batch())
    for largest in (1, 1000, grouping.LARGEST):
        monkeypatch.setattr(grouping, "LARGEST", largest)
        groups = grouping.group(packed.nodes)
        assert sorted(torch.cat([group.own for group in groups]).tolist()) == list(range(len(packed.ids)))
        assert all(len(group.queries) == 1 or group.unseen.numel() <= largest for group in groups)
    assert len(groups) < len(packed.nodes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    make_model(path)
    return path


def load(folder: Path, fast: bool) -> Any:
    """The 4-bit base, its forward ours or transformers' own, in the same precision."""
    if fast:
        model = base.load_base(str(folder), four_bit=True)
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRUEUP_CPU", "portable")
            model = base.load_base(str(folder), four_bit=True)
        if not precision.has_bf16():
            precision.flow_in_fp32(model)
    assert hasattr(model.base_model, "usual_forward") is fast
    return model


def hidden_and_gradients(folder: Path, fast: bool, prepare: Callable[[Any], None] = lambda model: None) -> Any:
    """Hidden states of the real tokens, and the gradient of every trainable parameter."""
    torch.manual_seed(0)
    model = adapters.new_adapter(load(folder, fast), AdapterConfig()).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    prepare(model)
    ids, mask = batch()
    hidden = model.get_base_model().model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    hidden = hidden[mask.bool()]
    if any(p.requires_grad for p in model.parameters()):
        (hidden.float() * normal(1, *hidden.shape)).sum().backward()
    return hidden, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def biased(model: Any) -> None:
    for name, module in model.named_modules():
        if name.endswith(("q_proj", "k_proj", "v_proj")):
            module.base_layer.bias = torch.nn.Parameter(normal(1, module.out_features), requires_grad=False)


def checkpointed(model: Any) -> None:
    model.get_base_model().model.gradient_checkpointing = True


def turned_off(model: Any) -> None:
    model.base_model.disable_adapter_layers()


@pytest.fixture
def fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arithmetic exact enough to tell a bug from rounding, whatever the processor prefers."""
    monkeypatch.setattr(precision, "has_bf16", lambda: False)


@pytest.mark.usefixtures("fp32")
@pytest.mark.parametrize("prepare", [lambda model: None, biased, checkpointed, turned_off])
def test_a_model_is_that_of_transformers(folder: Path, prepare: Callable[[Any], None], rounding: float = 1e-4) -> None:
    plain = (lambda model: None) if prepare is checkpointed else prepare
    expected, wanted = hidden_and_gradients(folder, False, plain)
    found, grads = hidden_and_gradients(folder, True, prepare)
    assert relative(found, expected) < rounding
    assert grads.keys() == wanted.keys()
    assert all(relative(grads[name], wanted[name]) < rounding for name in wanted)


def test_in_bf16_it_is_that_of_transformers_within_rounding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda: True)
    test_a_model_is_that_of_transformers(folder, lambda model: None, rounding=0.05)  # bf16 keeps 8 bits


@pytest.mark.usefixtures("fp32")
@pytest.mark.parametrize(
    "bug", ["no context", "padding seen", "rotation not undone", "norm's mean forgotten", "scaling forgotten"]
)
def test_a_planted_bug_is_caught(folder: Path, monkeypatch: pytest.MonkeyPatch, bug: str) -> None:
    if bug == "no context":
        monkeypatch.setattr(trunk, "pack", lambda ids, mask: _without_context(pack(ids, mask)))
    elif bug == "padding seen":
        monkeypatch.setattr(trunk, "group", lambda nodes: [_all_past_seen(g) for g in grouping.group(nodes)])
    elif bug == "rotation not undone":
        monkeypatch.setattr(block.Rotary, "turn_back", block.Rotary.turn)
    elif bug == "norm's mean forgotten":
        monkeypatch.setattr(block, "norm_backward", lambda module, grad, x, scale: grad * module.weight * scale)
    else:
        real = linear.Linear.backward

        def wrong(self: linear.Linear, grad: Any, x: Any, need_x: bool = True) -> Any:
            through, a, b = real(self, grad, x, need_x)
            return through, a, None if b is None else b / self.scaling

        monkeypatch.setattr(linear.Linear, "backward", wrong)
    with pytest.raises(AssertionError):
        test_a_model_is_that_of_transformers(folder, lambda model: None)


def _without_context(packed: Any) -> Any:
    return replace(packed, nodes=[replace(node, context=None) for node in packed.nodes])


def _all_past_seen(group: grouping.Group) -> grouping.Group:
    n, m = group.unseen.shape[-2:]
    return replace(group, unseen=torch.arange(m) > m - n + torch.arange(n)[:, None])


def test_what_is_no_plain_lora_goes_the_usual_way(folder: Path) -> None:
    model = adapters.new_adapter(base.load_base(str(folder), four_bit=True), AdapterConfig(kind="dora"))
    ids, mask = batch()
    inner = model.get_base_model().model
    with torch.no_grad():
        found = inner(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        expected = inner.usual_forward(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    assert torch.equal(found, expected)


@pytest.mark.skipif(not precision.has_tiles(), reason="this processor multiplies no tiles")
@pytest.mark.parametrize("num_tokens", [1, 37])
def test_logits_of_bf16_states_are_summed_in_fp32(num_tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4096, 128, generator=generator).bfloat16()
    hidden = torch.randn(num_tokens, 128, generator=generator).bfloat16()
    other = torch.randn(num_tokens, 128, generator=generator).bfloat16()
    targets = torch.randint(4096, (num_tokens,), generator=generator)
    logps, others = (torch.log_softmax(h.double() @ weight.double().T, -1) for h in (hidden, other))
    layer = head.OutputLayer(weight, products=logits.products)
    found, entropy = head.token_logps(hidden, layer, targets)
    torch.testing.assert_close(found.double(), logps.gather(1, targets[:, None])[:, 0], atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), -(logps.exp() * logps).sum(-1), atol=1e-4, rtol=1e-4)
    divergence = (logps.exp() * (logps - others)).sum(-1)
    torch.testing.assert_close(head.kl(hidden, other, layer).double(), divergence, atol=1e-4, rtol=1e-4)
