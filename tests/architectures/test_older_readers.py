"""What is exported, read by older versions of transformers and peft, each in an environment of its own.

It installs them from the package index, so that it runs only when it is asked for: make older.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from families import CASES, tokenizer
from older_reader import read
from peft import LoraConfig, get_peft_model
from tiny import make_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from trueup.export import older

pytestmark = pytest.mark.skipif("TRUEUP_OLDER" not in os.environ, reason="installs older packages: make older")
READER = Path(__file__).with_name("older_reader.py")
# transformers -> what was current with it
ENVIRONMENTS = {
    "4.57.6": ("peft==0.18.1", "huggingface_hub<1", "tokenizers==0.22.1"),
    "4.53.3": ("peft==0.16.0", "huggingface_hub<1", "tokenizers==0.21.4", "accelerate==1.8.1"),
    "4.51.3": ("peft==0.15.2", "huggingface_hub<1", "tokenizers==0.21.4", "accelerate==1.6.0"),
    "4.48.3": ("peft==0.14.0", "huggingface_hub<0.30", "tokenizers==0.21.4", "accelerate==1.3.0"),
    "4.45.2": ("peft==0.13.2", "huggingface_hub<0.30", "tokenizers==0.20.3", "accelerate==1.0.1"),
}
# families that a version does not know, or computes otherwise: docs/publishing.md names them
UNKNOWN: dict[str, set[str]] = {
    "4.57.6": set(),
    "4.53.3": set(),
    "4.51.3": {"SmolLM3"},
    "4.48.3": {"SmolLM3", "Qwen3", "Gemma 3, text"},
    "4.45.2": {"SmolLM3", "Qwen3", "Gemma 3, text", "Cohere 2", "OLMo 2"},
}
OTHERWISE: dict[str, set[str]] = {
    "4.57.6": set(),
    "4.53.3": set(),
    "4.51.3": {"Llama, YaRN rotation", "Qwen2, sliding window in use"},
    "4.48.3": {"Llama, YaRN rotation", "Qwen2, sliding window in use"},
    "4.45.2": {"Llama, YaRN rotation", "Qwen2, sliding window in use"},
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each family, with rotations of another base than transformers 4 takes where it reads none."""
    root = tmp_path_factory.mktemp("exported")
    found = {}
    for case in (case for case in CASES if not case.refused):
        folder = case.build(root / case.name.replace(", ", "-").replace(" ", "-"))
        config = json.loads((folder / "config.json").read_text())
        for rope in ropes(config):
            rope["rope_theta"] = 3 * rope["rope_theta"]
        (folder / "config.json").write_text(json.dumps(config))
        tokenizer().save_pretrained(folder)
        found[case.name] = folder
    made = root / "adapter"
    base = AutoModelForCausalLM.from_pretrained(found["Llama"])
    base.save_pretrained(root / "base")
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.2
    model.save_pretrained(made)
    make_model(root / "bytes")
    AutoTokenizer.from_pretrained(root / "bytes").save_pretrained(made)  # byte-level BPE, as most models have
    older.settle(root / "base")
    for folder in (*found.values(), made):
        older.settle(folder)
    return found | {"adapter": made}


def ropes(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The rotations of a configuration: one, or one for each kind of layer."""
    found = config.get("rope_parameters") or {}
    return [found] if "rope_theta" in found else [value for value in found.values() if isinstance(value, dict)]


@pytest.fixture(scope="session", params=ENVIRONMENTS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def said(version: str, exported: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the environment of a version reads; torch and whatever else is not named there is ours."""
    root = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True)
    python, out = root / "bin" / "python", root / "said.json"
    wanted = [f"transformers=={version}", *ENVIRONMENTS[version], "requests"]
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--python", str(python), *wanted]
    subprocess.run(install, check=True)
    (site,) = root.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "zz_ours.pth").write_text("\n".join(ours) + "\n")  # after its own
    folders = [str(folder) for folder in exported.values()]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(root / "home")}
    subprocess.run([str(python), str(READER), str(out), *folders], check=True, env=environment)
    return dict(zip(exported, json.loads(out.read_text()).values(), strict=True))


def test_every_family_is_read_as_we_read_it(version: str, said: dict[str, Any], exported: dict[str, Path]) -> None:
    unknown, otherwise = set(), set()
    for name, folder in exported.items():
        ours = read(folder)
        if "logits" not in said[name]:
            unknown.add(name)
            continue
        apart = (torch.tensor(said[name]["logits"]) - torch.tensor(ours["logits"])).abs().max().item()
        if apart > 1e-3:
            otherwise.add(name)
        assert said[name]["ids"] == ours["ids"] and said[name]["inputs"] == ["attention_mask", "input_ids"]
    assert (unknown, otherwise) == (UNKNOWN[version], OTHERWISE[version]), {n: said[n].get("why") for n in unknown}
