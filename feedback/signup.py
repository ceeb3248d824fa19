"""A new account on a Label Studio server, by the organization's invitation link: the free edition has no other way."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import httpx

from trueup.errors import ServerError
from trueup.feedback.connection import Connection

TAKEN = "already exists"  # what the form answers to an e-mail address that another account has


@dataclass(frozen=True)
class Account:
    """The id that its annotations bear, and the connection of its own."""

    id: int
    connection: Connection


def sign_up(admin: Connection, email: str, password: str, name: str) -> Account | None:
    """The new account; None where the e-mail address is taken. Raises ServerError when the server refuses."""
    where = f"{admin.url}, making a login"
    headers = {"Authorization": f"Token {admin.token}"}
    try:
        with httpx.Client(base_url=admin.url, trust_env=False, follow_redirects=True, timeout=30) as browser:
            invitation = _json(browser.get("/api/invite", headers=headers), where)["invite_url"]
            browser.cookies.clear()
            page = browser.get(invitation)
            hidden = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
            form = {"email": email, "password": password, "csrfmiddlewaretoken": hidden.group(1) if hidden else ""}
            answer = browser.post(invitation, data=form, headers={"Referer": str(page.url)})
            if TAKEN in answer.text:
                return None
            known = _json(browser.get("/api/current-user/whoami"), where)
            token = str(_json(browser.get("/api/current-user/token"), where)["token"])
        # the form has no field for a name
        renamed = httpx.patch(
            f"{admin.url}/api/users/{known['id']}/",
            json={"first_name": name},
            headers=headers,
            trust_env=False,
            timeout=30,
        )
        _json(renamed, where)
    except httpx.HTTPError as error:
        raise ServerError(where, found=f"no answer ({type(error).__name__})", next_step="try again") from error
    return Account(int(known["id"]), Connection(admin.url, token))


def _json(answer: httpx.Response, where: str) -> dict[str, Any]:
    try:
        found = answer.json() if answer.status_code < 300 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ServerError(
            where,
            found=f"status {answer.status_code} of {answer.request.url.path}, and no account",
            expected="a Label Studio that lets its admin invite people",
            next_step="read server.log in its folder",
        )
    return found
