"""Bugs of GGUF files and the Modelfile."""

from __future__ import annotations

from .bug import Bug

# (bug, module of trueup.export, old, new, test file of tests/gguf)
GGUF = (
    (
        "the heads' numbers left in transformers' order",
        "gguf_models",
        "if known.interleaved and",
        "if False and known.interleaved and",
        "gguf_models",
    ),
    (
        "keys laid out by the number of queries",
        "gguf_models",
        'config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads',
        "config.num_attention_heads",
        "gguf_models",
    ),
    (
        "Gemma's norms without the 1",
        "gguf_models",
        "return rows.float() + known.norm_offset",
        "return rows",
        "gguf_models",
    ),
    (
        "Llama 3's rotation factors inverted",
        "gguf_models",
        "return unscaled / scaled",
        "return scaled / unscaled",
        "gguf_models",
    ),
    (
        "the base of the rotation left out",
        "gguf_models",
        'writer.add_rope_freq_base(rope["rope_theta"])',
        "pass",
        "gguf_models",
    ),
    (
        "YaRN's original context left out",
        "gguf_models",
        "writer.add_rope_scaling_orig_ctx_len(original)",
        "pass",
        "gguf_models",
    ),
    (
        "the factor of a linear rotation left out",
        "gguf_models",
        'writer.add_rope_scaling_factor(rope["factor"])',
        "pass",
        "gguf_models",
    ),
    (
        "the context longer than the sliding window",
        "gguf_models",
        "min(config.max_position_embeddings, window) if window else",
        "config.max_position_embeddings if window else",
        "gguf_models",
    ),
    (
        "the whole head rotated where a part should be",
        "gguf_models",
        'int(head_dim(config) * rope.get("partial_rotary_factor", 1.0))',
        "head_dim(config)",
        "gguf_models",
    ),
    (
        "the output layer in 4 bits",
        "gguf",
        'if kind.startswith("q") and title == output',
        "if False and title == output",
        "gguf_models",
    ),
    ("weights beyond f16 written as infinite", "gguf", "if not finite:", "if False:", "gguf_models"),
    ("SmolLM's digits not split", "gguf_vocab", '("smollm", [{', '("gpt-2", [{', "gguf_vocabulary"),
    ("Qwen2's numbers in threes", "gguf_vocab", '("qwen2", _by_regex', '("llama-bpe", _by_regex', "gguf_vocabulary"),
    (
        "ignore_merges not looked at",
        "gguf_vocab",
        "if bare == known and ignores == ignore_merges",
        "if bare == known",
        "gguf_vocabulary",
    ),
    (
        "no beginning token",
        "gguf",
        "writer.add_add_bos_token(vocabulary.add_bos)",
        "writer.add_add_bos_token(False)",
        "gguf_vocabulary",
    ),
    (
        "a space before every text",
        "gguf",
        "writer.add_add_space_prefix(bool(vocabulary.space_prefix))",
        "writer.add_add_space_prefix(True)",
        "gguf_vocabulary",
    ),
    (
        "all pieces score the same",
        "gguf_pieces",
        "scores[vocab[piece]] = -float(rank)",
        "scores[vocab[piece]] = -1000.0",
        "gguf_vocabulary",
    ),
    (
        "white space kept after Phi-3's special tokens",
        "gguf",
        'f"{name} (phi-3)" if vocabulary.strips_right else',
        "name if vocabulary.strips_right else",
        "gguf_vocabulary",
    ),
    (
        "only the first end token in the GGUF file",
        "gguf",
        "for end in dict.fromkeys([tokenizer.eos_token_id, *more])",
        "for end in [tokenizer.eos_token_id]",
        "gguf_vocabulary",
    ),
    (
        "added tokens merged like text",
        "gguf_vocab",
        "TokenType.USER_DEFINED if token_id in added else",
        "TokenType.NORMAL if token_id in added else",
        "gguf_vocabulary",
    ),
    (
        "no chat template in the GGUF file",
        "gguf",
        'writer.add_chat_template(template["default"]',
        'writer.add_chat_template("" if True else template["default"]',
        "gguf_vocabulary",
    ),
    (
        "the LoRA left in transformers' order",
        "gguf_lora",
        'names.laid_out(f"{module}.weight", up).contiguous()',
        "up.contiguous()",
        "gguf_lora",
    ),
    ("peft's own scales of modules ignored", "gguf_lora", "up = up * (", "up = up * 1.0  # (", "gguf_lora"),
    ("DoRA written as a LoRA", "gguf_lora", '"use_dora", ', "", "gguf_lora"),
    (
        "only the first end token among the stops",
        "ollama",
        "list(dict.fromkeys(end_ids))",
        "list(dict.fromkeys(end_ids))[:1]",
        "ollama",
    ),
    (
        "the template's own system message left out",
        "go_template",
        "{'{{ else }}' + head if head else ''}",
        "",
        "ollama",
    ),
    (
        "the beginning token twice in Ollama",
        "go_template",
        "bos = tokenizer.bos_token if adds_bos else None",
        "bos = None",
        "ollama",
    ),
    (
        "braces of a template taken for actions",
        "go_template",
        'return literal.replace("{{", \'{{ "{{" }}\')',
        "return literal",
        "ollama",
    ),
    (
        "a system message that ends its value early",
        "ollama",
        "if any(line.rstrip().endswith",
        "if False and any(line.rstrip().endswith",
        "ollama",
    ),
    (
        "a path of this machine in the Modelfile",
        "ollama",
        "Path(os.path.relpath(gguf, out)).as_posix()",
        "gguf.as_posix()",
        "ollama",
    ),
)

BUGS = [
    *(
        Bug(name, "gguf", f"src/trueup/export/{file}.py", old, new, (f"tests/gguf/test_{tests}.py",))
        for name, file, old, new, tests in GGUF
    ),
]
