"""Rollout tokens/s on the NF4 + LoRA policy: our engine and `merged` against `generate`. Last line: JSON.

SmolLM2-135M, LoRA r=16 on all linear layers, 32 prompts, 48 new tokens each and no end before (the end token is one
no answer holds), the same seed. The peer is transformers' `generate` as its documentation shows it, which notes no
log-probabilities; `engine_generate` is the rate of our `engine: generate`, which does. Building the engine, and
merging, are inside the timed region. Each run is a process; sides take turns, so that a machine's busy minutes fall on
all of them, and a side's rate is its median over the rounds.

    python benchmarks/rollout.py [--batch 32] [--rounds 5]
"""

import operator
import tempfile
import time
from pathlib import Path
from typing import Any

import common
from common import BASE

NEW_TOKENS = 48
TOPICS = ["tea", "rain", "maps", "wool", "salt", "boats", "clocks", "bread", "glass", "snow", "kites", "stone"]
ASKS = ("Tell me about {} in two sentences.", "Give me one good tip for {}.", "Why do people like {} so much?")


def one(name: str, batch: int) -> dict[str, Any]:
    import torch

    from trueup.models import adapters, base
    from trueup.run.run_file import AdapterConfig
    from trueup.sampling.sample import engine, engine_bytes
    from trueup.sampling.types import Sampling

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
    began = time.monotonic()
    if name == "plain":
        count = plain(model, tokenizer, prompts)
    else:
        length = {"max_new_tokens": NEW_TOKENS, "batch_size": batch}
        run = engine(model, tokenizer, Sampling(**length, temperature=1.0, top_p=1.0, seed=0, engine=name))
        count = sum(len(done.ids) for done in run(prompts, 0))
    seconds = time.monotonic() - began
    copied = engine_bytes(model, name)
    return {"rate": count / seconds, "weights_bytes": base.weights_bytes(model) + copied}


def plain(model: Any, tokenizer: Any, prompts: list[list[int]]) -> int:
    """Sample with transformers' `generate`; how many tokens."""
    import torch

    tokenizer.padding_side = "left"
    inputs = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    with torch.no_grad():
        out = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=True, top_k=0, eos_token_id=end)
    return int(out[:, inputs["input_ids"].shape[1] :].numel())


def main() -> None:
    sides = ("auto", "merged", "generate", "plain")
    parser = common.parser(__doc__, sides)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if asked.side:
        common.say(one(asked.side, asked.batch))
        return
    options = ["--batch", str(asked.batch)]
    rounds = [[common.run(__file__, side, options) for side in sides] for _ in range(asked.rounds)]
    by_side = (sorted(runs, key=operator.itemgetter("rate")) for runs in zip(*rounds, strict=True))
    auto, merged, noting, peer = (runs[asked.rounds // 2] for runs in by_side)
    more = {"merged": merged["rate"], "merged_ratio": merged["rate"] / peer["rate"]}
    more |= {"engine_generate": noting["rate"], "merged_weights_ratio": merged["weights_bytes"] / peer["weights_bytes"]}
    common.compare("rollout", "tokens/s", auto, peer, more)


if __name__ == "__main__":
    main()
