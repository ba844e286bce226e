"""A real HTTP server on loopback that behaves as badly as its script says, and a judge that asks it."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tasks.kick.judge import Case
from tasks.kick.judge.api import ApiJudge


def completion(text):
    """The JSON of a chat completion that says the text."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def ratings(first=7, second=5, aspects=("overall",)):
    """What a well-behaved judge says."""
    return json.dumps({"answer_1": dict.fromkeys(aspects, first), "answer_2": dict.fromkeys(aspects, second)})


class Server:
    """script(number, body) -> a step: text, ("status", code), "half", "silent", "drip" or ("raw", bytes)."""

    def __init__(self, script):
        self.script, self.bodies, self.keys = script, [], []
        self.lock, self.gone = threading.Lock(), threading.Event()

    def answer(self, handler):
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            number = len(self.bodies)
            self.bodies.append(body)
            self.keys.append(handler.headers["Authorization"])
        step = self.script(number, body)
        kind, *more = step if isinstance(step, tuple) else (step,)
        getattr(self, f"_{kind}", self._say)(handler, *(more or [kind]))

    def _say(self, handler, text):
        self._send(handler, json.dumps(completion(text)).encode())

    def _raw(self, handler, data):
        self._send(handler, data)

    def _status(self, handler, code):
        self._send(
            handler, b'{"error": {"message": "no, for the key sk-secret"}}', code, {"Retry-After": "0"}
        )

    def _bare(self, handler, code):
        self._send(handler, b"", code, {"Retry-After": "0"})

    def _slow(self, handler, text):
        self.gone.wait(0.3)
        self._say(handler, text)

    def _silent(self, handler, _):
        self.gone.wait(20)

    def _half(self, handler, _):
        data = json.dumps(completion(ratings())).encode()
        self._head(handler, len(data), 200, {})
        handler.wfile.write(data[: len(data) // 2])
        handler.wfile.flush()
        handler.connection.shutdown(socket.SHUT_RDWR)

    def _drip(self, handler, _):
        self._head(handler, 1000, 200, {})
        while not self.gone.is_set():
            handler.wfile.write(b" ")
            time.sleep(0.05)

    def _head(self, handler, length, code, headers):
        handler.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": length, **headers}.items():
            handler.send_header(name, str(value))
        handler.end_headers()

    def _send(self, handler, data, code=200, headers=None):
        self._head(handler, len(data), code, headers or {})
        handler.wfile.write(data)


@contextmanager
def serving(script):
    """The server, running; `url` is where."""
    server = Server(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            try:
                server.answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *args):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads, http.block_on_close = True, False
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
    try:
        yield server
    finally:
        server.gone.set()
        http.shutdown()
        http.server_close()


def cases(count=3, kind="chat"):
    return [
        Case(f"q{i}", kind, f"Question {i}?", (f"reference {i}",), (f"answer {i}",)) for i in range(count)
    ]


def judge(server, folder, **more):
    options = {"timeout": 5.0, "deadline": 30.0, "retries": 3, "folder": str(folder)} | more
    return ApiJudge(model="m-1", base_url=server.url, key_env="JUDGE_KEY", **options)


def asked(judge, given):
    return list(judge.judge(given, None, None))
