"""How to run an export, as the blocks of its card: Python for transformers, commands for the servers."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trueup.export import serving
from trueup.export.markdown import block
from trueup.export.matter import Form, Subject
from trueup.export.origin import Origin
from trueup.run.base import is_hub_id
from trueup.run.files import read_json

OPTIONS = (  # of BitsAndBytesConfig, as far as they say anything about 4 bits
    *("load_in_4bit", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "bnb_4bit_compute_dtype"),
    *("bnb_4bit_quant_storage", "llm_int8_skip_modules"),
)
EACH = (
    "Each request brings the sampling settings that answers were judged at, and the system message, if the run has one:"
)
ANSWER = """
messages = [{messages}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
with torch.no_grad():
    output = model.generate(**inputs.to(model.device), max_new_tokens={max_new_tokens}, {sampling})
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""


@dataclass(frozen=True)
class Usage:
    """What the blocks name: the repository, or the folder where it was not pushed, and how answers were made."""

    where: str  # owner/name, or a folder of the export
    origin: Origin  # the base
    quantization: dict[str, Any] | None = None  # of an adapter: how its base is loaded; None: in 16 bits
    rank: int | None = None  # what vLLM's --max-lora-rank must be
    refusals: tuple[str, ...] = ()  # why vLLM cannot serve it as an adapter
    system: str | None = None
    prompt: str = "What can you do for me?"
    max_new_tokens: int = 96
    temperature: float = 1.0
    top_p: float = 1.0
    gguf: str | None = None  # owner/name or a file
    ollama: str | None = None  # owner/name of a GGUF on the hub, or a folder with a Modelfile


def of(out: Path, form: Form, subject: Subject) -> Usage:
    """How to run a form of the export in `out`."""
    run, config = subject.run, read_json(out / "adapter" / "adapter_config.json") or {}
    evaluate = run.section("evaluate")
    ggufs = sorted(path.name for path in (out / "gguf").glob("*.gguf") if "-lora-" not in path.name)
    best = next((name for name in ggufs if "q8" in name.lower()), ggufs[0] if ggufs else None)
    pushed = subject.pushed("gguf")
    return Usage(
        where=subject.where[form],
        origin=subject.origin,
        quantization=read_json(out / "adapter" / "quantization_config.json"),
        rank=serving.max_rank(config),
        refusals=tuple(serving.refusals(config)),
        system=run.data.system,
        max_new_tokens=getattr(evaluate, "max_new_tokens", 64),
        temperature=getattr(evaluate, "temperature", 1.0),
        top_p=getattr(evaluate, "top_p", 1.0),
        gguf=best and (pushed or f"gguf/{best}"),
        ollama=best and (pushed or ("ollama" if (out / "ollama").is_dir() else None)),
    )


def transformers(usage: Usage, form: Form) -> str:
    """A script that prints an answer."""
    if form == "gguf":
        return "transformers reads GGUF files slowly and dequantized; take `merged/` of the same export instead."
    return block(_adapter(usage) if form == "adapter" else _merged(usage), "python")


def _adapter(usage: Usage) -> str:
    options = ["dtype=torch.bfloat16"]
    if usage.origin.revision:
        options.append(f"revision={usage.origin.revision!r}")
    if usage.quantization:
        options.append("quantization_config=quantization")
    names = "AutoModelForCausalLM, AutoTokenizer" + (", BitsAndBytesConfig" if usage.quantization else "")
    return (
        f"import torch\nfrom peft import PeftModel\nfrom transformers import {names}\n\n"
        f"adapter = {usage.where!r}\ntokenizer = AutoTokenizer.from_pretrained(adapter)"
        + (_quantization(usage.quantization) if usage.quantization else "")
        + f"\nbase = AutoModelForCausalLM.from_pretrained({usage.origin.name!r}, {', '.join(options)})\n"
        "model = PeftModel.from_pretrained(base, adapter).eval()" + _answer(usage)
    )


def _quantization(values: dict[str, Any]) -> str:
    options = "".join(f"    {key}={value!r},\n" for key, value in values.items() if key in OPTIONS)
    return f"\nquantization = BitsAndBytesConfig(\n{options})"


def _merged(usage: Usage) -> str:
    return (
        "import torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"folder = {usage.where!r}\ntokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()" + _answer(usage)
    )


def _answer(usage: Usage) -> str:
    messages = ", ".join(map(repr, _messages(usage)))
    sampling = "do_sample=False, repetition_penalty=1.0"
    if usage.temperature > 0:  # the base's own generation settings may hold other values
        settings = f"temperature={usage.temperature:g}, top_p={usage.top_p:g}, top_k=0, min_p=0.0"
        sampling = f"do_sample=True, {settings}, repetition_penalty=1.0"
    return ANSWER.format(messages=messages, max_new_tokens=usage.max_new_tokens, sampling=sampling)


def vllm(usage: Usage, form: Form, judged: str) -> str:
    """A command that serves it and one that asks it, or what to serve in its place. `judged` is the form that vLLM can
    serve."""
    if form == "merged":
        return block(f"vllm serve {shlex.quote(usage.where)} --dtype bfloat16", "bash") + _request(usage, usage.where)
    if form == "gguf":
        return f"Serve {judged} instead."
    if usage.refusals:
        return f"vLLM cannot serve it as an adapter, since {'; '.join(usage.refusals)}. Serve {judged} instead."
    if usage.quantization:
        return (
            "This adapter belongs to the base in 4 bits by bitsandbytes, which vLLM 0.33 does not load. On the 16-bit "
            f"base it is another model than the one that was judged. Serve {judged} instead, or export with "
            "`adapter_for: 16bit`."
        )
    base = [shlex.quote(usage.origin.name), *(["--revision", usage.origin.revision] if usage.origin.revision else [])]
    rank = ["--max-lora-rank", str(usage.rank)] if usage.rank else []
    module = shlex.quote(f"aligned={usage.where}")
    command = " ".join(["vllm serve", *base, "--enable-lora", *rank, "--lora-modules", module])
    return block(command, "bash") + _request(usage, "aligned")


def _request(usage: Usage, model: str) -> str:
    """A question to a server that speaks OpenAI's protocol, with the run's system message and sampling settings."""
    sampling = {"temperature": usage.temperature, "top_p": usage.top_p, "top_k": 0, "min_p": 0, "repetition_penalty": 1}
    body = {"model": model, "messages": _messages(usage), "max_tokens": usage.max_new_tokens} | sampling
    said = shlex.quote(json.dumps(body, ensure_ascii=False))
    command = f"curl http://localhost:8000/v1/chat/completions -H 'Content-Type: application/json' -d {said}"
    return f"\n\n{EACH}\n\n{block(command, 'bash')}"


def _messages(usage: Usage) -> list[dict[str, str]]:
    turns = [("system", usage.system)] if usage.system else []
    return [{"role": role, "content": text} for role, text in [*turns, ("user", usage.prompt)]]


def ollama(usage: Usage) -> str:
    """Commands, where a GGUF was exported."""
    if usage.ollama is None:
        return "Ollama needs a GGUF file and a Modelfile, which `trueup export RUN.yaml --to gguf,ollama` writes."
    if is_hub_id(usage.ollama):
        name = f"hf.co/{usage.ollama}"
        sampling = {"temperature": usage.temperature, "top_p": usage.top_p, "top_k": 0, "min_p": 0, "repeat_penalty": 1}
        options = sampling | {"num_predict": usage.max_new_tokens}
        body = {"model": name, "messages": _messages(usage), "stream": False, "options": options}
        said = shlex.quote(json.dumps(body, ensure_ascii=False))
        ask = block(f"curl http://localhost:11434/api/chat -d {said}", "bash")
        return f"{block(f'ollama pull {name}', 'bash')}\n\n{EACH}\n\n{ask}"
    return block(f"cd {shlex.quote(usage.ollama)}\nollama create aligned -f Modelfile\nollama run aligned", "bash")


def llama_cpp(usage: Usage) -> str:
    """A command, where a GGUF was exported."""
    if usage.gguf is None:
        return "llama.cpp reads GGUF files. To make them: `trueup export RUN.yaml --to gguf`."
    option = "-m" if usage.gguf.endswith(".gguf") else "-hf"
    sampling = f"--temp {usage.temperature:g} --top-p {usage.top_p:g} --top-k 0 --min-p 0 --repeat-penalty 1"
    system = f" -sys {shlex.quote(usage.system)}" if usage.system else ""
    command = f"llama-cli {option} {shlex.quote(usage.gguf)} {sampling} -n {usage.max_new_tokens} -cnv{system}"
    return block(command, "bash")
