"""A W&B server on a bad day, over real HTTP."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = ("refusing", "silent", "failing", "falls silent")

PROJECT = {"id": "p", "name": "p", "entity": {"id": "e", "name": "e"}}
RUN = {"id": "r", "name": "r", "displayName": "r", "historyLineCount": 0, "config": "{}", "project": PROJECT}
ANSWERS = {  # all that a run needs in order to begin
    "RunResumeStatus": {"model": PROJECT | {"bucket": None}},
    "UpsertBucket": {"upsertBucket": {"bucket": RUN, "inserted": True}},
}


@contextmanager
def wandb_server(kind: str) -> Iterator[str]:
    """Its address. One that falls silent does so once a run has begun."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        begun = False

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            answer = None
            if kind == "falls silent" and not Handler.begun and self.path == "/graphql":
                name = json.loads(body)["operationName"]
                answer, Handler.begun = ANSWERS.get(name, {}), name == "UpsertBucket"
            if answer is None and kind != "failing":
                over.wait()
            self.send_response(500 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": answer}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}"
    if kind == "refusing":
        server.server_close()
        yield address
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield address
    finally:
        over.set()
        server.shutdown()
        server.server_close()
