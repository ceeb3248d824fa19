"""Bugs of completions."""

from __future__ import annotations

from .bug import Bug

SAMPLES = "tests/wiring/test_samples.py"

BUGS = [
    Bug(
        "no generation prompt when sampling",
        "sampling",
        "src/trueup/sampling/sample.py",
        "[chat.prompt(prompt) for prompt in prompts]",
        "[chat.tokens(chat.text(prompt)) for prompt in prompts]",
        (SAMPLES + "::test_log_probabilities_are_those_of_a_plain_forward",),
    ),
    Bug(
        "top-p ignored by our decoder",
        "sampling",
        "src/trueup/sampling/engines.py",
        '"top_p": sampling.top_p,',
        '"top_p": 1.0,',
        (SAMPLES + "::test_greedy_and_a_tiny_nucleus_give_what_plain_greedy_decoding_gives",),
    ),
    Bug(
        "top-p ignored by generate",
        "sampling",
        "src/trueup/sampling/generate.py",
        '"top_p": sampling.top_p, "top_k": 0',
        '"top_k": 0',
        (SAMPLES + "::test_greedy_and_a_tiny_nucleus_give_what_plain_greedy_decoding_gives",),
    ),
    Bug(
        "temperature ignored by our decoder",
        "sampling",
        "src/trueup/sampling/engines.py",
        '"temperature": sampling.temperature,',
        '"temperature": 1.0,',
        (SAMPLES + "::test_log_probabilities_are_those_of_a_plain_forward",),
    ),
    Bug(
        "log-probabilities at temperature 1 from generate",
        "sampling",
        "src/trueup/sampling/generate.py",
        "scores.float() / (sampling.temperature or 1.0)",
        "scores.float()",
        (SAMPLES + "::test_log_probabilities_are_those_of_a_plain_forward",),
    ),
    Bug(
        "the seed of sampling ignored",
        "sampling",
        "src/trueup/sampling/sample.py",
        "sampling.seed + 100_003 * number",
        "100_003 * number",
        (SAMPLES + "::test_a_seed_decides_what_is_drawn",),
    ),
    Bug(
        "cut answers called ended",
        "sampling",
        "src/trueup/sampling/sample.py",
        '"eos" if ended else "length"',
        '"eos"',
        (SAMPLES + "::test_finish_says_whether_the_answer_ended",),
    ),
]
