"""A sample app of the acceptance tests: one file of plain Python that serves, calls, works and fails as told.

`PROGRAM` is the text that goes into a package; it is a worker where it is given no PORT. Beside it lies
`conduct.json`, which makes each release another one:

    never_ready         its health check answers 503
    exit_at_start       it prints two lines and ends with this status
    crash_on_request    it ends in the middle of every request of a user
    crash_after_s       each instance ends so many seconds after its start, or up to half as many more
    fail_share          this share of users' requests is answered 500, spread as evenly as can be
    slow_s              users' requests take so many seconds longer
    calls               variable with the address that `/both` asks, instead of API_URL
    hang                users' requests are never answered, while its health check is fine

Files in the app's data folder steer instances that run: `die.r2` ends every instance of r2 at once and as
long as it is there, `sick.r2` lets their health check fail. In `journal` there, each instance says when it
starts and stops. Answers carry the release in `X-Release`, and of a call to the api in `X-Api-Release`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

#: A Python that other users may execute too; the one that runs the tests may lie in somebody's home.
PYTHON: Final = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or sys.executable

PROGRAM: Final = '''
import asyncio, base64, hashlib, json, os, random, signal, sys
from pathlib import Path

RELEASE, DATA = os.environ["TIDEGATE_RELEASE"], Path(os.environ["TIDEGATE_DATA"])
SERVICE, NAME = os.environ["TIDEGATE_SERVICE"], os.environ["TIDEGATE_INSTANCE"]
CONDUCT = json.loads(Path("conduct.json").read_text())


def journal(what):
    with open(DATA / "journal", "a") as file:
        file.write(f"{what} {SERVICE} {RELEASE} {NAME} {os.getpid()}\\n")


def stop(*_):
    journal("stopping")
    os._exit(0)


failed = random.random()  # two instances do not fail in step


def fails():
    global failed
    failed += CONDUCT.get("fail_share", 0)
    if failed < 1:
        return False
    failed -= 1
    return True


async def mortal():
    if "crash_after_s" in CONDUCT:
        await asyncio.sleep(CONDUCT["crash_after_s"] * random.uniform(1, 1.5))
        print("Traceback: about to fail after a while", flush=True)
        os._exit(8)
    while True:
        if (DATA / f"die.{RELEASE}").exists():
            print("I was told to die", flush=True)
            os._exit(9)
        await asyncio.sleep(0.05)


async def call(path):
    host, port = os.environ[CONDUCT.get("calls", "API_URL")].removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET {path} HTTP/1.1\\r\\nHost: api\\r\\nConnection: close\\r\\n\\r\\n".encode())
    head, _, body = (await reader.read()).partition(b"\\r\\n\\r\\n")
    writer.close()
    return head.split(b" ")[1].decode(), body.decode()


async def answer(method, path, body):
    if path == "/healthz":
        sick = CONDUCT.get("never_ready") or (DATA / f"sick.{RELEASE}").exists()
        return ("503 Sick" if sick else "200 OK"), {}, {}
    if path == "/nothing":
        return "404 Not Found", {}, {}
    if CONDUCT.get("crash_on_request"):
        print("Traceback: about to fail under traffic", flush=True)
        os._exit(7)
    if CONDUCT.get("hang"):
        await asyncio.Event().wait()
    await asyncio.sleep(CONDUCT.get("slow_s", 0))
    if fails():
        return "500 Failed", {}, {}
    if path == "/env":
        return "200 OK", {}, dict(os.environ)
    if path.startswith("/say/"):
        print(path.removeprefix("/say/"), flush=True)
    if path.startswith("/slow/"):
        await asyncio.sleep(float(path.removeprefix("/slow/")))
    if path == "/both":
        status, text = await call("/")
        if status != "200":
            return "502 Api", {}, {"api": text}
        return "200 OK", {"X-Api-Release": json.loads(text)["release"]}, {"api": json.loads(text)}
    return "200 OK", {}, {}


async def talk(reader, writer, key):
    """A WebSocket, as far as a proxy is concerned: bytes come back until somebody hangs up."""
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    accept = base64.b64encode(digest).decode()
    writer.write(b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n")
    writer.write(f"Sec-WebSocket-Accept: {accept}\\r\\nX-Release: {RELEASE}\\r\\n\\r\\n".encode())
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()


async def pour(writer):
    """A long download: ten pieces a second until somebody hangs up."""
    writer.write(f"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nX-Release: {RELEASE}\\r\\n\\r\\n".encode())
    while True:
        writer.write(b"drop\\n")
        await writer.drain()
        await asyncio.sleep(0.1)


async def serve(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode("latin-1")
            first, *lines = head.split("\\r\\n")
            method, path, _ = first.split(" ")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            if path == "/socket":
                return await talk(reader, writer, headers["sec-websocket-key"])
            if path == "/stream":
                return await pour(writer)
            status, more, said = await answer(method, path, body)
            said = {"release": RELEASE, "service": SERVICE, "instance": NAME, "pid": os.getpid(), **said}
            text = json.dumps(said).encode()
            more = {"X-Release": RELEASE, "Content-Length": len(text), **more}
            head = "".join(f"{name}: {value}\\r\\n" for name, value in more.items())
            writer.write(f"HTTP/1.1 {status}\\r\\n{head}\\r\\n".encode() + text)
            await writer.drain()
            if headers.get("connection", "").lower() == "close":
                return
    except (OSError, EOFError):
        pass
    finally:
        writer.close()


async def main():
    tasks = [asyncio.create_task(mortal())]
    if "PORT" in os.environ:
        server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]))
        print(f"{NAME} listens", flush=True)
        await server.serve_forever()
    while True:
        print(f"{NAME} works", flush=True)
        await asyncio.sleep(0.2)


signal.signal(signal.SIGTERM, stop)
journal("starting")
if "exit_at_start" in CONDUCT:
    print("reading the settings", flush=True)
    print("no such database: shop", file=sys.stderr, flush=True)
    sys.exit(CONDUCT["exit_at_start"])
asyncio.run(main())
'''


def service(name: str, **changes: Any) -> dict[str, Any]:
    """A service of the sample app with short times; `changes`: keys of the manifest, None takes one away."""
    keys: dict[str, Any] = {
        "run": f"{PYTHON} app.py {name}",
        "health": {"path": "/healthz", "interval": "200ms", "deadline": "15s"},
        "drain": "2s",
        "grace": "2s",
    }
    return {key: value for key, value in (keys | changes).items() if value is not None}


def canary(*steps: Any, every: str = "1s") -> dict[str, Any]:
    """The strategy; a step is a share such as `5%`, or a mapping with share and hold."""
    return {"canary": {"steps": list(steps), "every": every}}


#: One step that stands still until somebody says something else.
HELD: Final = canary({"share": "50%", "hold": "manual"})


def text(manifest: dict[str, Any]) -> str:
    """As a file: JSON is YAML."""
    return json.dumps(manifest, indent=1)


def write_package(folder: Path, conduct: dict[str, Any]) -> None:
    """The app's files; another `conduct` is another release."""
    folder.mkdir(exist_ok=True)
    folder.joinpath("app.py").write_text(PROGRAM, "utf-8")
    folder.joinpath("conduct.json").write_text(json.dumps(conduct), "utf-8")
