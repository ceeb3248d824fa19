"""The emulated device does what CUDA's documentation says of a real one."""

from __future__ import annotations

from typing import Any

import emulated
import pytest

pytestmark = emulated.needs_compiler

FLASH = ["aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_flash_attention_backward"]
EFFICIENT = [name.replace("flash", "efficient") for name in FLASH]
ROUNDING = {"torch.float32": 1e-5, "torch.float16": 5e-3, "torch.bfloat16": 4e-2}
CAPABILITIES = {"T4": (7, 5), "A100": (8, 0)}


@pytest.fixture(scope="module", params=["T4", pytest.param("A100", marks=pytest.mark.slow)])
def device(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = emulated.run("operators.py", capability=CAPABILITIES[request.param])
    return found | {"ampere": request.param == "A100"}


def test_a_tensor_of_another_device_raises(device: dict[str, Any]) -> None:
    assert device["mixed"] == dict.fromkeys(device["mixed"], "RuntimeError") | {"numpy": "TypeError"}
    assert device["allowed"] == dict.fromkeys(device["allowed"], "")


def test_the_host_waits_where_it_needs_a_value(device: dict[str, Any]) -> None:
    free = {"sum": 0, "positions": 1, "masked_fill": 0}  # the positions are copied to the device, a wait of its own
    assert device["waits"] == dict.fromkeys(device["waits"], 1) | free


def test_attention_is_what_torch_chooses_and_right(device: dict[str, Any]) -> None:
    for case in device["attention"]:
        half = case["dtype"] != "torch.float32"
        if device["ampere"] and half and not case["masked"]:
            expected = FLASH
        elif case["grouped"] or (case["dtype"] == "torch.bfloat16" and not device["ampere"]):
            expected = []
        else:
            expected = EFFICIENT
        assert case["kernels"] == expected, case
        assert case["error"] < ROUNDING[case["dtype"]], case


def test_fp16_overflows_as_on_a_gpu(device: dict[str, Any]) -> None:
    assert device["overflow"] == {"left_out": True, "scale": 2.0**15, "product": ["torch.float16", True]}
