"""Rollout tokens/s on the NF4 + LoRA policy: our engine and `merged` against `generate`. Last line: JSON.

SmolLM2-135M, LoRA r=16 on all linear layers, 32 prompts, 48 new tokens each and no end before (the end token is one
no answer holds), the same seed. Building the engine, and merging, are inside the timed region; each side is a process.

    python benchmarks/rollout.py [--batch 32] [--repeats 3]
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import common
from common import BASE

NEW_TOKENS = 48
TOPICS = ["tea", "rain", "maps", "wool", "salt", "boats", "clocks", "bread", "glass", "snow", "kites", "stone"]
ASKS = ("Tell me about {} in two sentences.", "Give me one good tip for {}.", "Why do people like {} so much?")


def one(name: str, batch: int, repeats: int) -> dict[str, Any]:
    import torch

    from trueup.config import AdapterConfig
    from trueup.cpu import heap
    from trueup.models import adapters, base
    from trueup.rollout import decoder
    from trueup.rollout.generate import Sampling, engine

    heap.keep()  # of the process, so of both sides
    tokenizer = base.load_tokenizer(BASE)
    torch.manual_seed(0)
    made = adapters.new_adapter(base.load_base(BASE, four_bit=True), AdapterConfig())
    for parameter_name, parameter in made.named_parameters():
        if "lora_B" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.02)
    folder = Path(tempfile.mkdtemp())
    made.save_pretrained(folder)
    model = adapters.load_adapter(base.load_base(BASE, four_bit=True), folder, trainable=False).eval()
    texts = [ask.format(topic) for topic in TOPICS for ask in ASKS]
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": texts[i % len(texts)]}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        for i in range(batch)
    ]
    tokenizer.eos_token = "<reponame>"  # noqa: S105 - a token no answer holds: every row runs to the end
    sampling = Sampling(max_new_tokens=NEW_TOKENS, temperature=1.0, top_p=1.0, batch_size=batch, seed=0, engine=name)
    rates = []
    for repeat in range(repeats):
        began = time.monotonic()
        done = engine(model, tokenizer, sampling)(prompts, repeat)
        rates.append(sum(len(d.ids) for d in done) / (time.monotonic() - began))
    copied = decoder.merged_bytes(model) if name == "merged" else 0
    return {
        "rate": sorted(rates)[len(rates) // 2],
        "all": [round(rate, 1) for rate in rates],
        "weights_bytes": base.weights_bytes(model) + copied,
    }


def main() -> None:
    sides = ("auto", "merged", "generate")
    parser = common.parser(__doc__, sides)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    if asked.side:
        common.say(one(asked.side, asked.batch, asked.repeats))
        return
    options = ["--batch", str(asked.batch), "--repeats", str(asked.repeats)]
    auto, merged, peer = (common.run(__file__, side, options) for side in sides)
    more = {"merged": merged["rate"], "merged_ratio": merged["rate"] / peer["rate"]}
    more |= {"merged_weights_ratio": merged["weights_bytes"] / peer["weights_bytes"]}
    common.compare("rollout", "tokens/s", auto, peer, more)


if __name__ == "__main__":
    main()
