"""Tiny random models of every family, built here, with what a family's own options change."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 96
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 16}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}


@dataclass(frozen=True, eq=False)
class Case:
    """One row of the support matrix."""

    name: str
    model_type: str
    options: dict[str, Any] = field(default_factory=dict)
    refused: str = ""  # what the message says, where trueup does not take the family

    def config(self) -> Any:
        return AutoConfig.for_model(self.model_type, **(SHAPE | self.options))

    def build(self, folder: Path) -> Path:
        """Save a model whose logits are far from uniform, so that scales, caps and biases show."""
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(self.config())
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:  # norms and biases: away from their 0 and 1
                parameter.data += 0.2 * torch.randn_like(parameter)
            elif "embed" not in name:
                parameter.data = 0.6 * torch.randn_like(parameter) / parameter.shape[-1] ** 0.5
        output = model.get_output_embeddings().weight
        output.data = torch.randn_like(output) * 0.3
        model.to(torch.bfloat16).save_pretrained(folder)
        return folder


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per word: `w7` is 7."""
    words = {f"w{i}": i for i in range(3, VOCABULARY)} | {"<pad>": 0, "<s>": 1, "</s>": 2}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    made.chat_template = "{% for m in messages %}{{ m['content'] }} </s> {% endfor %}"
    return made


CASES = (
    Case("Llama", "llama"),
    Case("Llama, biases in attention and MLP", "llama", {"attention_bias": True, "mlp_bias": True}),
    Case("Llama 3, scaled rotation", "llama", {"rope_parameters": LLAMA_3}),
    Case("Llama, YaRN rotation", "llama", {"rope_parameters": YARN}),
    Case("Llama, dynamic rotation", "llama", {"rope_parameters": DYNAMIC}),
    Case("Llama, another activation", "llama", {"hidden_act": "gelu"}),
    Case("Llama, heads of another width", "llama", {"head_dim": 32}),
    Case("Qwen2", "qwen2"),
    Case(
        "Qwen2, sliding window in use",
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    ),
    Case("Qwen3", "qwen3", {"head_dim": 32}),
    Case("Mistral, sliding window shorter than the text", "mistral", {"sliding_window": 8, "head_dim": 16}),
    Case("Gemma", "gemma", {"head_dim": 16}),
    Case(
        "Gemma 2",
        "gemma2",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 8,
            "final_logit_softcapping": 5.0,
            "attn_logit_softcapping": 2.0,
        },
    ),
    Case("Gemma 3, text", "gemma3_text", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8}),
    Case("Phi 1 and 2", "phi", {"num_key_value_heads": 4}),
    Case("Phi 3", "phi3"),
    Case(
        "Granite",
        "granite",
        {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22, "attention_multiplier": 0.1},
    ),
    Case("SmolLM3", "smollm3", {"no_rope_layer_interval": 2}),
    Case("OLMo", "olmo"),
    Case("OLMo 2", "olmo2"),
    Case("Cohere", "cohere", {"logit_scale": 0.25}),
    Case("Cohere 2", "cohere2", {"logit_scale": 0.25, "sliding_window": 8, "head_dim": 16}),
    Case("StableLM", "stablelm"),
    Case("StarCoder2", "starcoder2", {"use_bias": True}),
    Case("OPT", "opt", {"ffn_dim": 128, "word_embed_proj_dim": 64, "dropout": 0.0}),
    Case("Nemotron", "nemotron", {"head_dim": 16}),
    Case("GPT-NeoX", "gpt_neox"),
    Case("Falcon", "falcon", refused="architecture falcon"),
    Case("GPT-2", "gpt2", refused="architecture gpt2"),
    Case("Mixtral", "mixtral", refused="architecture mixtral"),
    Case("GPT-OSS", "gpt_oss", refused="architecture gpt_oss"),
)
