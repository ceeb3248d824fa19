"""adapter.targets: a name that no linear layer bears is refused, by name and before any weights are loaded."""

from pathlib import Path

import pytest
from tiny import make_model
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from trueup.errors import ModelError
from trueup.models import base, targets
from trueup.run.run_file import AdapterConfig, load
from trueup.run.stage import Context
from trueup.stages import STAGES
from trueup.training import common


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    make_model(made)
    return made


def context(folder: Path, out: Path, asked: str, *, only_preflight: bool) -> Context:
    (out / "run.yaml").write_text(f"name: x\nmodel: {{base: {folder}}}\nadapter: {{targets: {asked}}}\n")
    run = load(out / "run.yaml", {stage.name: stage.config for stage in STAGES})
    return Context(run=run, run_dir=out, out=out, only_preflight=only_preflight)


@pytest.mark.parametrize("only_preflight", [True, False])
@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ("[q_proj, v_projj, up]", "v_projj, up"),  # one is right: it alone would train
        ("[query_key_value]", "query_key_value"),
        ("[lm_head]", "lm_head"),
        ("[embed_tokens, q_proj]", "embed_tokens"),
    ],
)
def test_unknown_targets_are_named_before_weights_are_loaded(
    folder: Path, tmp_path: Path, asked: str, named: str, only_preflight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(base, "load_base", loaded)
    with pytest.raises(
        ModelError, match=rf"adapter.targets: no linear layer .*\(llama\) is named {named}\n"
    ) as refused:
        common.load_policy(context(folder, tmp_path, asked, only_preflight=only_preflight), None)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in refused.value.expected


def test_attention_is_that_of_the_family(folder: Path) -> None:
    asked = AdapterConfig(targets="attention")
    assert targets.of_base(base.skeleton(str(folder), four_bit=True), asked) == ["k_proj", "o_proj", "q_proj", "v_proj"]
    shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    neox = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=8, **shape))
    assert targets.of_base(neox, asked) == ["dense", "query_key_value"]


def test_a_name_with_its_parent_is_taken(folder: Path) -> None:
    skeleton = base.skeleton(str(folder), four_bit=True)
    named = targets.names(skeleton, AdapterConfig(targets=["self_attn.q_proj", "layers.1.mlp.up_proj"]))
    assert named == {"model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj", "model.layers.1.mlp.up_proj"}
