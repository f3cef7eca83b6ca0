"""`wrk`, a load generator in C: what keeps a proxy busy on a single processor.

Hides its arguments and its output. Every connection sends cookies of many users in turn, the same ones to
every rival. Where wrk is not installed, `load` does the same, slower. Neighbours: `router`.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import machine

USERS: Final = 256
_NUMBER: Final = re.compile(r"(\d+) requests in ([0-9.]+)(us|ms|s|m)")
_LATENCY: Final = re.compile(r"^\s+(50|99)%\s+([0-9.]+)(us|ms|s|m)$", re.MULTILINE)
_REFUSED: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_SOCKETS: Final = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_UNIT_S: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}

SCRIPT: Final = """
local requests, turn = {}, 0
function init(args)
  for number = 1, %d do
    wrk.headers["Cookie"] = string.format("theme=dark; tidegate_user=user-%%d", number)
    requests[number] = wrk.format(nil)
  end
end
function request()
  turn = turn %% #requests + 1
  return requests[turn]
end
""".lstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run."""

    requests: int
    seconds: float
    failed: int
    p50_s: float
    p99_s: float

    @property
    def requests_per_second(self) -> float:
        return self.requests / self.seconds


def run(port: int, *, folder: Path, seconds: float, connections: int, core: int) -> Result:
    """Ask as fast as it goes. Raises BenchError if wrk is missing or says nothing."""
    wrk = machine.program("wrk")
    if wrk is None:
        raise machine.BenchError("wrk is not installed")
    script = folder / "users.lua"
    script.write_text(SCRIPT % USERS)
    process = subprocess.Popen(
        [wrk, "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency", "-s", str(script),
         f"http://127.0.0.1:{port}/"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    machine.pin([process.pid], core)
    try:
        output, _ = process.communicate(timeout=seconds + 30)
    finally:
        process.kill()
        process.wait()
    return parsed(output)


def parsed(output: str) -> Result:
    """What wrk prints. Raises BenchError."""
    found = _NUMBER.search(output)
    if found is None:
        raise machine.BenchError(f"wrk said: {output[:300]}")
    refused, sockets = _REFUSED.search(output), _SOCKETS.search(output)
    latency = {name: float(value) * _UNIT_S[unit] for name, value, unit in _LATENCY.findall(output)}
    return Result(
        requests=int(found[1]),
        seconds=float(found[2]) * _UNIT_S[found[3]],
        failed=(int(refused[1]) if refused else 0)
        + (sum(int(count) for count in sockets.groups()) if sockets else 0),
        p50_s=latency.get("50", 0.0),
        p99_s=latency.get("99", 0.0),
    )
