"""HAProxy as Tidegate configures it, the rivals, and the server behind them all.

Hides configurations. Every proxy has one thread, no access log and kept connections to the same origin.
Neighbours: `router` compares them, `flip` and `kills` use the smallest HAProxy as their limit or rival.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench import machine, plane
from tidegate.core import model
from tidegate.haproxy.runtime import HAProxyRouter
from tidegate.haproxy.settings import RouterSettings

KEY: Final = model.EnvironmentKey(app="bench", environment="router")
CHECK: Final = model.Check(kind=model.CheckKind.HTTP, path="/")
STABLE: Final = model.Route(stable=0, fence=1)
CANARY: Final = model.Route(stable=0, canary=1, exposure_bps=2500, salt="bench", preview="bench", fence=1)

_HAPROXY: Final = """
global
    nbthread 1
    maxconn 4000
    stats socket unix@admin.sock mode 600 level admin
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend public
    bind 127.0.0.1:{port}
"""
_TO_ORIGIN: Final = """
    default_backend origin
backend origin
    server origin 127.0.0.1:{origin}
"""
_ANSWER: Final = """
    http-request return status 200 content-type text/plain hdr X-Release r{release} string "ok\\n"
"""
_TWO_RELEASES: Final = """
    use_backend %[str(site),map_str(route.map)]
backend r1
    http-request return status 200 content-type text/plain hdr X-Release r1 string "ok\\n"
backend r2
    http-request return status 200 content-type text/plain hdr X-Release r2 string "ok\\n"
"""

_NGINX: Final = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 2048; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream origin {{
        server 127.0.0.1:{origin};
        keepalive 128;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 1000000000;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""

_CADDY: Final = """
{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{origin}
}}
"""


def haproxy() -> str:
    """Path of the HAProxy that comes with Tidegate."""
    return str(RouterSettings().program())


def smallest(port: int, origin: int) -> str:
    """The smallest HAProxy configuration that passes requests on."""
    return _HAPROXY.format(port=port) + _TO_ORIGIN.format(origin=origin)


@contextlib.contextmanager
def bare_haproxy(folder: Path, text: str, port: int) -> Iterator[tuple[int, ...]]:
    """HAProxy with a configuration of the bench's own, in `folder`; its process ids."""
    folder.mkdir(exist_ok=True)
    (folder / "haproxy.cfg").write_text(text)
    with machine.running([haproxy(), "-db", "-f", "haproxy.cfg"], folder=folder) as process:
        machine.wait_for("HAProxy's start", lambda: machine.answers(port))
        yield (process.pid,)


@contextlib.contextmanager
def origin(folder: Path, port: int) -> Iterator[tuple[int, ...]]:
    """What stands behind the proxies: an HAProxy that answers by itself, the fastest server at hand."""
    with bare_haproxy(folder, _HAPROXY.format(port=port) + _ANSWER.format(release=1), port) as pids:
        yield pids


@contextlib.contextmanager
def two_releases(folder: Path, port: int) -> Iterator[tuple[int, ...]]:
    """An HAProxy that answers as release 1 or 2, by one entry of a map."""
    folder.mkdir()
    (folder / "route.map").write_text("site r1\n")
    with bare_haproxy(folder, _HAPROXY.format(port=port) + _TWO_RELEASES, port) as pids:
        yield pids


def table(route: model.Route, origin_port: int) -> model.RouteTable:
    """A service with one instance in each of two slots."""
    return model.RouteTable(
        key=KEY,
        route=route,
        services=(
            model.PublicService(service="web", hosts=("127.0.0.1",), identity=model.UserIdentity.COOKIE),
        ),
        backends=tuple(
            model.Backend(
                service="web",
                slot=slot,
                check=CHECK,
                servers=(model.Server(name=f"p{slot}-0", host="127.0.0.1", port=origin_port),),
            )
            for slot in (0, 1)
        ),
    )


@contextlib.contextmanager
def tidegate(folder: Path, port: int, origin_port: int, route: model.Route) -> Iterator[tuple[int, ...]]:
    """HAProxy as Tidegate runs it, without a control plane; its process ids."""
    links = machine.free_ports(2)
    router = HAProxyRouter(folder, RouterSettings(port=port, link_ports=links, threads=1))
    try:
        router.start()
        router.apply(table(route, origin_port), key="bench")
        machine.wait_for("Tidegate's router", lambda: machine.answers(port))
        yield plane.haproxy_of(folder)
    finally:
        router.stop(drain_s=0)


@contextlib.contextmanager
def nginx(folder: Path, port: int, origin_port: int) -> Iterator[tuple[int, ...]]:
    """The web server nginx as a reverse proxy. Raises BenchError if it is missing."""
    program = _installed("nginx")
    folder.mkdir()
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port, origin=origin_port))
    with machine.running([program, "-p", str(folder), "-c", "nginx.conf"], folder=folder) as process:
        machine.wait_for("nginx's start", lambda: machine.answers(port))
        yield (process.pid, *machine.children_of(process.pid))


@contextlib.contextmanager
def caddy(folder: Path, port: int, origin_port: int) -> Iterator[tuple[int, ...]]:
    """The web server Caddy as a reverse proxy. Raises BenchError if it is missing."""
    program = _installed("caddy")
    folder.mkdir()
    (folder / "Caddyfile").write_text(_CADDY.format(port=port, origin=origin_port))
    command = [program, "run", "--config", "Caddyfile", "--adapter", "caddyfile"]
    with machine.running(command, folder=folder) as process:
        machine.wait_for("Caddy's start", lambda: machine.answers(port))
        yield (process.pid,)


def _installed(name: str) -> str:
    found = machine.program(name)
    if found is None:
        raise machine.BenchError(f"{name} is not installed (Debian: {machine.DEBIAN_PACKAGES[name]})")
    return found
