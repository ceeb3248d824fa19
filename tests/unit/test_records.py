"""Which records a round is told of, and in which order."""

import os
import random
from pathlib import Path

from trueup.run.artifacts import ORDER, records, write_json
from trueup.stages import STAGES

FOLDERS = [
    "sft",
    *(f"round-{n}/{stage}" for n in (1, 2, 3) for stage in ("sample", "collect", "dpo", "evaluate", "export")),
]


def made(run_dir: Path) -> None:
    """Three rounds, as a copy leaves them: in an order of time that says nothing."""
    for time, folder in enumerate(random.Random(0).sample(FOLDERS, len(FOLDERS))):
        (run_dir / folder).mkdir(parents=True)
        write_json(run_dir / folder / "record.json", {"stage": folder.rpartition("/")[2], "of": folder})
        os.utime(run_dir / folder / "record.json", (time, time))


def test_the_order_is_that_of_the_pipeline() -> None:
    assert [stage.name for stage in STAGES] == list(ORDER)


def test_records_come_by_round_and_stage_up_to_the_one_that_asks(tmp_path: Path) -> None:
    made(tmp_path)
    for aside in ("export.old-1", "dpo.partial"):
        (tmp_path / "round-2" / aside).mkdir()
        write_json(tmp_path / "round-2" / aside / "record.json", {"stage": "aside", "of": aside})
    found = [record["of"] for record in records(tmp_path, 2, before="export")]
    assert found == FOLDERS[: FOLDERS.index("round-2/export")]
    assert [record["of"] for record in records(tmp_path, 1, before="evaluate")] == FOLDERS[:4]


def test_a_lineage_lists_no_export(tmp_path: Path) -> None:
    """Neither the one of an earlier round nor the one that is being replaced."""
    from trueup.run.run_file import load
    from trueup.run.stage import Context
    from trueup.stages import export

    (tmp_path / "run.yaml").write_text("name: x\nround: 2\n")
    run_dir = tmp_path / "runs" / "x"
    made(run_dir)
    run = load(tmp_path / "run.yaml", {stage.name: stage.config for stage in STAGES})
    context = Context(run=run, run_dir=run_dir, out=run_dir / "round-2" / "export.partial")
    found = [record["of"] for record in export.lineage(context)]
    assert found == [folder for folder in FOLDERS[: FOLDERS.index("round-2/export")] if "export" not in folder]
