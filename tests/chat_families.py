"""Tiny models whose tokenizers and chat templates behave like those of well-known families, built here."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tiny import WORDS
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] }}<|im_end|>\n{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LLAMA_2 = MISTRAL.replace("{{ m['content'] }}{{ eos_token }}", "{{ m['content'] }} {{ eos_token }}")
ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# the last answer with its thought, or an empty one; of earlier answers the thought is dropped
QWEN_3 = (
    "{% for m in messages %}{% set c = m['content'] %}{% set r = '' %}"
    "{% if m['role'] == 'assistant' and '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1] %}{% set c = c.split('</think>')[-1].lstrip('\n') %}"
    "{% endif %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and loop.last %}<think>\n{{ r.strip('\n') }}\n</think>\n\n{% endif %}"
    "{{ c }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DROPS_THOUGHT = CHATML.replace(
    "{{ m['content'] }}",
    "{{ m['content'].split('</think>')[-1] | trim if m['role'] == 'assistant' else m['content'] }}",
)
CALLS = (
    "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m['role'] }}\n{{ m['content'] or '' }}"
    "{% for call in m['tool_calls'] or [] %}<tool_call>{{ call['function'] | tojson }}</tool_call>{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# as Llama 3's and Qwen's: line ends are tokens of their own, however many
LINES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


@dataclass(frozen=True)
class Family:
    """What a tokenizer is made of. `end` is the token that the template ends an answer with."""

    template: str
    end: str
    named: dict[str, str] = field(default_factory=dict)  # bos_token, eos_token, pad_token
    special: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()  # added, but not special
    pieces: str = "bytes"  # or how a SentencePiece-like tokenizer puts a space first: first, always
    takes_system: bool = True
    more_ends: tuple[str, ...] = ()  # in generation_config


IM = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
S = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
FAMILIES = {
    "chatml": Family(CHATML, "<|im_end|>", IM),
    "mistral": Family(MISTRAL, "</s>", S, pieces="always", takes_system=False),
    "mistral_newer": Family(MISTRAL, "</s>", S, special=("[INST]", "[/INST]"), pieces="first", takes_system=False),
    "llama_2": Family(LLAMA_2, "</s>", S, pieces="always", takes_system=False),
    "zephyr": Family(ZEPHYR, "</s>", S, pieces="always"),
    "zephyr_newer": Family(ZEPHYR, "</s>", S, special=("<|assistant|>", "<|user|>"), pieces="first"),
    "gemma": Family(
        GEMMA,
        "<end_of_turn>",
        {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
        special=("<start_of_turn>", "<end_of_turn>"),
        takes_system=False,
        more_ends=("<eos>", "<end_of_turn>"),
    ),
    "llama_3": Family(
        LLAMA_3,
        "<|eot_id|>",
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"},
        special=("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>"),
        more_ends=("<|end_of_text|>", "<|eot_id|>"),
    ),
    "qwen_3": Family(QWEN_3, "<|im_end|>", IM | {"pad_token": "<|endoftext|>"}, plain=("<think>", "</think>")),
}
TEXTS = [" ".join(WORDS), "user assistant system model think INST", "[INST] red [/INST] glad", "<|user|>\nred"]
TEXTS += ["red\n\nblue", "red\n\n\nblue"] * 9  # line ends in a row become one token, as in most vocabularies


def make_tokenizer(family: Family) -> Any:
    """A tokenizer of about 350 tokens."""
    special = [*dict.fromkeys([*family.named.values(), *family.special])]
    if family.pieces == "bytes":
        raw = Tokenizer(models.BPE())
        words = pre_tokenizers.Split(Regex(LINES), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        raw.pre_tokenizer = pre_tokenizers.Sequence([words, level])
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)  # no merge over a space
        raw.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        special += [f"<0x{byte:02X}>" for byte in range(256)]
        alphabet = []
    raw.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=len(special) + 340, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )
    if family.pieces == "always":  # as Llama 2's: a space before every text between special tokens
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        raw.pre_tokenizer = None  # type: ignore[assignment]
    elif family.pieces == "first":
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    if family.pieces != "bytes":  # byte tokens are part of the vocabulary, and not special
        raw = Tokenizer.from_str(_without_special_bytes(raw.to_str()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, **family.named)
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.special)})
    tokenizer.add_tokens(list(family.plain))
    tokenizer.chat_template = family.template
    return tokenizer


def _without_special_bytes(text: str) -> str:
    import json

    parts = json.loads(text)
    parts["added_tokens"] = [t for t in parts["added_tokens"] if not t["content"].startswith("<0x")]
    return json.dumps(parts)


def make(folder: Path, family: Family, **shape: Any) -> Path:
    """The tokenizer and a random Llama of one narrow layer, saved in `folder`."""
    tokenizer = make_tokenizer(family)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = tokenizer.convert_tokens_to_ids(list(family.more_ends)) or tokenizer.eos_token_id
    config = LlamaConfig(**({"vocab_size": len(tokenizer)} | sizes | shape))
    config.bos_token_id, config.eos_token_id, config.pad_token_id = tokenizer.bos_token_id, ids, tokenizer.pad_token_id
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=ids, pad_token_id=tokenizer.pad_token_id)
    model.to(torch.bfloat16).save_pretrained(folder)
    return folder
