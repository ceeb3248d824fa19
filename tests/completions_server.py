"""A real local HTTP server that completes chats as OpenAI's reference describes it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = Callable[[dict[str, Any]], tuple[int, Any]]


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, *args: Any) -> None:
        """A client that no longer waited."""


class Server:
    """A chat completion server as OpenAI's reference describes it; `reply` makes (status, body) of a request's body."""

    def __init__(self, reply: Reply) -> None:
        asked: list[tuple[str, str, dict[str, Any]]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                asked.append((self.path, self.headers.get("authorization", ""), body))
                status, answer = reply(body)
                written = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("location", "http://127.0.0.1:9/")
                self.send_header("content-length", str(len(written)))
                self.end_headers()
                self.wfile.write(written)

            def log_message(self, *args: Any) -> None:
                pass

        self.asked = asked
        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def completion(text: str | None, refusal: str | None = None, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """(answer A, answer B) as the request shows them."""
    text = body["messages"][1]["content"]
    a, b = (text.split(f"<answer {x}>\n")[1].split(f"\n</answer {x}>")[0] for x in "AB")
    return a, b
