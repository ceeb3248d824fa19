"""How many people `lineage` says gave judgements."""

from trueup.run.lineage import Member, described


def said(*names: str) -> str:
    return described([Member("round-1/collect", "f" * 64, (), (), dict.fromkeys(names, 1))])[0]


def test_people_whom_a_file_does_not_name_are_not_counted() -> None:
    assert said("unnamed 1.0", "unnamed 2.0").endswith("2 judgements of people whom the file does not name")
    assert said("7", "unnamed 2.0").endswith("2 judgements of 1 annotator and people whom the file does not name")
    assert said("7", "8").endswith("2 judgements of 2 annotators")
