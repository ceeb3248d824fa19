"""What the contestants of an evaluation are called."""

NAMES = {
    "sft": "SFT (before)",
    "aligned": "aligned (after)",
    "round_before": "the round before",
    "base": "base, bare",
    "system_prompt": "base, system prompt",
    "few_shot": "base, few-shot",
}
