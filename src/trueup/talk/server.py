"""An OpenAI-compatible server of a run's models; what people say of the answers goes into the run's store."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from trueup.errors import ModelError, TrueupError
from trueup.feedback.use import Use
from trueup.talk.answers import Answer, How, Prompt, num_sampled_tokens
from trueup.talk.asked import Asked, BadRequest, Said, decoded, messages_of, read
from trueup.talk.best import number_asked
from trueup.talk.desk import Desk
from trueup.talk.guard import Guard
from trueup.talk.replies import Reply, event
from trueup.talk.roster import Model
from trueup.talk.said import judgements
from trueup.talk.speaker import Speaker, drawn_seed

MOST_KEPT = 1000  # answers in memory that may still be judged
BODY_LIMIT_S = 30  # for a client to send its body
Log = Callable[[str], None]
Fault = Callable[[Exception], None]


class Stream(StreamingResponse):  # type: ignore[misc]
    """A stream whose generator is closed at once when the client has gone, so that sampling ends."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self.body_iterator.aclose()


class Server:
    """The handlers, with what they share: the models, the queue before them, and the latest answers."""

    def __init__(self, speaker: Speaker, use: Use, defaults: How, log: Log, fault: Fault, *, best_of: int = 0) -> None:
        """`defaults` and `best_of` (0 is off) hold where a request does not say how to sample. `log` takes lines
        without any text of users; `fault` keeps an exception that is a fault of ours."""
        self.speaker, self.use, self.defaults, self.log, self.fault = speaker, use, defaults, log, fault
        self.best_of = best_of
        self.desk = Desk()
        self.session = secrets.token_hex(3)
        self.latest: OrderedDict[str, tuple[list[Answer], str | None]] = OrderedDict()  # by id: answers, their user

    async def models(self, request: Request) -> Response:
        known = self.speaker.roster.models
        return JSONResponse({"object": "list", "data": [_described(name, model) for name, model in known.items()]})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        return JSONResponse(_described(name, self._find(name)))

    async def complete(self, request: Request) -> Response:
        began = time.monotonic()
        asked = read(Asked, decoded(await _body(request)))
        model, messages = self._find(asked.model), messages_of(asked)
        temperature = self.defaults.temperature if asked.temperature is None else asked.temperature
        best_of = number_asked(asked, self.best_of, temperature, self.speaker.roster)
        try:
            prompt = await asyncio.to_thread(self.speaker.prompt, messages)
            most = asked.most_tokens or self.defaults.max_tokens
            most = self.speaker.room(prompt, most, exactly=asked.most_tokens is not None)
        except TrueupError as error:
            code = "context_length_exceeded" if "context" in error.expected else None
            raise BadRequest(str(error), param="messages", code=code) from None
        how = How(
            temperature=temperature,
            top_p=self.defaults.top_p if asked.top_p is None else asked.top_p,
            max_tokens=most,
            seed=drawn_seed() if asked.seed is None else asked.seed,
            stops=asked.stops,
        )
        number = asked.n or 1
        chosen = {"n": best_of, "by": self.speaker.roster.chooses().name} if best_of else None
        reply = Reply(f"chatcmpl-{secrets.token_hex(12)}", asked.model, model.fingerprint, prompt, how, chosen)
        found = self._answers(model, prompt, how, number, best_of)

        def done(answers: list[Answer]) -> None:
            self.latest[reply.id] = (answers, asked.user)
            while len(self.latest) > MOST_KEPT:
                self.latest.popitem(last=False)
            tokens, best = num_sampled_tokens(answers), f", best of {best_of}" if best_of else ""
            self.log(f"{reply.id} {model.name}{best}: {tokens} tokens in {time.monotonic() - began:.1f} s")

        if asked.stream:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            events = self._events(found, reply, number, done, with_usage=usage)
            return Stream(events, media_type="text/event-stream", headers={"cache-control": "no-store"})
        answers = await _unless_gone(request, found)
        done(answers)
        return JSONResponse(reply.whole(answers))

    async def feedback(self, request: Request) -> Response:
        said = read(Said, decoded(await _body(request)))
        kept = self.latest.get(said.completion_id)
        if kept is None or said.choice >= len(kept[0]):
            what = f"choice {said.choice} of it" if kept else "completion"
            raise BadRequest(
                f"no such {what}: the latest {MOST_KEPT:,} completions since this server started can be judged",
                status=404,
                param="choice" if kept else "completion_id",
                code="completion_not_found",
            )
        answer, user = kept[0][said.choice], kept[1]
        row = answer.row()
        found = judgements(said, row["uid"], said.who or user, self.session)
        await asyncio.to_thread(self.use.add, found, [row])
        self.log(f"{said.completion_id} was judged: {', '.join(one.kind for one in found)}")
        return JSONResponse(
            {
                "object": "feedback",
                "completion_id": said.completion_id,
                "model": answer.model.name,
                "who": found[0].annotator,
                "judgements": [one.kind for one in found],
                "next": "the run's next `trueup collect` takes it in",
            }
        )

    def _find(self, name: str) -> Model:
        try:
            return self.speaker.roster.find(name)
        except ModelError as error:
            message = f"{error.found}; {error.expected}"
            raise BadRequest(message, status=404, param="model", code="model_not_found") from None

    async def _answers(
        self, model: Model, prompt: Prompt, how: How, number: int, best_of: int
    ) -> AsyncIterator[tuple[int, str] | list[Answer]]:
        """Pieces of text as they come, and at last the answers. With `best_of`, each choice is one piece."""

        def work(heard: Callable[[int, str], None], gone: Callable[[], bool]) -> list[Answer]:
            if not best_of:
                return self.speaker.answer(model, prompt, how, number=number, heard=heard, gone=gone)
            every = self.speaker.answer(model, prompt, how, number=best_of, gone=gone)
            best = self.speaker.choose(every, number)
            for which, answer in enumerate(best):
                heard(which, answer.text)
            return best

        async with aclosing(self.desk.do(work)) as told:  # type: ignore[type-var]
            async for one in told:
                yield one

    async def _events(
        self, found: Any, reply: Reply, number: int, done: Callable[[list[Answer]], None], *, with_usage: bool
    ) -> AsyncIterator[bytes]:
        async with aclosing(found):
            for one in reply.begin(number):
                yield one
            try:
                async for told in found:
                    if isinstance(told, tuple):
                        yield reply.piece(*told)
                        continue
                    done(told)
                    for one in reply.end(told, with_usage=with_usage):
                        yield one
            except Exception as error:  # the status was sent already
                yield event(self.refusal(error).body())

    def refusal(self, error: Exception) -> BadRequest:
        """What a client is told of an exception; a fault of ours is kept, and told without its words."""
        if isinstance(error, BadRequest):
            return error
        if isinstance(error, TrueupError):
            status = 400 if error.where == "who" else 500
            return BadRequest(str(error), status=status, param="who" if error.where == "who" else None)
        if isinstance(error, HTTPException):
            return BadRequest(str(error.detail), status=error.status_code)
        self.fault(error)
        return BadRequest(f"a fault of the server ({type(error).__name__})", status=500, code="internal_error")


