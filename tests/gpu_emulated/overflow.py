"""SFT on the emulated device with a model that leaves the range of fp16 at one word, "sorry".

Takes `folder`, `where` the word is ("everywhere", "held out" or "nowhere"), and `dtype`, the run file's. Where it is
nowhere, a gradient is made to overflow at every step. Reports the message that stopped the stage, or its metrics.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import emulated
import pretend

CAPABILITY = (7, 5)
WIDE = 60.0  # gate = up = WIDE x 8 at the word: their product, 230,400, is beyond 65,504


def main() -> None:
    given = emulated.given()
    folder = Path(given["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    pretend.install(CAPABILITY)
    import torch
    import transformers.trainer
    from tiny import WORDS, make_model, open_run
    from transformers import AutoTokenizer, LlamaForCausalLM

    from trueup.data import identify
    from trueup.errors import StageError
    from trueup.feedback.preferences import split_prompts
    from trueup.run.artifacts import write_jsonl

    class Overflows(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *unused: Any, model: Any = None, **kwargs: Any) -> None:
            trained = next(p for p in model.parameters() if p.requires_grad)
            trained.register_hook(lambda gradient: gradient + torch.inf)

    make_model(folder / "model")
    model = LlamaForCausalLM.from_pretrained(folder / "model")
    embedding, layer = model.get_input_embeddings().weight.data, model.model.layers[0].mlp
    direction = torch.zeros(embedding.shape[1], dtype=embedding.dtype)
    direction[0] = 1.0
    embedding[:, 0] = 0.0
    embedding[AutoTokenizer.from_pretrained(folder / "model")(" sorry")["input_ids"][-1]] = 4 * direction
    for projection in (layer.gate_proj, layer.up_proj):
        projection.weight.data[0] = WIDE * direction
    model.save_pretrained(folder / "model")

    asked = [[{"role": "user", "content": f"{a} {b}"}] for a in WORDS for b in WORDS if "sorry" not in (a, b)]
    splits = split_prompts([identify(prompt) for prompt in asked], 0.1, 0)
    rows = []
    for prompt in asked:
        has_word = {"everywhere": True, "nowhere": False, "held out": splits[identify(prompt)] == "held_out"}[
            given["where"]
        ]
        rows.append({"prompt": prompt[0]["content"], "response": "glad sorry" if has_word else "glad"})
    write_jsonl(folder / "d.jsonl", rows)
    write_jsonl(folder / "p.jsonl", [{"prompt": "red"}])
    (folder / "run.yaml").write_text(
        f"name: f\nmodel: {{base: {folder / 'model'}, dtype: {given['dtype']}}}\nadapter: {{r: 4}}\n"
        "data: {demonstrations: d.jsonl, prompts: p.jsonl, held_out: p.jsonl}\n"
        f"sft: {{num_train_epochs: {2 if given['where'] == 'nowhere' else 1}, learning_rate: 0.00001}}\n"
    )
    if given["where"] == "nowhere":
        transformers.trainer.DEFAULT_CALLBACKS.append(Overflows)
    pipeline = open_run(folder)
    try:
        pipeline.execute("sft")
    except StageError as error:
        emulated.report({"message": str(error)})
    else:
        emulated.report({"metrics": json.loads((pipeline.path("sft") / "record.json").read_text())["metrics"]})


if __name__ == "__main__":
    main()
