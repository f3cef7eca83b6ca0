"""A developer's repository: real git, without the configuration of whoever runs the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_IDENTITY = {
    "GIT_AUTHOR_NAME": "ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


class Repository:
    """A work tree with a branch `main`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def begin(self, *words: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """Start git; end it with `communicate`."""
        return subprocess.Popen(
            ["git", *words],
            cwd=self.folder,
            env={**os.environ, **_IDENTITY, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *words: str, environment: dict[str, str] | None = None, timeout: float = 50.0
    ) -> tuple[int, str]:
        """Exit status, and everything that was printed."""
        process = self.begin(*words, environment=environment)
        out, err = process.communicate(timeout=timeout)
        return process.returncode, out + err

    def git(self, *words: str) -> str:
        """Standard output of a command that has to succeed."""
        process = self.begin(*words)
        out, err = process.communicate(timeout=50)
        assert process.returncode == 0, err
        return out.strip()

    def commit(self, **files: str) -> str:
        """A new commit with these files; its name."""
        for name, text in files.items():
            path = self.folder / name.replace("__", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a change")
        return self.git("rev-parse", "HEAD")
