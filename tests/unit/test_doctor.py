"""`trueup doctor`: what a bug report needs, in seconds, without torch and without secrets."""

import os
import re
import socket
import subprocess
import sys
import time
import types
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from trueup.cli import capacity, machine
from trueup.models import device
from trueup.planning import devices

SECRET = "hf_abcdefghijklmnopqrstuvwx"


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a hub that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def doctor(home: Path, *words: str, **settings: str) -> str:
    """What the command prints with `home` as home and working folder; it must not import torch."""
    code = (
        "import sys\nfrom trueup.cli.main import main\n"
        f"main(['doctor', *{list(words)!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'numpy'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    environment = os.environ | {"HOME": str(home), "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"} | settings
    for name in {"TRUEUP_CACHE", "CUDA_VISIBLE_DEVICES"} - settings.keys():
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=home, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_what_is_here_without_secrets_and_without_names_of_homes(tmp_path: Path) -> None:
    (tmp_path / ".cache" / "trueup" / "label-studio-1.2.3").mkdir(parents=True)
    (tmp_path / ".cache" / "trueup" / "label-studio-1.2.3" / ".complete").touch()
    (tmp_path / "run.yaml").write_text(f"name: x\nmodel: {{base: '{tmp_path}/{SECRET}'}}\n")
    said = doctor(tmp_path, str(tmp_path / "run.yaml"), HF_TOKEN=SECRET, HTTPS_PROXY="http://me:hidden@proxy")
    for word in (
        "trueup: ",
        "Python: ",
        "torch: ",
        "bitsandbytes: ",
        "CPU: ",
        "memory: ",
        "disk, here: ",
        "port 8090: ",
    ):
        assert f"  {word}" in said
    assert "Label Studio: label-studio-1.2.3 is installed" in said
    assert "HF_TOKEN: set (not shown)" in said
    assert "hidden" not in said
    assert SECRET not in said
    assert str(tmp_path) not in said
    assert "  ~/run.yaml: is read\n" in said


def test_a_hub_that_does_not_answer_costs_seconds(tmp_path: Path, silent: str) -> None:
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"), "")
    began = time.monotonic()
    said = doctor(tmp_path, HF_HUB_OFFLINE="0", HF_ENDPOINT=silent, **proxies)
    assert f"hub: {silent} does not answer" in said
    assert time.monotonic() - began < 20  # five, on a machine with nothing else to do


def test_a_gpu_beside_a_cpu_build_of_torch_is_named(tmp_path: Path) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\ncase $1 in *driver_version*) echo 'Tesla T4, 15360 MiB, 3 MiB, 550.54, 7.5' ;;\n"
        "*memory.total*) echo 'Tesla T4, 15360' ;;\n*) echo 'Tesla T4' ;;\nesac\n"
    )
    tool.chmod(0o755)
    said = doctor(tmp_path, PATH=f"{tool.parent}:{os.environ['PATH']}")
    assert "GPU 0: Tesla T4, 15360 MiB (3 MiB used), driver 550.54, compute capability 7.5" in said
    assert "  computes in: fp16 with gradient scaling" in said
    assert "  device: Tesla T4, 16 GB\n" in said
    assert re.search(r"  sft: \S+, predicted to fit\n", said)
    import torch

    assert ("torch is a build for CPUs" in said) == (torch.version.cuda is None)
    assert ("  torch is built for: CPUs\n" in said) == (torch.version.cuda is None)
    hidden = doctor(tmp_path, PATH=f"{tool.parent}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="")
    assert "GPU: left unused: CUDA_VISIBLE_DEVICES names none" in hidden
    assert "  device: this CPU" in hidden
    assert "torch is a build for CPUs" not in hidden


def test_what_fits_grows_with_the_device(tmp_path: Path) -> None:
    """A 7B in 4 bits trains on 16 GB (the known mark of a T4), and a 70B on 80 GB (Dettmers et al. 2023: 48 GB)."""
    from trueup.planning import capacity, devices
    from trueup.stages import STAGES

    found = {name: capacity.largest(devices.GPUS[name], STAGES, "dpo") for name in ("t4", "24gb", "80gb")}
    sizes = {name: capacity.BASES.index(found[name]["sft"] or "") for name in found}
    assert sizes["t4"] < sizes["24gb"] < sizes["80gb"]
    assert sizes["t4"] >= capacity.BASES.index("mistralai/Mistral-7B-Instruct-v0.3")
    assert found["80gb"]["sft"] == "meta-llama/Llama-3.1-70B-Instruct"
    assert list(found["t4"]) == ["sft", "reward", "dpo"]


def test_a_run_file_with_faults_and_a_taken_port_are_part_of_the_report(tmp_path: Path, silent: str) -> None:
    (tmp_path / "run.yaml").write_text("name: x\ndop: {}\n")
    said = doctor(tmp_path, str(tmp_path / "run.yaml"))
    assert "unknown section dop; did you mean dpo?" in said
    port = silent.rpartition(":")[2]
    (tmp_path / "run.yaml").write_text(f"name: x\nlabelstudio: {{port: {port}}}\n")
    assert f"port {port}: taken by another program" in doctor(tmp_path, str(tmp_path / "run.yaml"))


def test_on_a_terminal_it_is_80_columns_wide(tmp_path: Path) -> None:
    said = doctor(tmp_path, FORCE_COLOR="1", COLUMNS="80", TRUEUP_CPU="x" * 200)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.count("x") for line in lines if set(line.strip()) == {"x"}) >= 100  # folded, not cut


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """An nvidia-smi that answers by a shell script; it is on the PATH, and no variable hides its GPUs."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv(device.VISIBLE, raising=False)


def test_a_driver_that_does_not_know_compute_capabilities_is_a_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = "case $1 in *compute_cap*) echo 'Field \"compute_cap\" is not a valid field to query.'; exit 2 ;; esac"
    driver(tmp_path, monkeypatch, f"{fails}\necho 'Tesla T4, 15360 MiB, 3 MiB, 450.80'")
    assert machine.ask_driver() == [
        "Tesla T4, 15360 MiB (3 MiB used), driver 450.80, compute capability not said by it"
    ]


def test_a_driver_without_a_gpu_shows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "echo 'No devices were found'")
    assert machine.ask_driver() == []
    assert devices.find("auto", timed=False).name.startswith("this CPU")
    assert device.signs(tmp_path) == ""


def test_a_gpu_without_nvidia_smi_is_described_by_torch_or_said_to_be_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in many containers: the driver's other signs are there, and the tool is not."""
    card = types.SimpleNamespace(name="Tesla T4", total_memory=15 * 2**30, major=7, minor=5)
    seen = "/dev/nvidia0 shows an NVIDIA GPU"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(device.VISIBLE, raising=False)
    monkeypatch.setattr(device, "signs", lambda: seen)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine.ask_driver() is None
    assert ("GPU", f"{seen}, and nvidia-smi does not answer") in machine.hardware(None)
    told = dict(islice(capacity.facts(None), 3))
    assert told["device"].startswith("this CPU")
    assert told["GPU"] == f"{seen}, and neither nvidia-smi nor torch says what it is"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: card)
    found = devices.find("auto", timed=False)
    assert (found.name, found.memory_bytes, found.capability) == ("Tesla T4", 15 * 2**30, (7, 5))
    told = dict(islice(capacity.facts(None), 3))
    assert told["device"].startswith("Tesla T4") and told["computes in"].startswith("fp16") and "GPU" not in told
    monkeypatch.setenv(device.VISIBLE, "")
    assert not devices.find("auto", timed=False).is_gpu


