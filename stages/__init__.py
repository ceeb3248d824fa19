"""The stages of a run, in order."""

from trueup.stages import dpo, evaluate, export, kto, reward, sample, sft

from trueup.stage import Stage

STAGES: tuple[Stage, ...] = (
    sft.STAGE,
    sample.STAGE,
    reward.STAGE,
    dpo.STAGE,
    kto.STAGE,
    evaluate.STAGE,
    export.STAGE,
)
