"""What is `bin/vllm` in tests: `serve` with the part of vLLM's HTTP interface that is used, in documented shapes.

It answers by transformers and peft, from the folders of the base and of each adapter that it is given, as vLLM would:
so what is served and how it is asked are real, and only vLLM itself is not.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

SCRIPT = "#!{python}\nimport sys\nsys.path.insert(0, {tests!r})\nimport fake_vllm\nfake_vllm.main(sys.argv[1:])\n"


def install(folder: Path) -> None:
    """An environment of vLLM in `folder`, whose program is this file."""
    program = folder / "bin/vllm"
    program.parent.mkdir(parents=True)
    program.write_text(SCRIPT.format(python=sys.executable, tests=str(Path(__file__).parent)))
    program.chmod(0o755)
    (folder / ".complete").touch()


def trouble() -> str:
    """What it does wrong: the text of a file, which a test may change as it runs."""
    file = Path(os.environ["TRUEUP_CACHE"]) / "trouble"
    return file.read_text() if file.exists() else ""


class Healthy(BaseHTTPRequestHandler):
    """Says that it is there."""

    def do_GET(self) -> None:
        self.answer(200 if self.path == "/health" else 404, "")

    def answer(self, status: int, body: Any) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        if not isinstance(body, str):
            self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


def main(words: list[str]) -> None:
    if "does not start" in trouble():
        sys.exit("no GPU was found")
    if "only listens" in trouble():
        options = {word: words[i + 1] for i, word in enumerate(words) if word in ("--host", "--port")}
        ThreadingHTTPServer((options["--host"], int(options["--port"])), Healthy).serve_forever()
    import torch
    from peft import PeftModel, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    assert words[0] == "serve" and "--enable-lora" in words and os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
    options = {word: words[i + 1] for i, word in enumerate(words) if word.startswith("--") and word != "--enable-lora"}
    base = AutoModelForCausalLM.from_pretrained(words[1]).eval()
    served: dict[str, Any] = {options["--served-model-name"]: None}  # by name: the adapter's settings and weights
    asked: list[dict[str, Any]] = []
    first: list[Any] = []
    lock = threading.Lock()

    def load(body: dict[str, Any]) -> tuple[int, Any]:
        if body["lora_name"] in served or not (Path(body["lora_path"]) / "adapter_config.json").exists():
            return 400, {"error": {"message": "cannot load this adapter"}}
        wrapped = PeftModel.from_pretrained(base, body["lora_path"])
        weights = {name: tensor.clone() for name, tensor in wrapped.state_dict().items() if "lora_" in name}
        first.append((wrapped.peft_config["default"], weights))
        wrapped.unload()
        served[body["lora_name"]] = first[0] if "keeps the first adapter" in trouble() else first[-1]
        return 200, f"Success: LoRA adapter '{body['lora_name']}' added successfully."

    @torch.no_grad()
    def complete(body: dict[str, Any]) -> tuple[int, Any]:
        if body["model"] not in served or not isinstance(body["prompt"][0], int):
            return 404, {"error": {"message": "no such model"}}
        adapter = served[body["model"]]
        model = base
        if adapter is not None:
            model = get_peft_model(base, adapter[0])
            model.load_state_dict(adapter[1], strict=False)
            model.eval()
        generator = torch.Generator().manual_seed(body["seed"])
        ids, logps, reason = list(body["prompt"]), [], "length"
        while len(logps) < body["max_tokens"]:
            logits = model(torch.tensor([ids])).logits[0, -1].float()
            spread = torch.log_softmax(logits / (body["temperature"] or 1.0), -1)
            greedy = body["temperature"] == 0
            token = int(spread.argmax()) if greedy else int(torch.multinomial(spread.exp(), 1, generator=generator))
            ids.append(token)
            logps.append(float(spread[token]))
            if token in body["stop_token_ids"]:
                reason = "stop"
                break
        if adapter is not None:
            model.unload()
        found = ids[len(body["prompt"]) :]
        choice: dict[str, Any] = {"index": 0, "text": "", "finish_reason": reason}
        choice["logprobs"] = {"token_logprobs": logps, "tokens": [], "top_logprobs": [], "text_offset": []}
        if body.get("return_token_ids"):
            choice["token_ids"] = found[:-1] if "drops the end" in trouble() else found
        return 200, {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": [choice]}

    class Handler(Healthy):
        def do_GET(self) -> None:
            if self.path == "/asked":
                return self.answer(200, asked)
            super().do_GET()

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if self.headers.get("authorization") != f"Bearer {os.environ['VLLM_API_KEY']}":
                return self.answer(401, {"error": "Unauthorized"})
            with lock:
                asked.append({"path": self.path} | body)
                if self.path == "/v1/load_lora_adapter":
                    return self.answer(*load(body))
                if self.path == "/v1/unload_lora_adapter":
                    del served[body["lora_name"]]
                    return self.answer(200, "Success")
                if self.path == "/v1/completions":
                    return self.answer(*complete(body))
            self.answer(404, "")

    ThreadingHTTPServer((options["--host"], int(options["--port"])), Handler).serve_forever()
