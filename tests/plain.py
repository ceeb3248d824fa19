"""What tests compare a stage with: transformers and peft alone, in fp32, on the weights that NF4 rounds the base to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
)

Messages = list[dict[str, str]]


def tokenizer(base: str) -> Any:
    return AutoTokenizer.from_pretrained(base)


def model(base: str, adapter: Path) -> Any:
    """The NF4 base, dequantized and taken to fp32, with the adapter saved in `adapter`, trainable."""
    policy = PeftModel.from_pretrained(_dequantized(AutoModelForCausalLM, base), str(adapter), is_trainable=True)
    return policy.float().train(False)


def classifier(base: str, shaped_like: Path) -> Any:
    """A classifier of one output on that base, its adapter of the shape of the one saved in `shaped_like`."""
    config = PeftConfig.from_pretrained(str(shaped_like))
    config.task_type, config.inference_mode = "SEQ_CLS", False
    bare = _dequantized(AutoModelForSequenceClassification, base, num_labels=1)
    return get_peft_model(bare, config).float().train(False)


def _dequantized(kind: Any, base: str, **more: Any) -> Any:
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["lm_head", "score"],
    )
    bare = kind.from_pretrained(base, dtype=torch.bfloat16, quantization_config=four_bit, **more)
    return bare.dequantize().float()


def encode(tok: Any, prompt: Messages, answer: str) -> tuple[list[int], list[int]]:
    """Ids of the prompt with its generation prompt, and of the answer with the end-of-turn token."""
    ids = tok.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
    return ids, [*tok(answer, add_special_tokens=False)["input_ids"], tok.eos_token_id]


def encode_templated(tok: Any, prompt: Messages, answer: str) -> tuple[list[int], list[int]]:
    """As TRL's trainers tokenize a row: the answer is all that the template adds to the prompt's ids."""
    before = tok.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
    whole = [*prompt, {"role": "assistant", "content": answer}]
    ids = tok.apply_chat_template(whole, tokenize=True, return_dict=False)
    assert ids[: len(before)] == before
    return before, ids[len(before) :]


def token_logps(policy: Any, prompt: Sequence[int], answer: Sequence[int], temperature: float = 1.0) -> Tensor:
    """log p of each token of one answer, (tokens,): one sequence at a time, so that no padding can matter."""
    ids = torch.tensor([[*prompt, *answer]])
    logits = policy(input_ids=ids).logits[0, len(prompt) - 1 : -1].float() / temperature
    return torch.log_softmax(logits, -1).gather(-1, ids[0, len(prompt) :, None])[:, 0]


def answer_logp(policy: Any, tok: Any, prompt: Messages, answer: str) -> Tensor:
    """The summed log-probability of an answer, tokenized as TRL does."""
    return token_logps(policy, *encode_templated(tok, prompt, answer)).sum()


def answer_kl(policy: Any, reference: Any, tok: Any, prompt: Messages, after: list[int]) -> Tensor:
    """KL(policy || reference) at each token of an answer as it was sampled, exact, from all logits, (tokens,)."""
    before, _ = encode(tok, prompt, "")
    ids = torch.tensor([[*before, *after]])
    with torch.no_grad():
        one, other = (
            torch.log_softmax(m(input_ids=ids).logits[0, len(before) - 1 : -1].double(), -1)
            for m in (policy, reference)
        )
    return (one.exp() * (one - other)).sum(-1)


def greedy(policy: Any, tok: Any, prompt: Messages, max_new_tokens: int) -> str:
    """The greedy answer, a token at a time, without a cache."""
    ids = tok.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=False)
    answer: list[int] = []
    with torch.no_grad():
        while len(answer) < max_new_tokens and (not answer or answer[-1] != tok.eos_token_id):
            logits = policy(input_ids=torch.tensor([[*ids, *answer]])).logits[0, -1]
            answer.append(int(logits.argmax()))
    text: str = tok.decode(answer, skip_special_tokens=True)
    return text.strip()


def score(classifier: Any, tok: Any, conversation: Messages) -> Tensor:
    """The score head's output at the last token of one conversation, ()."""
    return score_ids(classifier, tok.apply_chat_template(conversation, tokenize=True, return_dict=False))


def score_sampled(classifier: Any, tok: Any, prompt: Messages, answer: list[int]) -> Tensor:
    """The score of an answer as it was sampled: after its end token comes the template's line end, after a cut one
    nothing, ().
    """
    before, _ = encode(tok, prompt, "")
    line_end = tok("\n", add_special_tokens=False)["input_ids"] if answer[-1] == tok.eos_token_id else []
    return score_ids(classifier, [*before, *answer, *line_end])


def score_ids(classifier: Any, ids: list[int]) -> Tensor:
    hidden = classifier.get_base_model().model(input_ids=torch.tensor([ids])).last_hidden_state
    scored: Tensor = classifier.get_base_model().score(hidden[:, -1])
    return scored[0, 0]


def gradients(of: Any) -> dict[str, Tensor]:
    """The gradients of what is trained, by plain names."""
    return {plain_name(n): p.grad.clone() for n, p in of.named_parameters() if p.requires_grad and p.grad is not None}


def parameters(of: Any) -> dict[str, Tensor]:
    """What is trained, by plain names."""
    return {plain_name(n): p.detach().clone() for n, p in of.named_parameters() if p.requires_grad}


def put(into: Any, tensors: dict[str, Tensor]) -> None:
    """Set what is trained to `tensors` and drop its gradients."""
    with torch.no_grad():
        for name, parameter in into.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(tensors[plain_name(name)])
                parameter.grad = None


def plain_name(name: str) -> str:
    return name.replace(".modules_to_save", "").replace(".default", "").replace("base_model.model.", "")


def differ(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The relative distance ||found - expected|| / ||expected|| over all tensors together. All names must agree."""
    assert set(found) == set(expected), set(found) ^ set(expected)
    apart = sum(float((found[n] - expected[n]).square().sum()) for n in expected)
    return float((apart / sum(float(e.square().sum()) for e in expected.values())) ** 0.5)


def saved(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(folder / "adapter_model.safetensors")
    return tensors


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def check_logps(base: str, adapter: Path, rows: list[dict[str, Any]], temperature: float) -> None:
    """Hold completions.jsonl against plain forwards on the ids it keeps: text, finish and log-probability of each."""
    tok, policy = tokenizer(base), model(base, adapter)
    assert rows
    for row in rows:
        before, _ = encode(tok, row["messages"], "")
        ids = row["ids"]
        ended = ids[-1] == tok.eos_token_id
        assert len(ids) == row["num_tokens"] and tok.eos_token_id not in ids[:-1]
        written = ids[:-1] if ended else ids
        text = tok.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        assert row["completion"] == text  # with its own white space
        assert row["finish"] == ("eos" if ended else "length")
        with torch.no_grad():
            found = token_logps(policy, before, ids, temperature).sum().item()
        assert abs(found - row["logp"]) < 0.15, (found, row)
