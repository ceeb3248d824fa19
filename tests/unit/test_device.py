"""One GPU of several is used; one that is there and cannot be used is refused, and --device cpu leaves it unused."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from trueup.cli import out_of_memory
from trueup.cli.main import main
from trueup.errors import DeviceError
from trueup.models import device
from trueup.run.pipeline import Pipeline

# two GPUs that are not there: what TrainingArguments asks torch about them
TWO_GPUS = """
import os, sys, torch
from pathlib import Path
from trl import SFTConfig
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: len(os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(","))
torch.cuda.get_device_capability = lambda *_: (7, 5)
torch.cuda.set_device = lambda *_: None
from trueup.run.run_file import load
from trueup.run.stage import Context
from trueup.stages import STAGES
from trueup.training import common
folder = Path(sys.argv[1])
(folder / "run.yaml").write_text("name: x")
run = load(folder / "run.yaml", {stage.name: stage.config for stage in STAGES})
print("n_gpu", SFTConfig(**common.trainer_args(Context(run=run, run_dir=folder, out=folder))).n_gpu)
"""


@pytest.mark.slow  # so does every stage that tests/gpu_emulated/test_chain.py builds with two
def test_with_two_gpus_the_trainer_sees_one(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != device.VISIBLE}
    done = subprocess.run(
        [sys.executable, "-c", TWO_GPUS, str(tmp_path)], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["n_gpu", "1"], done.stderr


@pytest.mark.parametrize(
    ("before", "after"), [(None, "0"), ("3,1", "3"), ("2", "2"), ("", ""), ("GPU-a,GPU-b", "GPU-a")]
)
def test_the_first_gpu_that_the_user_allows_is_used(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    monkeypatch.delenv(device.VISIBLE, raising=False)
    if before is not None:
        monkeypatch.setenv(device.VISIBLE, before)
    device.use_one_gpu()
    assert os.environ[device.VISIBLE] == after


def test_a_command_prints_nothing_of_bitsandbytes(tmp_path: Path) -> None:
    code = "from trueup.models import noise; noise.sift(); import bitsandbytes"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an nvidia-smi that shows a T4; it is on the PATH, and no variable hides the GPU."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'Tesla T4'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.delenv(device.VISIBLE, raising=False)
    return tool.parent


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU of this machine is used")
def test_a_gpu_beside_a_cpu_build_of_torch_stops_a_stage_and_device_cpu_lets_it_go_on(
    gpu: Path, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sft(*words: str) -> Result:
        (tmp_path / "run.yaml").write_text((pipeline.run_file_dir / "run.yaml").read_text())
        (tmp_path / "d.jsonl").write_text((pipeline.run_file_dir / "d.jsonl").read_text())
        monkeypatch.setenv(device.VISIBLE, "0")  # so that what the command sets is undone after the test
        monkeypatch.delenv(device.VISIBLE)
        typed = ["sft", str(tmp_path / "run.yaml"), "--set", "sft.num_train_epochs=1", *words]
        return CliRunner().invoke(main, typed)

    refused = sft()
    assert refused.exit_code == 2
    assert f"nvidia-smi shows a GPU (Tesla T4), and torch {torch.__version__} is a build for CPUs" in refused.output
    assert "--device cpu" in refused.output
    assert not (tmp_path / "runs" / "tiny" / "sft").exists()
    assert sft("--device", "cpu").exit_code == 0
    record = json.loads((tmp_path / "runs" / "tiny" / "sft" / "record.json").read_text())
    assert record["device_name"] == "cpu"


def test_a_choice_of_no_gpu_is_respected(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for hidden in ("", "-1"):
        monkeypatch.setenv(device.VISIBLE, hidden)
        device.refuse_unusable()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("The NVIDIA driver on your system is too old (found version 11040). Please update it.", "is too old (found"),
        ("No CUDA GPUs are available", "No CUDA GPUs are available"),
    ],
)
def test_a_driver_that_torch_cannot_use_is_named(
    gpu: Path, monkeypatch: pytest.MonkeyPatch, error: str, said: str
) -> None:
    def init() -> None:
        raise RuntimeError(error)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError) as refused:
        device.refuse_unusable()
    assert said in refused.value.found
    assert "Please" not in refused.value.found


def test_a_card_without_a_driver_is_seen_on_the_bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    assert device.signs(tmp_path) == ""
    card = tmp_path / "sys" / "bus" / "pci" / "devices" / "0000:00:04.0"
    card.mkdir(parents=True)
    (card / "vendor").write_text("0x10de\n")
    (card / "class").write_text("0x040300\n")  # the sound of a graphics card
    assert device.signs(tmp_path) == ""
    (card / "class").write_text("0x030200\n")
    assert device.signs(tmp_path) == f"{card} is an NVIDIA GPU"
    assert not device.has_driver(tmp_path)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()  # there without a GPU, too
    assert device.signs(tmp_path) == f"{card} is an NVIDIA GPU"
    (tmp_path / "dev" / "nvidia0").touch()
    assert device.signs(tmp_path) == f"{tmp_path}/dev/nvidia0 shows an NVIDIA GPU"


@pytest.mark.parametrize(
    ("capability", "built_for", "refused"),
    [
        ((6, 1), [], "has compute capability 6.1"),
        ((7, 0), ["sm_75", "sm_80", "compute_120"], "has no code for it"),
        ((7, 5), ["sm_75", "sm_80"], ""),
        ((8, 9), ["sm_75", "sm_80"], ""),  # machine code of the same major version
        ((9, 0), ["sm_75", "sm_80"], "has no code for it"),
        ((12, 0), ["sm_80", "compute_90"], ""),  # compiled when it is first run
        ((9, 0), ["sm_80", "sm_90a"], ""),
        ((8, 0), [], ""),  # not known: a build of torch that does not say
    ],
)
def test_what_a_gpu_can_run(capability: tuple[int, int], built_for: list[str], refused: str) -> None:
    """As CUDA has it: binary code runs on devices of the same major and an equal or higher minor version, PTX on all
    later ones (CUDA C++ Programming Guide, 3.1.2 and 3.1.3)."""
    why = device._why_too_old(capability, built_for)
    assert refused in why if refused else why == ""


def test_two_processes_on_one_gpu_are_refused() -> None:
    device._refuse_shared(1, 0)
    device._refuse_shared(2, 2)
    with pytest.raises(DeviceError, match="2 processes on this machine, and 1 GPU for them"):
        device._refuse_shared(2, 1)


def test_memory_that_ran_out_is_that_of_the_gpu_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nvidia-smi is missing, as in many containers, torch still knows what it computes on."""
    card = types.SimpleNamespace(name="Tesla T4", total_memory=15 * 2**30, major=7, minor=5)
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: card)
    found = out_of_memory._this_device()
    assert (found.name, found.memory_bytes, found.is_gpu) == ("Tesla T4", 15 * 2**30, True)
