"""A tiny Llama with its tokenizer, and a run on it, built here: nothing is fetched."""

import shutil
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trueup.run.artifacts import write_jsonl
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = ["red", "green", "blue", "tent", "boot", "rope", "yes", "no", "glad", "sorry"]


def make_model(folder: Path, *, sharp: bool = False) -> None:
    """`sharp`: an output layer of its own, large enough for adapters alone to make a token certain."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        [" ".join(WORDS)],
        trainers.BpeTrainer(
            vocab_size=320,
            special_tokens=["<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|im_end|>", bos_token="<|im_start|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, tie_word_embeddings=not sharp, **shape, **ids
    )
    model = LlamaForCausalLM(config)
    if sharp:
        model.lm_head.weight.data *= 10
    model.to(torch.bfloat16).save_pretrained(folder)


def make_run(
    folder: Path, *, sharp: bool = False, num_prompts: int = 6, sft_epochs: int = 3, four_bit: bool = False
) -> Pipeline:
    """A run whose tiny policy, after SFT, says `glad` and repeats the prompt; sft is built.

    `four_bit`: the base is saved in 4 bits by bitsandbytes.
    """
    make_model(folder / "model", sharp=sharp)
    if four_bit:
        quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype="bfloat16")
        model = LlamaForCausalLM.from_pretrained(folder / "model", quantization_config=quantized)
        model.save_pretrained(folder / "model")
    questions = [f"{a} {b}" for a in WORDS for b in WORDS]
    write_jsonl(folder / "d.jsonl", [{"prompt": q, "response": f"glad {q}"} for q in questions[:40]])
    write_jsonl(folder / "p.jsonl", [{"prompt": q} for q in questions[40 : 40 + num_prompts]])
    (folder / "run.yaml").write_text(
        f"name: tiny\nmodel: {{base: {folder / 'model'}}}\n"
        "data: {demonstrations: d.jsonl, prompts: p.jsonl, held_out: p.jsonl}\n"
        f"sft: {{learning_rate: 0.01, num_train_epochs: {sft_epochs}}}\n"
        "sample: {num_completions: 2, max_new_tokens: 8}\nevaluate: {num_completions: 1, max_new_tokens: 8}\n"
    )
    made = open_run(folder)
    made.execute("sft")
    return made


def open_run(folder: Path, *overrides: str) -> Pipeline:
    """The run of `folder`, with `section.key=value` set as `--set` does."""
    run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES}, overrides)
    return Pipeline(run, STAGES, folder / "runs", overrides)


def copy_of(pipeline: Pipeline, folder: Path) -> Path:
    """A copy of a run's folder, to build further stages in without disturbing other tests; returns `folder`."""
    shutil.copytree(pipeline.folder.parent.parent, folder)
    return folder
