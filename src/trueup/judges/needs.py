"""What the judge of a run file is made of, looked at before anything runs; torch is imported for functions alone."""

from __future__ import annotations

from pathlib import Path

from trueup.errors import ConfigError
from trueup.judges.settings import JudgeSettings
from trueup.run.address import has_password


def refuse(config: JudgeSettings, folder: Path) -> None:
    """Raises ConfigError where the judge of `evaluate` lacks something, or its address has a password."""
    lacks = {"function": ["judge_functions"], "endpoint": ["judge_url", "judge_model"]}
    if missing := [f"evaluate.{name}" for name in lacks.get(config.judge, []) if not getattr(config, name)]:
        raise ConfigError(
            "evaluate.judge",
            found=f"{config.judge}, and no {' and no '.join(missing)}",
            next_step=f"set {' and '.join(missing)}, or another evaluate.judge",
        )
    if config.judge_url is not None and has_password(config.judge_url):
        raise ConfigError(
            "evaluate.judge_url",
            found="a name or a password in the address, which records would keep",
            expected="an address without them",
            next_step="take them out, and set TRUEUP_JUDGE_API_KEY where the endpoint needs a key",
        )
    if config.judge_functions:
        from trueup.online import rewards
    for name in config.judge_functions:
        rewards.of_function(name, folder, "evaluate.judge_functions")
