"""The steps of a stage that trains, in the one order that is right; the stages say what, never when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trueup.chat import preflight
from trueup.chat.rows import Prepared
from trueup.chat.template import Encoded
from trueup.models import base
from trueup.run.artifacts import Artifact
from trueup.run.stage import Context, Metrics
from trueup.training import along, common, passes, proof, saving, step_log
from trueup.training.trainers import Weights


def train(
    trainer: Any,
    context: Context,
    *,
    prepared: Prepared | None = None,
    start: Artifact | None = None,
    reference: Artifact | None = None,
    precomputes: bool = False,
    first_loss: float | None = None,
    weighted: bool = False,
    with_entropy: bool = False,
    own_log: bool = False,
    learn: Callable[[Any], Metrics] | None = None,
    measure: Callable[[Any], Metrics] | None = None,
    save: Callable[[Any, Path], None] = common.save_adapter,
    probe: Sequence[Encoded] = (),
    longest: int | None = None,
) -> Metrics:
    """Look at the tokens, make ready, prove the reference, train, measure, save, and record the probe.

    prepared: what the trainer's rows were made of; None where it samples its own, which the stage has looked at.
    start: the adapter that the policy begins as. reference: what adapter "ref" is proven to be, before step 1.
    precomputes: the reference's log-probabilities of the training pairs, once, before step 1.
    first_loss: what the loss must be before step 1, at a mean weight of 1. Both go with a reference.
    weighted: rows have a `weight`. with_entropy: the trainer reads the entropy of each token.
    own_log: the stage writes metrics.jsonl itself; else it gets a row for each step.
    learn: what trains in place of the trainer's own steps. measure: further metrics of the trained model.
    save: writes the adapter into a folder.
    probe: conversations whose log-probabilities a later stage's proof will compare.
    longest: tokens of the longest sequence that is trained on, where the trainer's max_length does not say it.

    Raises PreflightError, ReferenceProofError and StageError; Checked after the tokens, for `trueup preflight`.
    """
    metrics: Metrics = {}
    if prepared is not None:
        metrics["preflight"] = preflight.check(trainer, prepared, context, base.warnings(context.run.model))
    common.make_ready(trainer, start, with_entropy=with_entropy)
    if getattr(getattr(context.run, context.stage, None), "activation_offloading", False):
        saving.install(trainer)
    if weighted:  # after the preflight, which compares what TRL's own collator makes
        trainer.data_collator = Weights(trainer.data_collator)
    trainer.add_callback(along.callback(context))
    if reference is not None:
        proven = metrics["reference_proof"] = proof.prove(trainer.model, reference.path)
        if precomputes:
            passes.precompute_reference(trainer)
        if first_loss is not None:
            proven["first_loss"] = proof.prove_loss(passes.first_loss(trainer), first_loss, reference.path)
    if not own_log:
        trainer.add_callback(step_log.StepLog(context.out / f"metrics{context.part}.jsonl"))
    metrics |= (learn or common.train)(trainer)
    if measure is not None:
        metrics |= measure(trainer)
    longest = longest or getattr(trainer.args, "max_length", None)
    keep(trainer.model, trainer.processing_class, context.out, save=save, probe=probe, longest=longest)
    return metrics


def keep(
    model: Any,
    tokenizer: Any,
    out: Path,
    *,
    save: Callable[[Any, Path], None] = common.save_adapter,
    probe: Sequence[Encoded] = (),
    longest: int | None = None,
) -> None:
    """Save adapter "default", then the log-probabilities of the probe, cut to `longest` tokens, where there is one."""
    save(model, out)
    if probe:
        proof.record_probe(model, tokenizer, list(probe), out, longest)
