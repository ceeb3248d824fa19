"""How long a stage takes: multiplications over what the device reaches. A prediction, and no more."""

from __future__ import annotations

from trueup.planning.devices import Device
from trueup.planning.loads import Work
from trueup.planning.memory import Load, Setup, weights
from trueup.planning.shapes import Shape

SECONDS_TO_LOAD_A_GB = 5.0  # of weights, quantizing on the way
START_S = 10.0  # importing and preparing


def forward_flops(shape: Shape) -> float:
    """Of one position: two per parameter (Kaplan et al. 2020, section 2.1), the output layer where there are labels."""
    return 2.0 * shape.linear_parameters + 2.0 * shape.vocabulary * shape.hidden


def seconds(shape: Shape, setup: Setup, load: Load, work: Work, device: Device) -> float:
    """A frozen base costs twice its forward in training (no gradients of weights), thrice with checkpointing.

    Sampling reads the weights once per token for all rows of a batch: the slower of that and of the multiplications.
    """
    reached = device.flops * device.efficiency
    forward = forward_flops(shape)
    train = work.trained_tokens * forward * (3 if load.checkpointing else 2) / reached
    read = work.read_tokens * forward / reached
    steps = work.sampled_tokens / max(work.sampled_at_once, 1)
    a_step = max(weights(shape, setup) / device.bandwidth_bytes_s, work.sampled_at_once * forward / reached)
    if setup.four_bit and not device.is_gpu:  # the CPU dequantizes every weight anew, a few bytes at a time
        a_step += shape.linear_parameters * device.compute_bytes * 2 / device.bandwidth_bytes_s
    return START_S + SECONDS_TO_LOAD_A_GB * weights(shape, setup) / 1e9 + train + read + steps * a_step
