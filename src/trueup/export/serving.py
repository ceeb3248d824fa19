"""Can an adapter be served as an adapter, on a base that others share? By the rules of those who serve them."""

from __future__ import annotations

from typing import Any

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what --max-lora-rank takes
VLLM_RANK = 16  # its default
# ways to begin an adapter that change the base as well
CHANGES_BASE = ("pissa", "olora", "corda", "loftq")


def refusals(config: dict[str, Any]) -> list[str]:
    """Why vLLM cannot serve the adapter that a LoRA configuration describes; empty when it can.

    Rank patterns are known to vLLM from 0.30 on, and before that ignored without a word; llama.cpp's format has none.
    """
    found = []
    if config.get("use_dora"):
        found.append("it is a DoRA adapter")
    if (bias := config.get("bias", "none")) != "none" or config.get("lora_bias"):
        found.append(f"it trains biases (bias {bias})")
    if modules := config.get("modules_to_save"):
        found.append(f"it holds whole modules ({', '.join(modules)})")
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        found.append("its ranks differ from map to map")
    if str(config.get("init_lora_weights", "")).lower().startswith(CHANGES_BASE):
        found.append(f"it began as {config['init_lora_weights']}, which changes the base")
    found += [
        f"it uses {key}"
        for key in ("alora_invocation_tokens", "layer_replication", "use_bdlora", "use_qalora")
        if config.get(key)
    ]
    if (rank := int(config.get("r", 0))) > VLLM_RANKS[-1]:
        found.append(f"its rank is {rank}, above {VLLM_RANKS[-1]}")
    return found


def max_rank(config: dict[str, Any]) -> int | None:
    """What --max-lora-rank must be for this adapter; None where vLLM's default is enough."""
    rank = int(config.get("r", 0))
    return None if rank <= VLLM_RANK else next((one for one in VLLM_RANKS if one >= rank), None)
