"""The plan's formulas against sizes counted by hand, its verdicts, and where a shape comes from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import make_model

from trueup.errors import ConfigError, ModelError
from trueup.models import base, head, hub
from trueup.planning import devices, duration, fit, gpu_step, lengths, memory, shapes, table
from trueup.planning.lengths import Lengths
from trueup.planning.loads import Work, plan
from trueup.run.data_config import DataConfig
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import RunFile, load
from trueup.run.stage import Context
from trueup.stages import STAGES
from trueup.training import common

# 2 layers, 4 heads of 16 on 2 of keys: q and o are 64 x 64, k and v 64 x 32, the MLP 64 x 128 three times
SHAPE = shapes.Shape(64, 128, 2, 4, 2, 16, vocabulary=320, tied=True)
LINEAR = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
SETUP = memory.Setup(four_bit=True, r=16, targets=tuple(SHAPE.linear))

BY_NAME = {stage.name: stage for stage in STAGES}


def test_what_all_rows_begin_with_is_counted_once_where_it_is_computed_once() -> None:
    load = memory.Load(rows=4, tokens=10, shared=3)
    assert memory.positions(SETUP, load) == 3 + 4 * 7
    assert memory.positions(replace(SETUP, packed=False), load) == 40


def test_what_all_conversations_begin_with_is_read_from_the_template(tmp_path: Path) -> None:
    make_model(tmp_path)
    tokenizer = base.load_tokenizer(str(tmp_path))
    data = DataConfig(system="red tent")
    begins = "<|im_start|>system\nred tent<|im_end|>\n<|im_start|>user\n"
    assert (
        lengths.shared(data, tmp_path) == len(tokenizer(begins)["input_ids"]) > lengths.shared(DataConfig(), tmp_path)
    )
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    tokenizer.save_pretrained(tmp_path)
    assert lengths.shared(data, tmp_path) == lengths.shared(data, None) == 0


def test_four_bit_weights_scales_tables_and_what_stays_16_bit() -> None:
    assert SHAPE.linear_parameters == LINEAR == 73_728
    blocks = LINEAR // 64
    scales = 2 * 7 * 4  # one fp32 scale of scales a map: none has more than 256 blocks
    tables = 2 * 7 * 4 * (16 + 256)
    embedding, norms = 320 * 64, 5 * 64
    expected = LINEAR // 2 + blocks + scales + tables + 2 * (embedding + norms)
    assert memory.weights(SHAPE, replace(SETUP, packed=False)) == expected
    assert memory.weights(SHAPE, SETUP) == expected + 4 * blocks  # unpacked, and kept
    assert memory.weights(SHAPE, replace(SETUP, four_bit=False)) == 2 * (LINEAR + embedding + norms)
    untied = replace(SHAPE, tied=False)
    assert memory.weights(untied, SETUP) == expected + 4 * blocks + 2 * embedding


def test_an_adapter_is_r_times_in_plus_out() -> None:
    per_layer = 16 * (2 * (64 + 64) + 2 * (64 + 32) + 3 * (64 + 128))
    assert memory.adapter_parameters(SHAPE, SETUP) == 2 * per_layer
    attention = replace(SETUP, targets=("q_proj", "v_proj"), r=4)
    assert memory.adapter_parameters(SHAPE, attention) == 2 * 4 * ((64 + 64) + (64 + 32))
    assert memory.adapter_parameters(SHAPE, replace(attention, dora=True)) == 2 * (4 * 224 + 64 + 32)


def test_activations_cache_and_optimizer_by_hand() -> None:
    load = memory.Load(rows=3, tokens=10, labelled=10, num_trained=1, cache_rows=3, cache_tokens=10)
    positions, kept = 30, 4 * (2 * 64 + 2 * 64 + 2 * 32 + 2 * 128) + 8
    assert memory.activations(SHAPE, SETUP, load) == 2 * positions * kept
    checkpointed = replace(load, checkpointing=True)
    assert memory.activations(SHAPE, SETUP, checkpointed) == positions * kept + 2 * positions * 64 * 4
    assert memory.kv_cache(SHAPE, SETUP, load) == 3 * 10 * (2 * 2 * 2 * 16) * 4
    means = 3 * 30 * 64 * 4
    assert memory.logits(SHAPE, SETUP, load) == 2 * 320 * (30 * 4 + 64 * 4) + means  # and the output layer's rows
    assert memory.logits(SHAPE, replace(SETUP, compute_bytes=2), load) == 2 * 320 * (30 * 4 + 64 * 2) + means
    many, wide = replace(load, labelled=1000), replace(SHAPE, vocabulary=10_000)  # chunks of 1024, blocks of 2048
    assert memory.logits(wide, SETUP, many) == 2 * 2048 * (1024 * 4 + 64 * 4) + 3 * 1024 * 64 * 4
    assert (memory.CHUNK_TOKENS, memory.VOCABULARY_BLOCK) == (head.CHUNK_TOKENS, head.VOCABULARY_BLOCK)
    assert (gpu_step.CHUNK_TOKENS, gpu_step.VOCABULARY_BLOCK) == (head.CHUNK_TOKENS, head.GPU_VOCABULARY_BLOCK)
    assert memory.logits(SHAPE, SETUP, replace(load, labelled=0)) == 0
    big = replace(load, rows=4000)  # large enough for training to be the peak, not loading
    terms = memory.peak(SHAPE, SETUP, big)
    one = memory.adapter_parameters(SHAPE, SETUP)
    assert (terms["adapters"], terms["gradients"], terms["optimizer"]) == (4 * one, 4 * one, 8 * one)
    assert terms["peak"] == sum(size for name, size in terms.items() if name != "peak")


def test_sampling_and_training_take_turns() -> None:
    trained = memory.peak(SHAPE, SETUP, memory.Load(rows=4000, tokens=100, labelled=100, num_trained=1))
    sampled = memory.peak(SHAPE, SETUP, memory.Load(cache_rows=4000, cache_tokens=100, cache_prompt=50))
    both = memory.peak(
        SHAPE,
        SETUP,
        memory.Load(
            rows=4000, tokens=100, labelled=100, num_trained=1, cache_rows=4000, cache_tokens=100, cache_prompt=50
        ),
    )
    tensors = [
        sum(bytes_ for term, bytes_ in one.items() if term not in ("compiler", "overhead", "peak"))
        for one in (trained, sampled, both)
    ]
    assert tensors[2] == max(tensors[:2])
    assert "kv_cache" in sampled and "kv_cache" not in trained
    few = memory.Load(cache_rows=1, cache_tokens=100, cache_prompt=50)
    assert memory.compiler(SETUP, few) > memory.compiler(SETUP, memory.Load()) == 0
    assert memory.compiler(replace(SETUP, on_gpu=True), few) == memory.compiler(replace(SETUP, packed=False), few) == 0


def run_file(folder: Path, text: str = "") -> RunFile:
    path = folder / "run.yaml"
    path.write_text(f"name: x\nmodel: {{base: meta-llama/Llama-3.1-8B-Instruct}}\n{text}")
    return load(path, {stage.name: stage.config for stage in STAGES})


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(base: str) -> Any:
        raise OSError("no network")

    monkeypatch.setattr(shapes, "_from_hub", unreachable)


def test_the_cure_is_a_smaller_micro_batch_then_checkpointing_then_shorter_texts(tmp_path: Path, offline: None) -> None:
    run, lengths = run_file(tmp_path), Lengths()
    shape = shapes.of_base(run.model.base)[0]
    setup = memory.Setup(four_bit=True, r=16, targets=tuple(shape.linear), compute_bytes=2, packed=False, on_gpu=True)

    def peak(changes: fit.Changes) -> int:
        return (fit.peak_of(BY_NAME["sft"], fit.changed(run, "sft", changes), lengths, shape, setup) or {})["peak"]

    def cure(usable: int) -> fit.Changes | None:
        return fit.cure(BY_NAME["sft"], run, lengths, shape, setup, usable)

    assert peak({}) > 24e9
    smaller = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert cure(peak(smaller)) == smaller
    smallest = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    checkpointed = cure(peak(smallest) - 1) or {}
    assert checkpointed["gradient_checkpointing"] is True and "max_length" not in checkpointed
    least = {**smallest, "gradient_checkpointing": True}
    shorter = cure(peak(least) - 1) or {}
    assert shorter["max_length"] == 256
    assert cure(10**9) is None  # less than the weights alone
    for found in (checkpointed, shorter):
        assert peak(found) <= peak(smallest)
    assert fit.cure(BY_NAME["export"], run, lengths, shape, setup, 10**9) == {"to": "adapter"}


def test_a_shape_comes_from_the_folder_the_hub_or_our_table(
    tmp_path: Path, offline: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, source, folder = shapes.of_base("meta-llama/Llama-3.1-8B-Instruct")
    assert "our table" in source and folder is None
    assert shape.linear_parameters + shape.other_parameters == 8_030_261_248  # as its model card counts
    with pytest.raises(ModelError, match=r"the hub did not answer \(OSError\)"):
        shapes.of_base("nobody/nothing")
    monkeypatch.setattr(shapes, "_from_hub", lambda base: hub.settle(base))
    monkeypatch.setattr(hub, "is_reachable", lambda: False)
    with pytest.raises(ModelError, match=r"it is not on this machine, and the hub .* does not answer, and its shape"):
        shapes.of_base("nobody/nothing")
    with pytest.raises(ModelError, match=r"no config\.json"):
        shapes.of_base(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelError, match=r"has no num_attention_heads \(model_type t5\)"):
        shapes.of_base(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("HuggingFaceH4/zephyr-7b-beta", 7.242),
        ("Qwen/Qwen2.5-0.5B-Instruct", 0.494),
        ("Qwen/Qwen2.5-7B-Instruct", 7.616),
        ("Qwen/Qwen2.5-14B-Instruct", 14.770),
        ("Qwen/Qwen2.5-32B-Instruct", 32.764),
        ("meta-llama/Llama-3.1-70B-Instruct", 70.554),
    ],
)
def test_the_table_has_the_parameters_that_model_cards_state(name: str, billions: float, offline: None) -> None:
    shape = shapes.of_base(name)[0]
    assert (shape.linear_parameters + shape.other_parameters) / 1e9 == pytest.approx(billions, abs=0.001)


def test_loads_follow_the_sections(tmp_path: Path) -> None:
    text = "dpo: {per_device_train_batch_size: 3, max_length: 100}\nppo: {micro_batch_size: 5, max_new_tokens: 40}\n"
    run, lengths = run_file(tmp_path, text), Lengths(num_prompts=10, prompt_tokens=20, longest_prompt=30)
    pairs, thumbs, rollouts = (plan(BY_NAME[name], run, lengths) for name in ("dpo", "kto", "ppo"))
    assert pairs is not None and thumbs is not None and rollouts is not None
    assert (pairs[0].rows, pairs[0].tokens, pairs[0].num_adapters) == (6, 100, 2)
    assert (thumbs[0].rows, thumbs[0].num_adapters) == (8, 2)
    assert (rollouts[0].rows, rollouts[0].tokens, rollouts[0].labelled) == (5, 70, 40)
    assert (rollouts[0].num_adapters, rollouts[0].num_trained, rollouts[0].cache_rows) == (4, 2, 32)
    assert plan(BY_NAME["collect"], run, lengths) is None


def test_time_is_flops_over_what_the_device_reaches() -> None:
    device = replace(devices.GPUS["t4"], flops=1e12, efficiency=0.5)
    work = Work(trained_tokens=1e9)
    setup = replace(SETUP, on_gpu=True)
    forward = 2 * LINEAR + 2 * 320 * 64
    plain = duration.seconds(SHAPE, setup, memory.Load(), work, device)
    again = duration.seconds(SHAPE, setup, memory.Load(checkpointing=True), work, device)
    assert again - plain == pytest.approx(1e9 * forward / 0.5e12)
    assert plain == pytest.approx(2e9 * forward / 0.5e12, rel=0.1)


def recorded(folder: Path, run: str, tensors: int, device: str = "Tesla T4") -> None:
    """A complete sft of another run beside this one, at a quarter of the default length."""
    stage = folder / "runs" / run / "sft"
    stage.mkdir(parents=True)
    record = {
        "version": 1,
        "stage": "sft",
        "config": {"max_length": 128, "per_device_train_batch_size": 1},
        "adapter": {"r": 16},
        "base": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
        "device_name": device,
        "peak_tensor_bytes": tensors,
    }
    (stage / "record.json").write_text(json.dumps(record))


def test_the_plan_learns_from_what_earlier_stages_took_on_this_gpu(tmp_path: Path, offline: None) -> None:
    run = run_file(tmp_path)
    pipeline = Pipeline(run, STAGES, tmp_path / "runs")
    gpu = devices.described("Tesla T4, 15360, 7.5")
    plain = {line.stage: line for line in table.make(pipeline, gpu).lines}
    shape = shapes.of_base(run.model.base)[0]
    setup = table.setup_of(pipeline, shape, gpu)
    short = fit.changed(run, "sft", {"max_length": 128, "per_device_train_batch_size": 1})
    terms = fit.peak_of(BY_NAME["sft"], short, Lengths(), shape, setup) or {}
    predicted = terms["peak"] - terms["overhead"]
    recorded(tmp_path, "one", round(0.9 * predicted))
    recorded(tmp_path, "two", round(1.1 * predicted))
    recorded(tmp_path, "elsewhere", 3 * predicted, device="NVIDIA L4")
    made = table.make(pipeline, gpu)
    learned = {line.stage: line for line in made.lines}
    ratio = learned["sft"].learned
    assert ratio is not None and ratio.num_records == 2
    assert ratio.ratio == pytest.approx(1.1, abs=1e-6)  # the larger of the two
    before, after = plain["sft"].terms or {}, learned["sft"].terms or {}
    assert after["peak"] - after["overhead"] == pytest.approx(1.1 * (before["peak"] - before["overhead"]), rel=1e-6)
    assert "learned from 2 earlier records on this GPU" in ratio.in_words()
    assert learned["dpo"].learned is None and learned["dpo"].terms == plain["dpo"].terms
    stage = next(one for one in table.figures(made, gpu)["stages"] if one["stage"] == "sft")
    assert stage["earlier_records"]["num_records"] == 2


def test_an_export_is_as_large_as_the_base_that_it_is_measured_on(tmp_path: Path, offline: None) -> None:
    """16 bits for each weight where there is room for them, else the base in 4 bits that it was trained on."""
    run = run_file(tmp_path)
    pipeline = Pipeline(run, STAGES, tmp_path / "runs")
    shape = shapes.of_base(run.model.base)[0]
    parameters = shape.linear_parameters + shape.other_parameters

    def weights(device: str) -> int:
        setup = table.setup_of(pipeline, shape, devices.find(device))
        return (fit.peak_of(BY_NAME["export"], run, Lengths(), shape, setup) or {})["weights"]

    assert weights("24gb") == 2 * parameters
    assert weights("t4") == memory.weights(shape, table.setup_of(pipeline, shape, devices.find("t4"))) < parameters


def test_a_base_in_fp32_takes_twice_the_memory_where_it_is_not_quantized(tmp_path: Path, offline: None) -> None:
    run = run_file(tmp_path)
    shape = shapes.of_base(run.model.base)[0]
    of_half = Pipeline(run, STAGES, tmp_path / "runs")
    exact = run.model_copy(update={"model": run.model.model_copy(update={"dtype": "float32"})})
    half, whole = (table.setup_of(p, shape, devices.find("t4")) for p in (of_half, of_half.with_run(exact)))
    more = memory.weights(shape, whole) - memory.weights(shape, half)
    assert (whole.compute_bytes, more) == (4, 2 * shape.other_parameters)


def test_auto_decodes_on_a_copy_where_it_leaves_a_tenth_of_the_gpu_free() -> None:
    load = memory.Load(cache_rows=4, cache_tokens=100, cache_prompt=50, copy="room")
    copied = memory.peak(SHAPE, replace(SETUP, on_gpu=True, packed=False), replace(load, copy="merged"))
    assert copied["copy"] == 2 * LINEAR
    for memory_bytes, expected in ((copied["peak"] * 1.12, 2 * LINEAR), (copied["peak"] * 1.1, 0)):
        setup = replace(SETUP, on_gpu=True, packed=False, memory_bytes=int(memory_bytes))
        assert memory.peak(SHAPE, setup, load)["copy"] == expected
    assert memory.peak(SHAPE, SETUP, load)["copy"] == 0  # a CPU's auto decodes on the 4-bit weights


def test_moments_of_eight_bits() -> None:
    """A byte each, and a scale in fp32 for each 256 of them."""
    assert memory.optimizer(1024, "adamw_torch_fused") == 8 * 1024
    assert memory.optimizer(1024, "paged_adamw_8bit") == 2 * (1024 + 4 * 4)


DRIVER = {  # what nvidia-smi answers, and the capability, bandwidth (GB/s) and dense TFLOPS of the data sheet
    "Tesla T4, 15360, 7.5": ((7, 5), 320, 65),
    "Tesla V100-SXM2-16GB, 16384, 7.0": ((7, 0), 900, 125),
    "Tesla V100-SXM2-32GB, 32768, 7.0": ((7, 0), 900, 125),
    "NVIDIA L4, 23034, 8.9": ((8, 9), 300, 121),
    "NVIDIA A10, 23028, 8.6": ((8, 6), 600, 125),
    "NVIDIA A10G, 23028, 8.6": ((8, 6), 600, 70),
    "NVIDIA GeForce RTX 3090, 24576, 8.6": ((8, 6), 936, 71),
    "NVIDIA GeForce RTX 4090, 24564, 8.9": ((8, 9), 1008, 165.2),
    "NVIDIA GeForce RTX 5090, 32607, 12.0": ((12, 0), 1792, 209.5),
    "NVIDIA A100-SXM4-40GB, 40960, 8.0": ((8, 0), 1555, 312),
    "NVIDIA A100-PCIE-40GB, 40960, 8.0": ((8, 0), 1555, 312),
    "NVIDIA A100-SXM4-80GB, 81920, 8.0": ((8, 0), 2039, 312),
    "NVIDIA A100 80GB PCIe, 81920, 8.0": ((8, 0), 1935, 312),
    "NVIDIA L40S, 46068, 8.9": ((8, 9), 864, 362),
    "NVIDIA RTX 6000 Ada Generation, 49140, 8.9": ((8, 9), 960, 364.2),
    "NVIDIA H100 80GB HBM3, 81559, 9.0": ((9, 0), 3350, 989),
    "NVIDIA H100 PCIe, 81559, 9.0": ((9, 0), 2000, 756),
    "NVIDIA H100 NVL, 95830, 9.0": ((9, 0), 3900, 835),
    "NVIDIA H200, 143771, 9.0": ((9, 0), 4800, 989),
    "NVIDIA B200, 183359, 10.0": ((10, 0), 8000, 2250),
}


@pytest.mark.parametrize("line", DRIVER)
def test_a_gpu_is_known_by_the_name_of_its_driver(line: str) -> None:
    found = devices.described(line)
    capability, bandwidth, teraflops = DRIVER[line]
    assert (found.capability, found.speeds_of) == (capability, "")
    assert (found.bandwidth_bytes_s, found.flops) == (bandwidth * 1e9, pytest.approx(teraflops * 1e12))
    assert found.memory_bytes == int(line.split(",")[1]) * 2**20 and found.name == line.split(",")[0]
    assert found.is_gpu and found.compute_bytes == 2


@pytest.mark.parametrize(
    ("line", "assumed"),
    [
        ("NVIDIA GeForce RTX 3090 Ti, 24564, 8.6", "3090"),
        ("NVIDIA GeForce RTX 4090 D, 24564, 8.9", "4090"),
        ("NVIDIA H800, 81559, 9.0", "H100-PCIE"),
        ("Quadro RTX 6000, 24576", "T4"),  # a driver that does not say the capability
    ],
)
def test_the_speeds_of_a_gpu_that_is_not_listed_are_said_to_be_assumed(line: str, assumed: str) -> None:
    assert devices.described(line).speeds_of == assumed


def test_a_device_is_known_however_its_name_is_written() -> None:
    assert devices.find("T4") is devices.find("t4")


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(ConfigError, match=r"one of auto, cpu, .*t4, .*h100, .*24gb, 80gb"):
        devices.find("h9000")


@pytest.mark.parametrize(
    ("capability", "dtype", "bf16", "fp16"),
    [
        ((7, 5), torch.float16, False, True),
        ((8, 0), torch.bfloat16, True, False),
        ((9, 0), torch.bfloat16, True, False),
    ],
)
def test_gpus_below_capability_8_train_in_fp16_with_gradient_scaling(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capability: Any, dtype: Any, bf16: bool, fp16: bool
) -> None:
    """fp16=True is what makes the trainer scale gradients; no attention kernel is asked for, so SDPA stays."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    context = Context(run=run_file(tmp_path), run_dir=tmp_path, out=tmp_path)
    arguments = common.trainer_args(context)
    assert base.compute_dtype() == dtype
    assert (arguments["bf16"], arguments["fp16"], arguments["use_cpu"]) == (bf16, fp16, False)
    make_model(tmp_path / "model")
    asked: dict[str, Any] = {}

    def note(name: str, **options: Any) -> Any:
        asked.update(options)
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", note)
    monkeypatch.setattr("trueup.models.hub.settle", lambda name: None)
    with pytest.raises(KeyboardInterrupt):
        base.load_base(str(tmp_path / "model"), four_bit=True)
    assert asked["dtype"] == dtype and asked["quantization_config"].bnb_4bit_compute_dtype == dtype
    assert "attn_implementation" not in asked
