"""What the contestants of an evaluation are called."""

NAMES = {
    "sft": "SFT (before)",
    "aligned": "aligned (after)",
    "base": "base, bare",
    "system_prompt": "base, system prompt",
    "few_shot": "base, few-shot",
}
