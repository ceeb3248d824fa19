"""Rollouts by vLLM on a GPU: a 4-bit base of its own stays loaded, and the policy's adapter is hot-loaded each time.

vLLM is no dependency: it needs another OpenCV than Label Studio's SDK, so that pip cannot resolve both at once.
Installed afterwards, on the machine with the GPU, 0.30 keeps torch and transformers; later versions replace them.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from trueup.chat.ending import end_ids
from trueup.errors import ModelError
from trueup.sampling.types import Generated, Run, Sampling

GPU_SHARE = 0.4  # of the GPU's memory, for vLLM's weights and KV cache; the rest trains
MAX_TOKENS = 4096  # prompt + completion
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank

_ids = itertools.count(1)  # never twice: vLLM finds adapters, and the prefixes it cached for them, by id and name


def engine(model: Any, tokenizer: Any, sampling: Sampling, progress: Callable[[int], None] = lambda done: None) -> Run:
    """What completes prompts (token ids) under a seed, with the active adapter of `model` as it is now.

    Log-probabilities are those sampled from: under the temperature, and under top-p where that is below 1. Raises
    ModelError without vLLM, without a GPU, or for an adapter that vLLM cannot load.
    """
    refuse_unfit(model)
    from vllm import SamplingParams
    from vllm.lora.request import LoRARequest

    causal, rank = model.get_base_model(), model.peft_config[model.active_adapter].r
    longest = min(MAX_TOKENS, causal.config.get_text_config().max_position_embeddings)
    llm = _load(causal.name_or_path, next(enough for enough in RANKS if enough >= rank), longest)

    def run(prompts: list[list[int]], seed: int) -> list[Generated]:
        options = {"temperature": sampling.temperature, "top_p": sampling.top_p, "max_tokens": sampling.max_new_tokens}
        ends = list(end_ids(tokenizer, model))
        params = [  # logprobs=0: of the token drawn alone
            SamplingParams(**options, stop_token_ids=ends, logprobs=0, seed=seed * 100_003 + i)
            for i in range(len(prompts))
        ]
        number = next(_ids)
        with tempfile.TemporaryDirectory(prefix="trueup-policy-") as folder:
            model.save_pretrained(folder, selected_adapters=[model.active_adapter], safe_serialization=True)
            path = folder if model.active_adapter == "default" else f"{folder}/{model.active_adapter}"
            outputs = llm.generate(
                [{"prompt_token_ids": prompt} for prompt in prompts],
                params,
                lora_request=LoRARequest(f"policy-{number}", number, path),
                use_tqdm=False,
            )
        progress(len(prompts))
        return [_generated(output.outputs[0]) for output in outputs]

    return run


def refuse_unfit(model: Any) -> None:
    """Raise ModelError where vLLM cannot run `model`, saying why."""
    import torch

    faults = [] if find_spec("vllm") else ["vllm is not installed"]
    if not torch.cuda.is_available():
        faults.append("there is no GPU")
    layer = next((module for module in model.modules() if hasattr(module, "lora_A")), None)
    if layer is None or layer.disable_adapters or any(layer.use_dora.values()):
        faults.append("no plain LoRA adapter is active")
    elif max(layer.r.values()) > RANKS[-1]:
        faults.append(f"the adapter's rank is {max(layer.r.values())}")
    if faults:
        raise ModelError(
            "engine: vllm",
            found="; ".join(faults),
            expected=f"vllm, a GPU, and a LoRA or QLoRA adapter of rank {RANKS[-1]} at most",
            next_step="pip install 'vllm==0.30.*' on a machine with a GPU, or set engine: auto",
        )


@functools.cache
def _load(base: str, max_lora_rank: int, max_tokens: int) -> Any:
    """vLLM on the base quantized as ours is, NF4; once a process."""
    from vllm import LLM

    return LLM(
        model=base,
        quantization="bitsandbytes",
        enable_lora=True,
        max_lora_rank=max_lora_rank,
        max_loras=1,
        logprobs_mode="processed_logprobs",
        gpu_memory_utilization=GPU_SHARE,
        max_model_len=max_tokens,
        generation_config="vllm",  # nothing of the base's own: no repetition penalty that training does not know
    )


def _generated(completion: Any) -> Generated:
    ids = list(completion.token_ids)
    return Generated(ids, [step[token].logprob for token, step in zip(ids, completion.logprobs, strict=True)])
