"""The stages of a run, in order."""

from trueup.run.stage import Stage
from trueup.stages import collect, dpo, evaluate, export, grpo, kto, ppo, reward, sample, sft

STAGES: tuple[Stage, ...] = (
    sft.STAGE,
    sample.STAGE,
    collect.STAGE,
    reward.STAGE,
    dpo.STAGE,
    kto.STAGE,
    ppo.STAGE,
    grpo.STAGE,
    evaluate.STAGE,
    export.STAGE,
)
