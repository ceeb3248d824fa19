"""Every run file for a GPU is planned for the memory it names, and dry-run on such a GPU, emulated."""

from pathlib import Path

import emulated
import pytest

from trueup.models.families import BEYOND_FP16
from trueup.planning import devices, shapes, table
from trueup.run.pipeline import Pipeline
from trueup.run.run_file import load
from trueup.stages import STAGES

CONFIGS = Path(__file__).parents[2] / "configs"
CAPABILITY = {"t4": (7, 5), "24gb": (8, 6), "80gb": (8, 0)}
FILES = {card: sorted(path.name for path in CONFIGS.glob(f"*-{card}.yaml")) for card in CAPABILITY}


@pytest.mark.parametrize(("card", "file"), [(card, file) for card, files in FILES.items() for file in files])
def test_it_is_planned_to_fit(card: str, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(base: str) -> object:
        raise OSError("no network")

    monkeypatch.setattr(shapes, "_from_hub", unreachable)
    run = load(CONFIGS / file, {stage.name: stage.config for stage in STAGES})
    made = table.make(Pipeline(run, STAGES), devices.GPUS[card])
    assert [line.stage for line in made.lines if not line.fits] == []
    assert made.shape_from == "our table, the hub did not answer"


def test_each_card_has_some() -> None:
    assert [len(files) for files in FILES.values()] == [3, 2, 2]


AS_ANOTHER = "qwen2.5-1.5b-t4.yaml"  # has the settings of the 0.5b but for the length of answers


@emulated.needs_compiler
@pytest.mark.parametrize(
    ("cards", "left_out"),
    [
        (("t4",), {AS_ANOTHER}),
        pytest.param(("t4",), set(), marks=pytest.mark.slow),
        pytest.param(("24gb", "80gb"), set(), marks=pytest.mark.slow),
    ],
)
def test_it_runs_on_such_a_gpu(cards: tuple[str, ...], left_out: set[str], tmp_path: Path) -> None:
    files = [file for card in cards for file in FILES[card] if file not in left_out]
    found = emulated.run("configs.py", folder=str(tmp_path), capability=CAPABILITY[cards[0]], files=files)
    assert list(found) == files
    for file, one in found.items():
        assert one["ran"][-1] in ("dpo", "ppo"), file
        assert one["device"] != "cpu"
        if cards == ("t4",):  # no bf16 there: what leaves the range of fp16 computes in fp32
            assert one["dtype"] == ("float32" if one["family"] in BEYOND_FP16 else "float16"), file
        else:
            assert one["dtype"] == "bfloat16"
