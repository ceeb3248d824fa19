"""Stages of a tiny run on the emulated device, built whole, and built again with a kill in the middle.

Takes `folder`, `capability` and `stages` (some of STAGES). Reports of each stage how many steps were done when it went
on, and whether the two adapters are equal bit for bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emulated
import pretend

STAGES = {"sft": 4, "dpo": 3, "ppo": 1}  # and after how many steps each is killed


class Killed(BaseException):
    """What no stage catches."""


def arm(kill_after: list[int]) -> None:
    """While `kill_after` holds a number, a trainer ends after so many steps, and PPO at its first checkpoint."""
    import transformers.trainer

    from trueup.online.ppo import state

    class Dies(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **unused: Any) -> None:
            if state.global_step in kill_after:
                raise Killed

    def dying(usual: Callable[..., None]) -> Callable[..., None]:
        def save(*args: Any, **kwargs: Any) -> None:
            usual(*args, **kwargs)
            if kill_after:
                raise Killed

        return save

    transformers.trainer.DEFAULT_CALLBACKS.append(Dies)
    state.save = dying(state.save)


def main() -> None:
    given = emulated.given()
    folder = Path(given["folder"])
    pretend.install(tuple(given["capability"]))
    import chain
    import torch
    from safetensors.torch import load_file
    from tiny import open_run

    whole, cut = folder / "whole", folder / "cut"
    chain.make(whole)
    found: dict[str, Any] = {}
    kill_after: list[int] = []
    arm(kill_after)
    for stage in given["stages"]:
        steps = STAGES[stage]
        shutil.copytree(whole, cut)
        open_run(whole).execute(stage)
        kill_after.append(steps)
        try:
            open_run(cut).execute(stage)
        except Killed:
            kill_after.clear()
        pipeline = open_run(cut)
        pipeline.execute(stage)
        first, second = (load_file(open_run(f).path(stage) / "adapter_model.safetensors") for f in (whole, cut))
        found[stage] = {
            "killed": not kill_after,
            "resumed_from_step": chain.metrics(pipeline, stage)["resumed_from_step"],
            "equal": first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first),
        }
        shutil.rmtree(cut)
        if stage == "sft" and len(given["stages"]) > 1:
            for other in ("sample", "collect", "reward"):
                open_run(whole).execute(other)
    emulated.report(found)


if __name__ == "__main__":
    main()
