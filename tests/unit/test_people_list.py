"""Whose login ends."""

from pathlib import Path

import pytest

from trueup.errors import ServerError
from trueup.feedback import people


def test_a_name_that_is_the_id_of_somebody_else_ends_no_login(tmp_path: Path) -> None:
    known = [
        people.Person(id=2, name="Ann", email="ann@trueup.local", password="", named=False),
        people.Person(id=10, name="2", email="2@trueup.local", password="", named=False),
    ]
    with people._changing(tmp_path) as everybody:
        everybody.extend(known)
    with pytest.raises(ServerError, match="2 people of this name or id: "):
        people.remove(tmp_path, "2")
    assert not any(one.removed for one in people.everybody(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        '{"people": {}}',
        '{"people": [5]}',
        '{"people": [{"id": "2", "name": "Ann", "email": "ann@trueup.local", "password": ""}]}',
        '{"people": [{"id": 2, "name": "Ann", "email": null, "password": ""}]}',
        '{"people": [{"id": 2, "name": "Ann", "email": "ann@trueup.local", "password": "", "named": "yes"}]}',
    ],
)
def test_a_list_that_trueup_did_not_write_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / people.FILE).write_text(text)
    with pytest.raises(ServerError, match="no list of people that can be read"):
        people.everybody(tmp_path)
