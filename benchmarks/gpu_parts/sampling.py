"""Tokens a second of each engine at batch 1 and 32, and of transformers' own `generate` as its documentation has it."""

from __future__ import annotations

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
    from trueup.run import environments
    from trueup.sampling import vllm_server

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
        if name == "vllm" and not environments.is_made(vllm_server.NAME):
            found[name] = {"skipped": "trueup vllm install was not run"}
            continue
        forget_peak()
        try:
            found[name] = {}
            for count in BATCHES:
                found[name] |= _rate(name, model, tokenizer, prompts[:count], bench)
            found[name] |= peak()
        except Exception as error:  # whatever an engine raises on this card is its result
            found[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    return found


def _rate(name: str, model: Any, tokenizer: Any, prompts: list[list[int]], bench: Workbench) -> dict[str, Any]:
    """Tokens a second of the second of two runs, and what ran. The first compiles and captures, where that is done."""
    from trueup.sampling.engines import engine
    from trueup.sampling.types import Sampling

    new, run = bench.size.new, None
    if name != "plain":
        asked = {"max_new_tokens": new, "batch_size": len(prompts), "temperature": 1.0, "top_p": 1.0, "seed": 0}
        run = engine(model, tokenizer, Sampling(**asked, engine=name))

    def sample() -> int:
        if run is None:
            return _plain(model, tokenizer, prompts, new)
        return sum(len(done.ids) for done in run(prompts, 0))

    sample()
    began = now()
    count = sample()
    found: dict[str, Any] = {f"tokens_per_s_{len(prompts)}": round(count / (now() - began), 1)}
    return found | ({"ran": run.ran} if run is not None else {})


def _plain(model: Any, tokenizer: Any, prompts: list[list[int]], new: int) -> int:
    """Sample by transformers' `generate`; how many tokens."""
    import torch

    tokenizer.padding_side = "left"
    inputs = tokenizer.pad({"input_ids": prompts}, return_tensors="pt").to(model.device)
    torch.manual_seed(0)
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=new, min_new_tokens=new, do_sample=True, top_k=0)
    return int(out[:, inputs["input_ids"].shape[1] :].numel())
