"""The reference proof: before step 1, the reference is shown to be the adapter it should be.

The loss alone proves nothing: a fresh LoRA against the bare base also gives ln 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trueup.chat.batch import pad
from trueup.chat.template import Encoded
from trueup.errors import ReferenceProofError
from trueup.models import adapters, base, causal, errors
from trueup.run.stage import Metrics

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 0.05  # nats on any token, of equal weights in the same batch
# Nats per token, on average, between equal weights in another batch or on another processor: bf16 caused up to 0.05,
# and 0.25 on single tokens, on a model with large random adapters.
ROUNDING = 0.1
SMALLEST_EFFECT = 0.1  # nats on some token: an adapter that changes less than this is no trained adapter
NUM_PROBES = 8


def record_probe(model: Any, tokenizer: Any, rows: list[Encoded], out: Path, max_length: int | None = None) -> None:
    """Save the log-probabilities of up to 8 conversations' answers under adapter "default", beside it.

    Each is cut to `max_length` tokens, the longest that the stage trained on: a longer one takes more memory.
    """
    from safetensors.torch import save_file

    cut = [_cut(row.prompt, row.answer, max_length) for row in rows[:NUM_PROBES]]
    batch = pad(cut, tokenizer.pad_token_id)
    save_file(batch | {"logps": _logps(model, batch, "default")}, out / "probe.safetensors")


def load_probe(artifact: Path) -> dict[str, Any]:
    """What record_probe saved: input_ids, attention_mask, labels and logps. Raises ModelError for a torn file."""
    from safetensors.torch import load_file

    with errors.loading(str(artifact), artifact, errors.of_adapter(artifact)):
        return load_file(artifact / "probe.safetensors")


def prove(model: Any, artifact: Path) -> Metrics:
    """Prove that adapter "ref" of `model` is the one in `artifact`. Raises ReferenceProofError on any doubt."""
    import torch

    from trueup.training.finite import refuse_not_finite

    saved = adapters.tensors_sha256(adapters.saved_tensors(artifact))
    held = adapters.tensors_sha256(adapters.adapter_tensors(model, "ref"))
    if held != saved:
        _fail(artifact, f"the reference's tensors hash to {held[:16]}", f"{saved[:16]}, the hash of the saved adapter")
    probe = load_probe(artifact)
    recorded = probe.pop("logps")
    reference, policy = _logps(model, probe, "ref"), _logps(model, probe, "default")
    bare = _logps(model, probe, None)
    if base.dtype_of(model) == torch.float16:  # else it is not the range of the numbers, and doubt is right
        refuse_not_finite(f"reference proof, {artifact}", "a log-probability", reference + policy, in_fp16=True)
    apart = (reference - recorded).abs()
    drift = apart[probe["labels"][:, 1:] != -100].mean().item()
    effect = (reference - bare).abs().max().item()
    gap = (policy - reference).abs().max().item()
    if not drift <= ROUNDING:  # a NaN fails as well
        _fail(artifact, f"log-probabilities {drift:.4f} nats per token from those recorded", f"at most {ROUNDING}")
    if not effect >= SMALLEST_EFFECT:
        _fail(artifact, f"the reference differs from the bare base by only {effect:.4f} nats", "a trained adapter")
    if not gap <= TOLERANCE:
        _fail(artifact, f"policy and reference differ by {gap:.4f} nats before step 1", f"at most {TOLERANCE}")
    return {
        "reference_sha256": held,
        "mean_abs_logp_drift": drift,
        "max_abs_logp_drift": apart.max().item(),
        "max_abs_logp_effect": effect,
        "max_abs_policy_minus_reference": gap,
    }


def prove_loss(loss: float, expected: float, artifact: Path) -> float:
    """The loss before step 1 at mean weight 1: ln 2 for DPO, 0.5 for KTO. Raises ReferenceProofError otherwise."""
    if not abs(loss - expected) <= 1e-3:
        _fail(artifact, f"loss {loss:.6f} before step 1", f"{expected:.6f}")
    return loss


def _cut(prompt: list[int], answer: list[int], max_length: int | None) -> tuple[list[int], list[int]]:
    """At most `max_length` tokens: the answer loses its last ones, down to half of that, then the prompt its first."""
    if max_length is None:
        return prompt, answer
    answer = answer[: max(max_length - len(prompt), max_length // 2, 1)]
    return prompt[-max(max_length - len(answer), 1) :], answer


def _logps(model: Any, batch: dict[str, Any], name: str | None) -> Tensor:
    """(rows, tokens - 1) in fp32 on the CPU. A row at a time: all at once would take more memory than training did."""
    import torch

    was_training = model.training
    model.eval()
    found = torch.zeros(batch["labels"][:, 1:].shape)
    try:
        with torch.no_grad(), adapters.using(model, name):
            for row, length in enumerate(batch["attention_mask"].sum(1).tolist()):
                one = {key: value[row : row + 1, :length] for key, value in batch.items()}
                found[row, : length - 1] = causal.token_logps(model, one)[0].cpu()
    finally:
        model.train(was_training)
    return found


def _fail(artifact: Path, found: str, expected: str) -> None:
    raise ReferenceProofError(
        f"reference proof, {artifact}",
        found=found,
        expected=expected,
        next_step=f"trueup {artifact.name} RUN.yaml --rebuild",
    )
