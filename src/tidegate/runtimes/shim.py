"""The shim: one small process per instance that outlives the control plane.

Starts the app, starts it again when it ends unasked, keeps count, turns its output file over, and stops the
app with all its descendants when the instance folder has a `stop` file. A job it starts once, writes its
outcome down and ends. It never decides anything else.

Run as a program: `python -I -S shim.py` (or `shim.py exec` for a readiness command) with the plan on standard
input; answers one line of JSON on standard output when the instance was started. Standard library only.

Invariants:
- a POSIX lock on `<folder>/lock` is held for as long as the shim lives: there is never a second one, and the
  kernel names the holder to whoever asks;
- the app's pid is in the state file before the app runs: its child waits for that on a pipe, and ends if the
  shim dies first;
- a shim that finds the app already running (its predecessor was killed) adopts it instead of starting it; a
  job it ends and starts anew, because nobody could know its outcome; one with an outcome never runs again;
- descendants are killed before the app's own pid is given back to the kernel, so that no pid or session
  that is signalled can belong to a stranger.

Neighbours: start.py (the child's side), smoke.py (before a job), secret_files.py, procfs.py, plan.py (what it
is told and tells).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable

if not __package__:  # run as a program, without site-packages: find the three neighbours, after the library
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tidegate.runtimes import output, procfs, secret_files, start
from tidegate.runtimes import plan as plans

#: First wait before the app is started again; doubles with each crash in a row up to the last.
BACKOFF_FIRST_S = 0.2
BACKOFF_LAST_S = 30.0

#: An app that has run for so long is not in a crash loop: its next crash waits the first back-off again.
STEADY_S = 60.0

#: How often the output's size and a missed signal are looked for.
TICK_S = 1.0

#: How long to wait for a predecessor that is about to end, and for `exec` to say that it failed.
_LOCK_WAIT_S = 2.0
_EXEC_WAIT_S = 10.0


def backoff_s(streak: int) -> float:
    """Seconds to wait before the next start, after so many crashes in a row."""
    return float(min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2 ** min(streak - 1, 16)))


def now_s() -> float:
    """Seconds since boot, suspended time included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def describe_end(status: int, *, out_of_memory: bool) -> str:
    """How a process ended, from its wait status, in words."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name} (out of memory)" if out_of_memory else f"killed by {name}"


class Shim:
    """One instance, from its first start to its last end."""

    def __init__(self, plan: plans.Plan) -> None:
        """Expects the lock to be held; opens the output and creates what the instance needs."""
        self.plan = plan
        self.folder = plan["folder"]
        self.boot = procfs.boot_id()
        self.output = output.open_for_append(f"{self.folder}/{plans.OUTPUT}")
        #: Whose processes the instance's may be: one that is adopted may be of a user of before.
        self.users: set[int | None] = {os.geteuid() if plan["user"] is None else plan["user"]}
        self.app: procfs.Identity | None = None
        self.child = False
        self.handle: int | None = None
        self.next_start = 0.0
        self.begun = 0.0
        self.late = False
        #: Of a job that runs: where its child says why it did not become the command.
        self.failure: int | None = None
        self.unsaved = False
        self.kills = 0
        self.wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._make_control_groups()
        known = plans.read_state(self.folder)
        self.state = self._inherit(known) if known else plans.fresh_state(self.boot)
        self._take_over(known)

    # --- beginning -----------------------------------------------------------------------------------

    def _inherit(self, known: plans.State) -> plans.State:
        """What is still true of what a predecessor wrote."""
        if known["boot"] == self.boot:
            return known
        ended = "the machine was restarted" if known["pid"] is not None else known["exit"]
        fresh = plans.fresh_state(self.boot)
        return {**fresh, "crashes": known["crashes"], "exit": ended, "passed": known["passed"]}

    def _take_over(self, known: plans.State | None) -> None:
        """Adopt the app if a predecessor left one running, clear up what is left of it if not."""
        if known is None:  # the first shim, or a damaged state file: the marks tell
            app = procfs.first_leader(procfs.marked(self._candidates(), self._marks()))
        else:
            app = plans.app_of(self.state, self.boot)
        if self.plan["job"] is not None:
            self._end_cut_off(app)
            return
        if app is not None and self._watch(app):
            self.state["pid"], self.state["start"] = app
            self._save()
            return
        if app is not None:
            self._record_crash("ended while its shim was away: how is unknown", ran_s=0.0)
        self._kill_leftovers()

    def _end_cut_off(self, app: procfs.Identity | None) -> None:
        """A job whose shim was killed: whether it would pass cannot be known any more, and it runs again."""
        if app is not None and self._watch(app):
            self.say("its shim was killed: it is ended, and runs again")
        self._kill_leftovers()
        self._forget()
        self.state["pid"] = None

    def _watch(self, app: procfs.Identity) -> bool:
        """Wait for the end of a process that is not our child, by its pidfd."""
        try:
            handle = os.pidfd_open(app.pid)
        except OSError:
            return False
        if not procfs.alive(app):
            os.close(handle)
            return False
        self.app, self.child, self.handle = app, False, handle
        self.users.add(procfs.owner(app.pid))
        return True

    def _make_control_groups(self) -> None:
        for group in self.plan["control_groups"]:
            try:
                os.makedirs(group["path"], exist_ok=True)
                for name, value in group["values"].items():
                    _write(f"{group['path']}/{name}", value)
            except OSError as error:
                self.say(f"a limit is not in force: {group['path']}: {error.strerror}")

    # --- the loop ------------------------------------------------------------------------------------

    def run(self) -> None:
        """Keep the app running until it is to stop; returns when nothing of it is left."""
        while not self.stopping() and not (self.done and not self.unsaved):
            if self.app is None and not self.done and now_s() >= self.next_start:
                self.start()
            self._wait(self._pause_s())
            self._notice_late()
            self._notice_end()
            self._keep_files()
        self.stop()

    @property
    def done(self) -> bool:
        """Whether it is a job that has its outcome."""
        return self.plan["job"] is not None and self.state["passed"] is not None

    def _pause_s(self) -> float:
        job = self.plan["job"]
        if self.app is None:
            return min(TICK_S, max(0.0, self.next_start - now_s()))
        return TICK_S if job is None else min(TICK_S, max(0.01, self.begun + job["timeout_s"] - now_s()))

    def stopping(self) -> bool:
        """Whether the instance is to be stopped, or is no more."""
        try:
            os.stat(self.folder)
        except FileNotFoundError:
            return True
        except OSError:  # a disk that does not answer now is no reason to stop a service
            return False
        return os.path.exists(f"{self.folder}/{plans.STOP}")

    def _wait(self, seconds: float) -> None:
        watched = [self.wakeup] if self.handle is None else [self.wakeup, self.handle]
        ready, _, _ = select.select(watched, [], [], seconds)
        if self.wakeup in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wakeup, 4096)

    def _keep_files(self) -> None:
        if self.unsaved:
            self._save()
        with contextlib.suppress(OSError):  # a full disk: the file stays, and is tried again
            output.turn_over(
                f"{self.folder}/{plans.OUTPUT}", limit=self.plan["log_bytes"], files=self.plan["log_files"]
            )

    def _save(self) -> None:
        try:
            plans.write_state(self.folder, self.state)
            self.unsaved = False
        except OSError:
            self.unsaved = True

    def say(self, text: str) -> None:
        """Put a line of our own into the instance's output."""
        with contextlib.suppress(OSError):
            os.write(self.output, f"tidegate: {text}\n".encode(errors="replace"))

    # --- start ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the app as our child; a failure to do so counts as a crash, of a job as its outcome."""
        try:
            self._give_secrets()
        except OSError as error:
            self._refused(f"cannot start: its secrets cannot be written: {error.strerror}")
            return
        before = self._before()
        self.begun, self.late = now_s(), False
        self.kills = self._out_of_memory_kills()
        gate_read, gate_write = os.pipe()
        failure_read, failure_write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(gate_write)
                os.setsid()
                if os.read(gate_read, 1) == b"1":  # else the shim died before it could note our pid
                    start.become(self.plan, output=self.output, failure=failure_write, before=before)
            finally:
                os._exit(127)
        os.close(gate_read)
        os.close(failure_write)
        born = procfs.stat(pid)
        self.app, self.child = procfs.Identity(pid, born.identity.start if born else 0), True
        self.state["pid"], self.state["start"] = self.app
        self._save()
        os.write(gate_write, b"1")
        os.close(gate_write)
        if before is not None:  # it may take its time: what it says is read when it has ended
            self.failure = failure_read
            return
        refusal = _read_all(failure_read, _EXEC_WAIT_S)
        if refusal:
            os.waitpid(pid, 0)
            self._refused(refusal)

    def _give_secrets(self) -> None:
        folder = self.plan["secret_folder"]
        if folder is not None and self.plan["secret_files"]:
            files, user, group = self.plan["secret_files"], self.plan["user"], self.plan["group"]
            secret_files.give(folder, files, user=user, group=group)

    def _before(self) -> Callable[[], str] | None:
        """What a job's child does before it becomes the command; loaded here, where it can be read."""
        job = self.plan["job"]
        if job is None:
            return None
        from tidegate.runtimes import smoke  # noqa: PLC0415 - half a megabyte that most shims never need

        return functools.partial(smoke.failure, job["smoke"])

    def _refused(self, why: str) -> None:
        self.say(why)
        self._ended(why, passed=False)

    def _record_outcome(self, how: str, *, passed: bool) -> None:
        self.state["pid"], self.state["exit"], self.state["passed"] = None, how[:1000], passed
        self._save()

    def _record_crash(self, how: str, *, ran_s: float) -> None:
        moment = now_s()
        recent = [at for at in self.state["recent"] if moment - at <= plans.RECENT_S]
        self.state["recent"] = [*recent, round(moment, 3)][-plans.RECENT_MAX :]
        self.state["crashes"] += 1
        self.state["streak"] = 1 if ran_s >= STEADY_S else self.state["streak"] + 1
        self.state["pid"], self.state["exit"] = None, how[:1000]
        self.next_start = moment + backoff_s(self.state["streak"])
        self._save()

    def _ended(self, how: str, *, passed: bool) -> None:
        ran_s = now_s() - self.app.start / procfs.TICKS_PER_S if self.app else 0.0
        self._forget()
        if self.plan["job"] is not None:
            self._record_outcome(how, passed=passed)
        else:
            self._record_crash(how, ran_s=ran_s)

    def _forget(self) -> None:
        for handle in (self.handle, self.failure):
            if handle is not None:
                os.close(handle)
        self.app, self.child, self.handle, self.failure = None, False, None, None

    # --- the end -------------------------------------------------------------------------------------

    def _notice_end(self) -> None:
        if self.app is not None:
            end = self._end_of_child(self.app) if self.child else self._end_of_adopted(self.app)
            if end is not None:
                how, passed = end
                self.say(f"ended: {how}")
                self._ended(how, passed=passed)
        self._bury()

    def _notice_late(self) -> None:
        """A job that has had its time is killed; its end is noticed like any other."""
        job = self.plan["job"]
        if job is not None and self.app is not None and now_s() >= self.begun + job["timeout_s"]:
            self.late = True
            self._kill_leftovers()

    def _end_of_child(self, app: procfs.Identity) -> tuple[str, bool] | None:
        """How our child ended, and whether well; kills its descendants before its pid is free for others."""
        if os.waitid(os.P_PID, app.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return None
        self._kill_leftovers()
        _, status = os.waitpid(app.pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        how = describe_end(status, out_of_memory=killed and self._out_of_memory_kills() > self.kills)
        job = self.plan["job"]
        if job is not None and self.late:
            how = f"did not end within {job['timeout_s']:g} s"
        elif self.failure is not None:
            said, self.failure = _read_all(self.failure, 0.1), None  # nobody is left who could write more
            how = said or how
        return how, status == 0

    def _end_of_adopted(self, app: procfs.Identity) -> tuple[str, bool] | None:
        if procfs.alive(app):
            return None
        self._kill_leftovers()
        return "ended under a second shim: how is unknown", False

    def _bury(self) -> None:
        """Reap orphans that became our children; the app itself is reaped by `_end_of_child` only."""
        with contextlib.suppress(ChildProcessError):
            while True:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if ended is None or (self.child and self.app and ended.si_pid == self.app.pid):
                    return
                os.waitpid(ended.si_pid, 0)

    def _marks(self) -> dict[str, str]:
        return {name: self.plan["environment"][name] for name in plans.MARKS}

    def _candidates(self) -> list[procfs.Stat]:
        """Processes that may be signalled at all: never this one, never another user's."""
        others = (one for one in procfs.every() if one.identity.pid != os.getpid())
        return [one for one in others if procfs.owner(one.identity.pid) in self.users]

    def members(self) -> list[procfs.Stat]:
        """All living processes of the instance: its session, its descendants, those marked as it."""
        everything = self._candidates()
        found = {one.identity: one for one in procfs.descendants(everything, os.getpid())}
        if self.app is not None and (self.child or procfs.alive(self.app)):
            found.update({one.identity: one for one in everything if one.session == self.app.pid})
            found.update({one.identity: one for one in procfs.descendants(everything, self.app.pid)})
        found.update({one.identity: one for one in procfs.marked(everything, self._marks())})
        return list(found.values())

    def _kill_leftovers(self) -> None:
        """Kill every process of the instance; gives up after a while on those that the kernel holds."""
        for _ in range(100):
            for group in self.plan["control_groups"]:
                with contextlib.suppress(OSError):
                    _write(f"{group['path']}/cgroup.kill", "1")
            left = self.members()
            if not left:
                return
            for one in left:
                procfs.send(one.identity, signal.SIGKILL)
            self._bury()
            time.sleep(0.01)

    def stop(self) -> None:
        """SIGTERM to all, SIGKILL after the grace; returns when the last one is gone."""
        for one in self.members():
            procfs.send(one.identity, signal.SIGTERM)
        deadline = now_s() + self.plan["grace_s"]
        pause_s, told = 0.01, False
        while self.members():
            if now_s() >= deadline:
                if not told:
                    self.say(f"killed: still there {self.plan['grace_s']:g} s after SIGTERM")
                told = True
                self._kill_leftovers()
            self._bury()
            if self.handle is not None and self.app is not None and not procfs.alive(self.app):
                self._forget()
            self._wait(min(pause_s, max(0.01, deadline - now_s())))
            pause_s = min(pause_s * 1.5, 0.25)
        if self.app is not None and self.child:
            self.state["exit"] = describe_end(os.waitpid(self.app.pid, 0)[1], out_of_memory=False)
        self._forget()
        self.state["pid"] = None
        self._save()
        if self.plan["secret_folder"] is not None:
            secret_files.take_away(self.plan["secret_folder"])
        for group in self.plan["control_groups"]:
            _remove_folder(group["path"])

    def _out_of_memory_kills(self) -> int:
        """How many processes of the instance the kernel killed for memory so far, where it counts that."""
        total = 0
        for group in self.plan["control_groups"]:
            for name in ("memory.oom_control", "memory.events"):
                with contextlib.suppress(OSError), open(f"{group['path']}/{name}", encoding="ascii") as file:
                    total += sum(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
        return total


def _read_all(handle: int, seconds: float) -> str:
    """All that the other end writes until it closes; what came so far when the time is over."""
    deadline, content = now_s() + seconds, b""
    with open(handle, "rb", buffering=0) as pipe:
        while (left := deadline - now_s()) > 0 and select.select([pipe], [], [], left)[0]:
            part = pipe.read(4096)
            if not part:
                break
            content += part
    return content.decode(errors="replace")


def _remove_folder(path: str) -> None:
    """Remove a control group; the kernel lets go of its last process a moment after that has ended."""
    for _ in range(50):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)


def _write(path: str, content: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(content)


def take_lock(folder: str) -> bool:
    """Become the instance's shim; False if there is one already. Kept until this process ends."""
    handle = os.open(f"{folder}/{plans.LOCK}", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = now_s() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if now_s() >= deadline:
                return False
            time.sleep(0.02)


def _answer(**fields: object) -> None:
    """Tell the control plane how it went, and let go of its pipe."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(fields).encode() + b"\n")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)


def _ignore(number: int, frame: object) -> None:
    """Only wakes the loop up: the `stop` file says what is asked, the wait what has ended."""


def supervise(plan: plans.Plan) -> None:
    """Be the instance's shim, in a process of its own that no terminal and no parent can take along."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, _ignore)
    signal.signal(signal.SIGCHLD, _ignore)
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the secrets of the plan
    start.adopt_orphans()
    try:
        if not take_lock(plan["folder"]):
            _answer(ok=True, already=True)
            return
        shim = Shim(plan)
        if not shim.stopping() and shim.app is None and not shim.done:
            shim.start()
    except OSError as error:
        _answer(ok=False, errno=error.errno, error=f"{error.strerror}: {error.filename or plan['folder']}")
        return
    _answer(ok=True)
    try:
        shim.run()
    except Exception as error:
        shim.say(f"the shim failed, the app goes on without it: {type(error).__name__}: {error}")
        raise


def main() -> None:
    """Read the plan from standard input, which stays open: a later control plane reads it there again."""
    if sys.argv[1:] == ["check"]:
        return
    with open(0, "rb", closefd=False) as file:
        plan: plans.Plan = json.load(file)
    if plan.get("version") != plans.VERSION:
        _answer(ok=False, errno=0, error="Tidegate was upgraded under the running control plane: restart it")
    elif sys.argv[1:] == ["exec"]:
        start.become(plan, output=1, failure=2)
    else:
        supervise(plan)


if __name__ == "__main__":
    main()
