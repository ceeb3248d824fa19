"""SFT on the emulated device with a model that leaves the range of fp16 at one word, "sorry".

Takes `folder`. Reports of each case the message that stopped the stage, or the metrics of the stage that was built.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import emulated
import pretend
import torch

WIDE = 60.0  # gate = up = WIDE x 8 at the word: their product, 230,400, is beyond 65,504
CASES = {  # where the word is, the dtype of the run file, passes over the demonstrations
    "everywhere": ("all", "auto", 1),
    "in what is held out": ("held_out", "auto", 1),
    "in fp32": ("all", "float32", 1),
    "in a gradient": ("none", "auto", 2),  # made to overflow at every step
}


def make_model(folder: Path) -> None:
    """The tiny Llama, whose first layer multiplies two large numbers at the word."""
    import tiny
    from transformers import AutoTokenizer, LlamaForCausalLM

    tiny.make_model(folder)
    model = LlamaForCausalLM.from_pretrained(folder)
    embedding, layer = model.get_input_embeddings().weight.data, model.model.layers[0].mlp
    direction = torch.zeros(embedding.shape[1], dtype=embedding.dtype)
    direction[0] = 1.0
    embedding[:, 0] = 0.0
    embedding[AutoTokenizer.from_pretrained(folder)(" sorry")["input_ids"][-1]] = 4 * direction
    for projection in (layer.gate_proj, layer.up_proj):
        projection.weight.data[0] = WIDE * direction
    model.save_pretrained(folder)


def make_run(folder: Path, base: Path, where: str, dtype: str, epochs: int) -> None:
    """Demonstrations whose answers have the word: all of them, those held out, or none."""
    from tiny import WORDS

    from trueup.data import identify
    from trueup.feedback.preferences import split_prompts
    from trueup.run.artifacts import write_jsonl

    folder.mkdir()
    asked = [f"{a} {b}" for a in WORDS for b in WORDS if "sorry" not in (a, b)]
    names = {text: identify([{"role": "user", "content": text}]) for text in asked}
    splits = split_prompts(list(names.values()), 0.1, 0)
    with_word = {text for text in asked if where in ("all", splits[names[text]])}
    rows = [{"prompt": text, "response": "glad sorry" if text in with_word else "glad"} for text in asked]
    write_jsonl(folder / "d.jsonl", rows)
    write_jsonl(folder / "p.jsonl", [{"prompt": "red"}])
    (folder / "run.yaml").write_text(
        f"name: f\nmodel: {{base: {base}, dtype: {dtype}}}\nadapter: {{r: 4}}\n"
        "data: {demonstrations: d.jsonl, prompts: p.jsonl, held_out: p.jsonl}\n"
        f"sft: {{num_train_epochs: {epochs}, learning_rate: 0.00001}}\n"
    )


def main() -> None:
    folder = Path(emulated.given()["folder"])
    pretend.install((7, 5))
    import chain
    import transformers.trainer
    from tiny import open_run

    from trueup.errors import StageError

    class Overflows(transformers.TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *unused: Any, model: Any = None, **kwargs: Any) -> None:
            trained = next(p for p in model.parameters() if p.requires_grad)
            trained.register_hook(lambda gradient: gradient + torch.inf)

    make_model(folder / "model")
    found: dict[str, Any] = {}
    for name, (where, dtype, epochs) in CASES.items():
        make_run(folder / name, folder / "model", where, dtype, epochs)
        if where == "none":
            transformers.trainer.DEFAULT_CALLBACKS.append(Overflows)
        pipeline = open_run(folder / name)
        try:
            pipeline.execute("sft")
        except StageError as error:
            found[name] = str(error)
        else:
            found[name] = chain.metrics(pipeline, "sft")
    emulated.report(found)


if __name__ == "__main__":
    main()
