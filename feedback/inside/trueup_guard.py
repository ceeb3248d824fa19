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
ADD = frozenset(("POST",))
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
    "data_manager:api:view-list": WRITE,  # whoever is the first to judge makes the project's first tab
    "data_manager:api:view-detail": READ,
    "ml:api:ml-list": READ,  # which the labelling page asks for, and stops at a refusal
    "labels_manager:api-labels:label_link-list": READ,
    "tasks:api:task-list": READ,
    "tasks:api:task-detail": READ,
    "tasks:api:task-annotations": ADD,
    "tasks:api:task-drafts": ADD,
    "tasks:api:task-annotations-drafts": ADD,
    "tasks:api-annotations:annotation-detail": CHANGE,
    "tasks:api-annotations:annotation-convert-to-draft": ADD,
    "tasks:api-drafts:draft-detail": CHANGE,
    "current-user-token": READ,
    "current-user-whoami": READ,
    "current-user-hotkeys": READ,
    "product-tour": WRITE,
    "user-list": READ,
    "user-detail": READ,
    "user-avatar": READ,
    "session_policy:session-policy": READ,
}
SHOW_TASKS = ("tasks:api:task-list", "tasks:api:task-detail", "projects:api:project-next", "data_manager:dm-actions")
OF_OTHERS = ("annotators", "annotations_results", "annotations_ids", "updated_by")  # in tasks; drafts are one's own
OWN = {
    "annotation-detail": ("Annotation", "completed_by_id"),
    "annotation-convert-to-draft": ("Annotation", "completed_by_id"),
    "draft-detail": ("AnnotationDraft", "user_id"),
}
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
        if (judge := getattr(request, "trueup_judge", None)) is not None and not response.streaming:
            if "text/html" in response.get("content-type", ""):
                part = PAGE_PART.replace("NONCE", str(getattr(request, "csp_nonce", "")))
                response.content = response.content.replace(b"</head>", part.encode() + b"</head>", 1)
            elif request.resolver_match and request.resolver_match.view_name in (*SHOW_TASKS, "user-list"):
                response.content = _without_others(response.content, judge.pk)
        return response

    def process_view(self, request: HttpRequest, view: Any, args: Any, kwargs: dict[str, Any]) -> HttpResponse | None:
        user = _who(request, view)
        if user is None or user.is_superuser:
            return None
        request.trueup_judge = user
        if _may(request, user, kwargs):
            return None
        if request.path_info.startswith("/api/") or request.method not in READ:
            return JsonResponse({"detail": JUDGING}, status=403)
        project = re.match(r"/projects/(\d+)/", request.path_info)
        return HttpResponseRedirect(f"/projects/{project.group(1)}/data?labeling=1" if project else "/projects/")


class SecureCookies:
    """Django middleware, the first one: a cookie that came over TLS is never sent without it."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.answer(request)
        if request.is_secure():
            for cookie in response.cookies.values():
                cookie["secure"] = True
        return response


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
    return _of_own(name, user, kwargs) and (request.method in READ or _claims(request) <= {str(user.pk)})


def _of_own(name: str, user: Any, kwargs: dict[str, Any]) -> bool:
    from tasks import models

    model, owner = OWN.get(name.rpartition(":")[2], ("", ""))
    return not model or bool(getattr(models, model).objects.filter(pk=kwargs.get("pk"), **{owner: user.pk}).exists())


def _without_others(content: bytes, user: int) -> bytes:
    """An answer without other people, and without how they judged: nobody is swayed by another."""
    found = json.loads(content or b"null")
    if isinstance(found, list):  # of accounts
        found = [one for one in found if one.get("id") == user]
    elif isinstance(found, dict):  # a task, or several on a page
        for task in (found, *found.get("tasks", ())):
            task |= {name: type(task[name])() for name in OF_OTHERS if isinstance(task.get(name), list | str)}
            if "annotations" in task:
                task["annotations"] = [one for one in task["annotations"] or () if _maker(one) == user]
    return json.dumps(found).encode()


def _maker(annotation: dict[str, Any]) -> Any:
    who = annotation.get("completed_by")
    return who.get("id") if isinstance(who, dict) else who


def _claims(request: HttpRequest) -> set[str]:
    """Whose judgement the body says this is."""
    found = [request.POST.get("completed_by"), request.GET.get("completed_by")]
    try:
        body = json.loads(request.body or b"null")
    except (ValueError, RecursionError):  # a form; or JSON in letters that the view may read, and this does not
        body = {"completed_by": "nobody knows"} if "json" in (request.content_type or "") else None
    if isinstance(body, dict):
        found += [body.get("completed_by")]
    return {str(one) for one in found if one is not None}
