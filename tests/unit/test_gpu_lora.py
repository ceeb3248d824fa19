"""LoRA's products of layers that read the same input, in one autograd function, are those of peft."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trueup.gpu import compiled, lora
from trueup.models import adapters, base
from trueup.run.run_file import AdapterConfig

BF16 = 2.0**-8  # its unit roundoff
ROWS, WIDTH = 24, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make_model(made := tmp_path_factory.mktemp("model"))
    return made


@pytest.fixture(autouse=True)
def portable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUEUP_CPU", "portable")


def policy(folder: Path, **config: Any) -> Any:
    """The tiny Llama in 4 bits, through which bf16 flows, with an adapter of peft that changes it."""
    model = adapters.new_adapter(base.load_base(str(folder), four_bit=True), AdapterConfig(r=5, **config)).train()
    draw(model, seed=1)
    return model


def draw(model: Any, seed: int, name: str = "default") -> None:
    generator = torch.Generator().manual_seed(seed)
    for key, parameter in sorted(model.named_parameters()):
        if "lora_" in key and f".{name}" in key:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2


def layers(model: Any) -> Any:
    return model.get_base_model().model.layers


def attention_inputs(model: Any, x: Tensor) -> list[Tensor]:
    """What q, k and v of the first layer make of x."""
    attention = layers(model)[0].self_attn
    return [attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)]


def gradients(model: Any, x: Tensor) -> dict[str, Tensor]:
    """Of x, and of the matrices of q, k and v, for weights that differ from output to output."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    outs = attention_inputs(model, x)
    generator = torch.Generator().manual_seed(3)
    sum((out.float() * torch.randn(out.shape, generator=generator)).sum() for out in outs).backward()
    found = {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}
    return {"x": x.grad.float()} | found


