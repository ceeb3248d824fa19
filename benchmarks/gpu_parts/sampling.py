"""Tokens a second of each engine at batch 1 and 32, and of transformers' own `generate` as its documentation has it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu_parts.workbench import Workbench, forget_peak, now, peak

ENGINES = ("auto", "merged", "generate", "vllm")
BATCHES = (1, 32)


def measure(bench: Workbench, kept: Path, engines: tuple[str, ...] = ENGINES) -> dict[str, Any]:
    """{"auto": {"tokens_per_s_1": ..., "tokens_per_s_32": ..., "peak_tensors_gb": ...}, ..., "plain": ...}.

    An engine that fails is told by its error, and ends none of the others.
    """
    from trueup.models import adapters, base

    policy = bench.begun(kept).path("sft")
    tokenizer = base.load_tokenizer(str(bench.base))
    model = adapters.load_adapter(base.load_base(str(bench.base), four_bit=True), policy, trainable=False).eval()
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row["prompt"]}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for row in bench.texts.prompts
    ]
    found: dict[str, Any] = {}
    for name in ("plain", *engines):
        if name == "vllm" and not find_spec("vllm"):
            continue
        forget_peak()
        try:
            rates = {f"tokens_per_s_{n}": round(_rate(name, model, tokenizer, prompts[:n], bench), 1) for n in BATCHES}
            found[name] = rates | peak()
        except Exception as error:  # whatever an engine raises on this card is its result
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    return found


def _rate(name: str, model: Any, tokenizer: Any, prompts: list[list[int]], bench: Workbench) -> float:
    """Tokens a second of the second of two runs: the first compiles, captures and warms up."""
    from trueup.sampling.sample import engine
    from trueup.sampling.types import Sampling

    new = bench.size.new
    if name == "plain":
        sample = lambda seed: _plain(model, tokenizer, prompts, new, seed)  # noqa: E731
    else:
        asked = {"max_new_tokens": new, "batch_size": len(prompts), "temperature": 1.0, "top_p": 1.0, "seed": 0}
        run = engine(model, tokenizer, Sampling(**asked, engine=name))
        sample = lambda seed: sum(len(done.ids) for done in run(prompts, seed))  # noqa: E731
    sample(1)
    began = now()
    count = sample(2)
    return count / (now() - began)


def _plain(model: Any, tokenizer: Any, prompts: list[list[int]], new: int, seed: int) -> int:
    """Sample by transformers' `generate`; how many tokens."""
    import torch

    tokenizer.padding_side = "left"
    inputs = tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(model.device)
    torch.manual_seed(seed)
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=new, min_new_tokens=new, do_sample=True, top_k=0)
    return int(out[:, inputs["input_ids"].shape[1] :].numel())
