"""Sample on the emulated device, in a process that `emulated.run` starts.

Takes `folder`, `capability` and `cases`: each the engine, the layers of a tiny Llama, and the bytes free on the GPU.
Reports of each case the completions, what ran, which prompts went through the model, the launches of the last step of
decoding, and its syncs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emulated
import pretend

PROMPTS = [[10, 11, 12, 13], [10, 11, 12, 13], [20, 21], [30, 31, 32], [30, 31, 32], [30, 31, 32]]
MAPS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def main() -> None:
    given = emulated.given()
    gpu = pretend.install(tuple(given["capability"]))
    emulated.report([case(gpu, Path(given["folder"]), *values) for values in given["cases"]])


def case(gpu: pretend.Device, folder: Path, name: Any, layers: int, room: int) -> dict[str, Any]:
    import torch

    from trueup.gpu import decoder
    from trueup.sampling.engines import engine
    from trueup.sampling.types import Sampling

    torch.cuda.mem_get_info = lambda device=None: (room, 16 * pretend.GIB)
    model, tokenizer = policy(folder, layers)
    last: Counter[str] = Counter()
    waits: Counter[tuple[str, str]] = Counter()
    prefills: list[tuple[int, ...]] = []

    def noted(usual: Callable[..., Any], *, is_step: Callable[..., bool]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            with gpu.measured() as counts:
                out = usual(*args, **options)
            if is_step(**options):
                last.clear()
                last.update(counts.launches)
                waits.update(counts.syncs)
            return out

        return step

    sampling = Sampling(max_new_tokens=8, temperature=0.0, top_p=1.0, batch_size=4, seed=0, engine=name)
    run = engine(model, tokenizer, sampling)
    causal = model.get_base_model()
    causal.forward = noted(
        causal.forward, is_step=lambda input_ids=None, **_: input_ids is not None and input_ids.shape[1] == 1
    )
    usual_prefill, usual_step = decoder.Decoder._prefill, decoder.Decoder._step
    try:
        decoder.Decoder._step = noted(usual_step, is_step=lambda: True)  # type: ignore[method-assign]
        decoder.Decoder._prefill = lambda self, prompts, cache: (  # type: ignore[method-assign]
            prefills.extend(prompts) or usual_prefill(self, prompts, cache)  # type: ignore[func-returns-value]
        )
        done = run([list(prompt) for prompt in PROMPTS], 0)
    finally:
        decoder.Decoder._step, decoder.Decoder._prefill = usual_step, usual_prefill  # type: ignore[method-assign]
    launches = {op: number for op, number in last.items() if op not in views()}
    return {
        "ids": [generated.ids for generated in done],
        "logps": [generated.logps for generated in done],
        "ran": run.ran,
        "prefills": prefills,
        "launches": sum(launches.values()),
        "by_operator": launches,
        "syncs": [[kind, line, number] for (kind, line), number in waits.items()],
    }


def policy(folder: Path, layers: int) -> Any:
    """A random 4-bit Llama of so many layers with an adapter that changes it, and its tokenizer."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tiny import make_model
    from transformers import AutoConfig, LlamaForCausalLM

    from trueup.models import base

    make_model(folder)
    config = AutoConfig.from_pretrained(folder)
    config.num_hidden_layers = layers
    torch.manual_seed(1)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    asked = LoraConfig(r=4, target_modules=MAPS, task_type="CAUSAL_LM")
    model = get_peft_model(base.load_base(str(folder), four_bit=True), asked)
    generator = torch.Generator().manual_seed(2)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            parameter.data = (torch.randn(parameter.shape, generator=generator) * 0.05).to("cuda")
    return model, base.load_tokenizer(str(folder))


def views() -> set[str]:
    """Operators that give another view of their input, and launch nothing."""
    import torch

    found = {"aten::_unsafe_view"}
    for name in dir(torch.ops.aten):
        packet = getattr(torch.ops.aten, name)
        overloads = [getattr(packet, o) for o in packet.overloads()] if hasattr(packet, "overloads") else []
        aliases = [returned.alias_info for o in overloads for returned in o._schema.returns]
        if any(alias is not None and not alias.is_write for alias in aliases):
            found.add(f"aten::{name}")
    return found


if __name__ == "__main__":
    main()