def test_a_gpu_whose_memory_the_driver_does_not_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of chips that share the memory of the host. A GPU that is listed has the memory of its data sheet."""
    driver(tmp_path, monkeypatch, "echo 'NVIDIA GB10, [N/A], 12.1'")
    told = dict(capacity.facts(["NVIDIA GB10, [N/A] ([N/A] used), driver 580.1, compute capability 12.1"]))
    assert told.keys() == {"torch is built for", "device"}
    assert "memory of NVIDIA GB10: [N/A]" in told["device"] and "--device" in told["device"]
    driver(tmp_path, monkeypatch, "echo 'Tesla T4, [Insufficient Permissions], 7.5'")
    found = devices.find("auto", timed=False)
    assert found.memory_bytes == 15 * 10**9 and found.size == "15 GB, as listed: the driver does not say"


def test_what_can_train_is_said_of_the_gpu_that_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "case $* in *--id=1*) echo 'NVIDIA L4, 23034, 8.9' ;; *) exit 6 ;; esac")
    gpus = ["Tesla T4, 15360 MiB (3 MiB used), driver 570.1, compute capability 7.5", "NVIDIA L4, [...]"]
    monkeypatch.setenv(device.VISIBLE, "1")
    told = dict(capacity.facts(gpus))
    assert told["device"].startswith("NVIDIA L4") and told["computes in"] == "bf16"
    monkeypatch.setenv(device.VISIBLE, "7")
    assert "nvidia-smi shows none of" in dict(capacity.facts(gpus))["GPU"]


def test_a_gpu_that_is_refused_trains_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "echo 'Tesla K80, 11441, 3.7'")
    told = dict(capacity.facts(["Tesla K80, 11441 MiB (3 MiB used), driver 470.1, compute capability 3.7"]))
    assert told["computes in"] == "nothing: compute capability 3.7 is below 7.0"
    assert "sft" not in told
