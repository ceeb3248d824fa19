"""docs/models.md says what these tests check, of every family that trueup takes."""

from families import CASES
from matrix import PAGE, page

from trueup.models.families import FAMILIES


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python tests/architectures/matrix.py"


def test_every_family_that_is_taken_is_tested() -> None:
    assert {case.model_type for case in CASES if not case.refused} == set(FAMILIES)
