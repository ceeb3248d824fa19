"""Bugs of a CPU's own code."""

from __future__ import annotations

from .bug import Bug

STEP = "tests/wiring/test_first_step.py::test_"
SAMPLES = "tests/wiring/test_samples.py"
ADAPTERS = "tests/wiring/test_adapters.py"

BUGS = [
    Bug(
        "a LoRA rank that is no multiple of 8 cut in training",
        "kernels",
        "src/trueup/cpu/linear.py",
        "y.addmm_(x @ self.a.detach().to(x.dtype).T, self.b.detach().to(x.dtype).T, alpha=self.scaling)",
        "n = len(self.a) // 8 * 8\n            y.addmm_(x @ self.a[:n].detach().to(x.dtype).T, "
        "self.b[:, :n].detach().to(x.dtype).T, alpha=self.scaling)",
        (ADAPTERS + "::test_a_rank_that_is_no_multiple_of_8",),
    ),
    Bug(
        "a LoRA rank that is no multiple of 8 cut in decoding",
        "kernels",
        "src/trueup/cpu/projection.py",
        "(m.b.detach() * m.scaling).to(self.dtype) for m in linears]",
        "(m.b.detach() * m.scaling * (torch.arange(m.b.shape[1]) < m.b.shape[1] // 8 * 8)).to(self.dtype) "
        "for m in linears]",
        (ADAPTERS + "::test_a_rank_that_is_no_multiple_of_8",),
    ),
    Bug(
        "LoRA's scaling forgotten in the backward pass",
        "kernels",
        "src/trueup/cpu/linear.py",
        "through = (grad @ high).mul_(self.scaling)",
        "through = grad @ high",
        (STEP + "dpo",),
    ),
    Bug(
        "the norm's epsilon forgotten",
        "kernels",
        "src/trueup/cpu/block.py",
        "+ module.variance_epsilon)",
        ")",
        (STEP + "sft",),
    ),
    Bug(
        "rotary embeddings turned the wrong way in the backward pass",
        "kernels",
        "src/trueup/cpu/block.py",
        "grad.roll(grad.shape[-1] // 2, -1), self.sin, value=-1)",
        "grad.roll(grad.shape[-1] // 2, -1), self.sin, value=1)",
        (STEP + "dpo",),
    ),
    Bug(
        "decoding one position late",
        "kernels",
        "src/trueup/decoding/batching.py",
        "(lengths[rows] + ages - 1)",
        "(lengths[rows] + ages)",
        (SAMPLES + "::test_log_probabilities_are_those_of_a_plain_forward",),
    ),
    Bug(
        "gradients of attention scores not scaled",
        "kernels",
        "src/trueup/cpu/attention.py",
        "(d_scores @ keys).mul_(scale)",
        "(d_scores @ keys)",
        (STEP + "dpo",),
    ),
]