def app(server: Server, *, key: str | None, loopback: bool) -> Starlette:
    """The server as an ASGI application."""

    async def refuse(request: Request, error: Exception) -> Response:
        refused = server.refusal(error)
        return JSONResponse(refused.body(), status_code=refused.status)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        server.desk.close()

    def handled(handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def safely(request: Request) -> Response:
            try:
                found: Response = await handler(request)
            except ClientDisconnect:
                return Response(status_code=499)  # nobody reads it
            except Exception as error:
                return await refuse(request, error)
            return found

        return safely

    return Starlette(
        routes=[
            Route("/v1/models", handled(server.models)),
            Route("/v1/models/{name:path}", handled(server.model)),
            Route("/v1/chat/completions", handled(server.complete), methods=["POST"]),
            Route("/v1/feedback", handled(server.feedback), methods=["POST"]),
        ],
        middleware=[Middleware(Guard, key=key, loopback=loopback)],
        exception_handlers={HTTPException: refuse},
        lifespan=lifespan,
    )


async def _body(request: Request) -> bytes:
    try:
        return await asyncio.wait_for(request.body(), BODY_LIMIT_S)
    except TimeoutError:
        raise BadRequest(f"the body did not come within {BODY_LIMIT_S} s", status=408) from None


async def _unless_gone(request: Request, found: Any) -> list[Answer]:
    """The answers, unless the client goes away: raises ClientDisconnect then, and sampling ends."""

    async def last() -> list[Answer]:
        async with aclosing(found):
            async for told in found:
                if isinstance(told, list):
                    return told
        raise RuntimeError("no answers")

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answers, disconnect = asyncio.ensure_future(last()), asyncio.ensure_future(left())
    try:
        await asyncio.wait({answers, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not answers.done():
            raise ClientDisconnect
        return answers.result()
    finally:
        for task in (answers, disconnect):
            task.cancel()
        await asyncio.gather(answers, disconnect, return_exceptions=True)


def _described(name: str, model: Model) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": model.made_at, "owned_by": "trueup", "root": model.name}
