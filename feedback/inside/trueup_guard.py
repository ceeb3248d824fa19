"""Who is not the administrator may judge, and do nothing else: Label Studio's free edition knows no roles.

Everything that is not allowed here is refused, pages and API alike, so that nothing opens by an update.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import APIException

READ = frozenset(("GET", "HEAD", "OPTIONS"))
WRITE = READ | {"POST"}
CHANGE = READ | {"POST", "PUT", "PATCH", "DELETE"}
# The names that Label Studio gives to its addresses, and what may be asked of each.
ALLOWED = {
    "main": READ,
    "user-login": WRITE,
    "user-signup": WRITE,
    "logout": WRITE,
    "health": READ,
    "version": READ,
    "api-version": READ,
    "feature_flags": READ,
    "heidi_tips": READ,
    "collect_metrics": WRITE,
    "core.utils.static_serve.serve": READ,
    "core.views.serve_file": READ,
    "django.views.generic.base.RedirectView": READ,
    "projects:project-index": READ,
    "projects:api:project-list": READ,
    "projects:api:project-counts-list": READ,
    "projects:api:project-detail": READ,
    "projects:api:project-next": READ,
    "projects:api:label-stream-history": READ,
    "data_manager:project-data": READ,
    "data_manager:dm-columns": READ,
    "data_manager:dm-project": READ,
    "data_manager:dm-actions": WRITE,
    "data_manager:api:view-list": READ,
    "data_manager:api:view-detail": READ,
    "tasks:api:task-detail": READ,
    "tasks:api:task-annotations": WRITE,
    "tasks:api:task-drafts": WRITE,
    "tasks:api:task-annotations-drafts": WRITE,
    "tasks:api-annotations:annotation-detail": CHANGE,
    "tasks:api-drafts:draft-detail": CHANGE,
    "current-user-token": READ,
    "current-user-whoami": READ,
    "current-user-hotkeys": READ,
    "product-tour": WRITE,
    "user-detail": READ,
    "user-avatar": READ,
    "session_policy:session-policy": READ,
}
OWN = {"annotation-detail": ("Annotation", "completed_by_id"), "draft-detail": ("AnnotationDraft", "user_id")}
PAGE_PART = Path(__file__).with_name("annotators.html").read_text(encoding="utf-8")
NEXT_TASK = "next_task"  # the one action that labelling needs
JUDGING = "judging, and nothing else, is open to this login; the rest is the administrator's"
Answer = Callable[[HttpRequest], HttpResponse]


class Guard:
    """Django middleware, the last one: who asks is known by then."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.answer(request)
        if getattr(request, "trueup_judges_only", False) and "text/html" in response.get("content-type", ""):
            part = PAGE_PART.replace("NONCE", str(getattr(request, "csp_nonce", "")))
            response.content = response.content.replace(b"</head>", part.encode() + b"</head>", 1)
        if request.is_secure():  # a cookie that came over TLS is never sent without it
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: dict[str, Any]) -> HttpResponse | None:
        user = _who(request, view)
        if user is None or user.is_superuser:
            return None
        request.trueup_judges_only = True
        if _may(request, user, kwargs):
            return None
        if request.path_info.startswith("/api/") or request.method not in READ:
            return JsonResponse({"detail": JUDGING}, status=403)
        project = re.match(r"/projects/(\d+)/", request.path_info)
        return HttpResponseRedirect(f"/projects/{project.group(1)}/data?labeling=1" if project else "/projects/")


def _who(request: HttpRequest, view: Any) -> Any:
    """Whose login a request bears, in any of the ways that its view knows; None of a stranger."""
    kinds = getattr(getattr(view, "cls", None), "authentication_classes", ())
    for kind in kinds:
        if not issubclass(kind, SessionAuthentication):
            try:
                found = kind().authenticate(request)
            except APIException:  # a token that is refused: the view says so
                continue
            if found is not None:
                return found[0]
    return request.user if request.user.is_authenticated else None


def _may(request: HttpRequest, user: Any, kwargs: dict[str, Any]) -> bool:
    match = request.resolver_match
    name = match.view_name if match else ""
    if request.method not in ALLOWED.get(name, ()):
        return False
    if name == "data_manager:dm-actions" and request.method == "POST":
        return bool(request.GET.get("id") == NEXT_TASK)
    if name == "data_manager:project-data":
        return bool(request.GET.get("labeling") == "1")
    if name == "user-detail":
        return bool(str(kwargs.get("pk")) == str(user.pk))
    if request.method in READ:
        return True
    return _of_own(name, user, kwargs) and _claims(request) <= {str(user.pk)}


def _of_own(name: str, user: Any, kwargs: dict[str, Any]) -> bool:
    from tasks import models

    model, owner = OWN.get(name.rpartition(":")[2], ("", ""))
    return not model or bool(getattr(models, model).objects.filter(pk=kwargs.get("pk"), **{owner: user.pk}).exists())


def _claims(request: HttpRequest) -> set[str]:
    """Whose judgement the body says this is."""
    found = [request.POST.get("completed_by"), request.GET.get("completed_by")]
    try:
        body = json.loads(request.body or b"null")
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        found += [body.get("completed_by")]
    return {str(one) for one in found if one is not None}
