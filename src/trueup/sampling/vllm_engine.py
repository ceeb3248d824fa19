"""Completions by vLLM: the base stays loaded in its process, and the adapter is loaded into it anew each time."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from trueup.chat.ending import end_ids
from trueup.errors import ModelError, ServerError, StageError
from trueup.run import environments
from trueup.sampling import vllm_server
from trueup.sampling.types import Generated, Sampling

MAX_TOKENS = 4096  # prompt and completion, where the base allows as many
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as max_lora_rank

_numbers = itertools.count(1)  # never twice: vLLM keeps what it cached of prompts by the adapter's name


class VllmRun:
    """Completes prompts (token ids) under a seed, with the active adapter of `model` as it is when it is called.

    Log-probabilities are those of the distribution that is drawn from: under the temperature, and under top-p where
    that is below 1. Raises ModelError without vLLM, without a GPU, or for an adapter that vLLM cannot load; StageError
    when vLLM's log-probabilities and the trainer's are too far apart.
    """

    def __init__(
        self, model: Any, tokenizer: Any, sampling: Sampling, progress: Callable[[int], None] = lambda done: None
    ) -> None:
        refuse_unfit(model)
        self.model, self.tokenizer, self.sampling, self.progress = model, tokenizer, sampling, progress
        self.ran = f"vLLM {vllm_server.VERSION}, the base in 16 bits, LoRA"

    def __call__(self, prompts: list[list[int]], seed: int) -> list[Generated]:
        """A completion of each prompt, in the order given."""
        from trueup.progress import spinner

        causal = self.model.get_base_model()
        most = min(MAX_TOKENS, causal.config.get_text_config().max_position_embeddings)
        longest = max(map(len, prompts)) + self.sampling.max_new_tokens
        if longest > most:
            raise StageError(
                "engine: vllm",
                found=f"a prompt and an answer of {longest} tokens together",
                expected=f"at most {most}",
                next_step="lower max_new_tokens, or set engine: auto",
            )
        ranks = [max(config.r, *config.rank_pattern.values(), 1) for config in self.model.peft_config.values()]
        with spinner("starting vLLM") as say:
            server = vllm_server.of(
                self.model,
                self.tokenizer,
                rank=next(enough for enough in RANKS if enough >= max(ranks)),
                max_tokens=most,
                rows=self.sampling.batch_size,
                say=say,
            )
        with tempfile.TemporaryDirectory(prefix="trueup-policy-") as folder:
            name = self._load(server, Path(folder))
            done = self._complete(server, name, prompts, seed)
            if name != vllm_server.BASE:
                server.post("/v1/unload_lora_adapter", {"lora_name": name})
        self._prove(prompts, done)
        return done

    def _load(self, server: vllm_server.Server, folder: Path) -> str:
        """Load the active adapter as it is now; returns the name that requests call it by."""
        if _adapter_is_off(self.model):
            return vllm_server.BASE
        active = self.model.active_adapter
        self.model.save_pretrained(str(folder), selected_adapters=[active], safe_serialization=True)
        path = folder if active == "default" else folder / active
        name = f"policy-{next(_numbers)}"
        server.post("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)})
        return name

    def _complete(self, server: vllm_server.Server, name: str, prompts: list[list[int]], seed: int) -> list[Generated]:
        """One request for each prompt, so that each has a seed of its own; vLLM puts them into batches."""
        ends = list(end_ids(self.tokenizer, self.model))

        def one(number: int) -> Generated:
            answer = server.post(
                "/v1/completions",
                {
                    "model": name,
                    "prompt": prompts[number],
                    "max_tokens": self.sampling.max_new_tokens,
                    "temperature": self.sampling.temperature,
                    "top_p": self.sampling.top_p,
                    "seed": (seed * 100_003 + number) % 2**63,
                    "stop_token_ids": ends,
                    "logprobs": 0,  # of the token drawn alone
                    "return_token_ids": True,
                    "add_special_tokens": False,
                },
            )
            self.progress(1)
            return read(answer, ends)

        with ThreadPoolExecutor(self.sampling.batch_size) as pool:
            return list(pool.map(one, range(len(prompts))))

    def _prove(self, prompts: list[list[int]], done: list[Generated]) -> None:
        from trueup.sampling import agreement

        apart = agreement.apart(self.model, self.tokenizer, prompts, done, self.sampling)
        if fault := agreement.fault(apart, self.sampling, after_top_p=True):
            raise StageError(
                "engine: vllm",
                found=fault,
                expected="the same policy, within rounding",
                next_step="set engine: auto, or raise max_engine_mismatch where the section has it",
            )


def read(answer: Any, ends: list[int]) -> Generated:
    """The completion in vLLM's answer. Raises ServerError when it is not what version `VERSION` documents."""
    try:
        (choice,) = answer["choices"]
        ids, logps = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        whole = bool(ids) and len(ids) == len(logps) and all(isinstance(logp, float | int) for logp in logps)
        cut_early = choice["finish_reason"] == "stop" and ids[-1] not in ends
    except (KeyError, TypeError, ValueError):
        whole = cut_early = False
    if not whole or cut_early:
        raise ServerError(
            "vLLM, /v1/completions",
            found=f"an answer that is not understood: {str(answer)[:300]}",
            expected="token_ids, with the end token last, and the log-probability of each",
            next_step="set engine: auto",
        )
    return Generated([int(token) for token in ids], [float(logp) for logp in logps])


def refuse_unfit(model: Any) -> None:
    """Raise ModelError where vLLM cannot run `model`, saying why."""
    import torch

    faults = [] if environments.is_made(vllm_server.NAME) else [f"vLLM {vllm_server.VERSION} is not installed"]
    if not torch.cuda.is_available():
        faults.append("there is no GPU")
    layer = next((module for module in model.modules() if hasattr(module, "lora_A")), None)
    if layer is None or layer.use_dora.get(model.active_adapter):
        faults.append("the adapter is not plain LoRA")
    elif max(layer.r.values()) > RANKS[-1]:
        faults.append(f"the adapter's rank is {max(layer.r.values())}")
    if faults:
        raise ModelError(
            "engine: vllm",
            found="; ".join(faults),
            expected=f"vLLM, a GPU, and a LoRA or QLoRA adapter of rank {RANKS[-1]} at most",
            next_step=f"{vllm_server.INSTALL}, on a machine with a GPU; or set engine: auto",
        )


def _adapter_is_off(model: Any) -> bool:
    layer = next(module for module in model.modules() if hasattr(module, "lora_A"))
    return bool(layer.disable_adapters)
