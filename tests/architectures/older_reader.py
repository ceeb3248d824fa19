"""What an older environment reads of the folders it is given. It runs there, and imports nothing of trueup.

    python older_reader.py OUT FOLDER...

Writes JSON into OUT. Of each folder: logits of its model on IDS, or why there are none; token ids of a dialogue by its
tokenizer. A folder `adapter` is put on the base in `base` beside it.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
import transformers

IDS = torch.arange(40).view(2, 20) * 7 % 90 + 3
DIALOGUE = [{"role": "user", "content": "w7 w8"}, {"role": "assistant", "content": "w9"}]


def model_of(folder: Path):  # type: ignore[no-untyped-def]  # of any version
    options = {"torch_dtype": torch.float32, "attn_implementation": "eager"}
    if folder.name != "adapter":
        return transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    from peft import PeftModel

    base = transformers.AutoModelForCausalLM.from_pretrained(folder.with_name("base"), **options)
    return PeftModel.from_pretrained(base, folder)


@torch.no_grad()
def read(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    try:
        found["logits"] = model_of(folder).eval()(input_ids=IDS).logits.float().tolist()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        text = tokenizer.apply_chat_template(DIALOGUE, tokenize=False)
        found["ids"] = tokenizer(text, add_special_tokens=False)["input_ids"]
        found["inputs"] = sorted(tokenizer(text))
    except Exception as error:
        found["why"] = f"{type(error).__name__}: {error}"[:300]
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    out, *folders = sys.argv[1:]
    Path(out).write_text(json.dumps({folder: read(Path(folder)) for folder in folders}))