def inputs(dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(2, ROWS // 2, WIDTH, generator=torch.Generator().manual_seed(2)).to(dtype)


def relative(found: Tensor, right: Tensor) -> float:
    return float((found.float() - right.float()).norm() / right.float().norm())


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "as it is"])
def test_half_precision_is_as_near_to_fp32_as_it_can_be(folder: Path, autocast: bool) -> None:
    """Expected is peft in fp32, on the same weights in 4 bits."""
    model = policy(folder)
    x = inputs()
    for layer in base.linear4bit_layers(model):
        layer.compute_dtype = layer.weight.quant_state.dtype = torch.float32
    right, right_gradients = attention_inputs(model, x.float()), gradients(model, x.float())
    for layer in base.linear4bit_layers(model):
        layer.compute_dtype = layer.weight.quant_state.dtype = torch.bfloat16
    lora.install(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found, found_gradients = attention_inputs(model, x), gradients(model, x)
    assert {out.dtype for out in found} == {torch.bfloat16}
    assert all(relative(*pair) < 2 * BF16 for pair in zip(found, right, strict=True))
    assert found_gradients.keys() == right_gradients.keys() and len(right_gradients) == 7
    for name, gradient in found_gradients.items():
        assert relative(gradient, right_gradients[name]) < 3 * BF16, name


def test_kept_for_the_backward_is_the_input_once(folder: Path) -> None:
    model = policy(folder)
    own = {p.data_ptr() for p in model.parameters()}

    def kept() -> int:
        found: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.data_ptr() not in own:
                found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        x = inputs().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outs = attention_inputs(model, x)
        del outs
        return sum(found.values())

    by_peft = kept()
    lora.install(model)
    narrow, matrices = ROWS * 3 * 5, 3 * 5 * WIDTH + 5 * (WIDTH + 2 * WIDTH // 2)
    assert kept() == 2 * (ROWS * WIDTH + narrow + matrices)  # bytes in bf16; three layers of rank 5
    assert by_peft > 2 * 3 * (ROWS * WIDTH + narrow)


def test_the_adapter_in_use_is_the_one_that_computes(folder: Path) -> None:
    """Policy, a frozen reference and the bare base: switched after the layers were taken over, as DPO and PPO do."""
    model, x = policy(folder), inputs()
    model.add_adapter("ref", model.peft_config["default"])
    draw(model, seed=5, name="ref")
    adapters.trainable_to_fp32(model)

    def of_each() -> list[list[Tensor]]:
        found = []
        for name in ("default", "ref", None):
            with torch.no_grad(), adapters.using(model, name):
                found.append(attention_inputs(model, x))
        return found

    right = of_each()
    lora.install(model)
    found = of_each()
    for ours, theirs in zip(found, right, strict=True):
        assert all(relative(*pair) < 3 * BF16 for pair in zip(ours, theirs, strict=True))
    assert all(torch.equal(*pair) for pair in zip(found[2], right[2], strict=True))
    assert relative(found[0][0], found[1][0]) > 0.1 and relative(found[0][0], found[2][0]) > 0.1


@pytest.mark.parametrize(
    ("config", "reason"), [({"lora_dropout": 0.5}, "dropout"), ({"kind": "dora"}, "Dora")], ids=["dropout", "DoRA"]
)
def test_what_is_no_plain_lora_is_left_to_peft(folder: Path, config: dict[str, Any], reason: str) -> None:
    model, x = policy(folder, **config), inputs()
    torch.manual_seed(0)
    right = gradients(model, x)
    assert lora.install(model) == (0, 14, reason)
    torch.manual_seed(0)
    found = gradients(model, x)
    assert all(torch.equal(found[name], right[name]) for name in right)


def test_dropout_that_is_turned_on_later_is_left_to_peft(folder: Path) -> None:
    model, x = policy(folder), inputs()
    lora.install(model)
    for module in model.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout["default"] = torch.nn.Dropout(0.5)
    torch.manual_seed(0)
    dropped = attention_inputs(model, x)[0]
    whole = attention_inputs(model.eval(), x)[0]
    assert relative(dropped, whole) > 0.1


def test_two_adapters_at_once_are_left_to_peft(folder: Path) -> None:
    model, x = policy(folder), inputs()
    model.add_adapter("other", model.peft_config["default"])
    draw(model, seed=6, name="other")
    adapters.trainable_to_fp32(model)
    model.base_model.set_adapter(["default", "other"])
    right = attention_inputs(model, x)
    lora.install(model)
    assert all(torch.equal(*pair) for pair in zip(attention_inputs(model, x), right, strict=True))


def test_siblings_that_read_another_input_compute_it(folder: Path) -> None:
    model = policy(folder)
    attention, x, other = layers(model)[0].self_attn, inputs(), inputs().flip(0)
    right = [attention.q_proj(x), attention.k_proj(other), attention.v_proj(x)]
    lora.install(model)
    found = [attention.q_proj(x), attention.k_proj(other), attention.v_proj(x)]
    assert all(relative(*pair) < 3 * BF16 for pair in zip(found, right, strict=True))
    attention.v_proj(other)
    for module in model.modules():
        if isinstance(getattr(module, "siblings", None), lora.Siblings):
            assert (module.siblings.x is None) == (not module.siblings.ready)


class Launches(TorchDispatchMode):
    """Operators that run, views and shapes left out: each is a launch or more on a GPU."""

    VIEWS = (
        "view",
        "t.",
        "transpose",
        "expand",
        "slice",
        "split",
        "detach",
        "alias",
        "unsqueeze",
        "select",
        "as_strided",
    )

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.")
        if not name.startswith((*self.VIEWS, "_unsafe_view", "permute", "empty", "new_empty")):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def launches(model: Any) -> int:
    """Of a step, forward and backward, a decoder layer: the difference between a model of two layers and of one."""
    ids = torch.arange(24).view(2, 12) + 5
    counts = []
    every = layers(model)
    for number in (2, 1):
        model.get_base_model().model.layers = every[:number]
        model.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16), Launches() as seen:
            model.get_base_model().model(input_ids=ids, use_cache=False).last_hidden_state.float().sum().backward()
        counts.append(seen.counts)
    model.get_base_model().model.layers = every
    return (counts[0] - counts[1]).total()


def test_fewer_launches_a_layer_and_step(folder: Path) -> None:
    model = policy(folder)
    by_peft = launches(model)
    lora.install(model)
    assert launches(model) <= by_peft - 60  # 187 of 248, of which about 85 are no part of the linear layers


def test_compiled_regions_change_nothing(folder: Path) -> None:
    """By the backend that traces and differentiates, but generates no code."""
    model, ids = policy(folder), torch.arange(24).view(2, 12) + 5

    def step() -> list[Tensor]:
        model.zero_grad()
        hidden = model.get_base_model().model(input_ids=ids, use_cache=False).last_hidden_state
        hidden.float().square().mean().backward()
        return [hidden.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]

    lora.install(model)
    right = step()
    assert compiled.install(model, backend="aot_eager") == 2 * 3  # two norms and an MLP a layer
    found = step()
    assert len(found) == len(right) == 1 + 2 * 14
    assert all(relative(*pair) < 3 * BF16 for pair in zip(found, right, strict=True))
