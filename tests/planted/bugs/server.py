"""Bugs of Label Studio and what is kept secret."""

from __future__ import annotations

from .bug import Bug

JUDGEMENTS = "tests/wiring/test_judgements.py"

BUGS = [
    Bug(
        "the admin's password printed",
        "server",
        "src/trueup/cli/labelstudio.py",
        "password in {data_dir / 'credentials.json'}",
        "password {known['password']}",
        (JUDGEMENTS + "::test_the_last_word_of_a_person_counts_and_no_secret_is_said",),
    ),
    Bug(
        "the token in what waiting says",
        "server",
        "feedback/project.py",
        'address = f"{self.client.url}/projects/',
        "address = f\"{self.client.url}?token={server.credentials(self.settings.data_dir)['token']}/projects/",
        (JUDGEMENTS + "::test_the_last_word_of_a_person_counts_and_no_secret_is_said",),
    ),
    Bug(
        "our token sent to another server",
        "server",
        "feedback/connection.py",
        'known.get("token") and is_ours(data_dir, address):',
        'known.get("token"):',
        ("tests/unit/test_server.py::test_our_token_goes_to_our_server_only",),
    ),
    Bug(
        "credentials that others can read",
        "server",
        "feedback/server.py",
        "os.O_EXCL, 0o600)",
        "os.O_EXCL, 0o644)",
        ("tests/e2e/test_label_studio.py::test_the_token_works_without_a_click_and_stays_private",),
    ),
    Bug(
        "reads asked once only",
        "server",
        "feedback/api.py",
        "attempts=ATTEMPTS, wait_initial",
        "attempts=1, wait_initial",
        ("tests/unit/test_api.py::test_the_pauses_grow_and_end_within_seconds",),
    ),
    Bug(
        "tasks that moved between two pages are missed",
        "server",
        "feedback/listing.py",
        "if len(totals) == 1 and",
        "if",
        ("tests/unit/test_api.py::test_a_task_that_moves_while_pages_are_read_is_found",),
    ),
    Bug(
        "the texts of a project kept in memory",
        "server",
        "feedback/seen.py",
        'Seen(task.get("id"),',
        "Seen(task,",
        ("tests/unit/test_watch.py::test_what_is_kept_of_a_task_is_less_than_its_answer",),
    ),
    Bug(
        "a person who judged twice counted as two",
        "server",
        "feedback/giving.py",
        "wanted = task.num_submitted + missing[task.uid]",
        "wanted = self._people[task.uid]",
        ("tests/e2e/test_people.py::test_what_one_person_judged_twice_or_without_a_verdict_is_given_to_another",),
    ),
    Bug(
        "a project made twice when the answer is lost",
        "server",
        "feedback/client.py",
        "attempt.num > 1 and",
        "attempt.num > 9 and",
        ("tests/e2e/test_network_faults.py::test_each_request_that_writes_is_done_once_though_its_answer_is_lost",),
    ),
    Bug(
        "annotators may do what the administrator may",
        "server",
        "feedback/inside/trueup_guard.py",
        "user.is_superuser",
        "user.is_active",
        ("tests/e2e/test_annotators.py::test_nothing_of_the_projects_is_changed_deleted_or_exported",),
    ),
    Bug(
        "a judgement in somebody else's name",
        "server",
        "feedback/inside/trueup_guard.py",
        "or _claims(request) <=",
        "or True or _claims(request) <=",
        ("tests/e2e/test_annotators.py::test_nothing_of_the_projects_is_changed_deleted_or_exported",),
    ),
    Bug(
        "other people's judgements in a task",
        "server",
        "feedback/inside/trueup_guard.py",
        "if _maker(one) == user",
        "if _maker(one)",
        ("tests/e2e/test_annotators.py::test_nobody_sees_how_others_judged",),
    ),
    Bug(
        "a password in the database's address is kept",
        "server",
        "feedback/database.py",
        "or parts.password is not None or",
        "or",
        ("tests/e2e/test_postgresql.py::test_what_is_no_database_is_refused_and_a_password_not_repeated",),
    ),
]
