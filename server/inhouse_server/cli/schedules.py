"""Ready files that let a scheduler call `inhouse retrain`: systemd, cron, GitHub Actions, Kubernetes.

Each calls the command once a day (every hour when it is to run more often than that), and the command itself asks
whether a run is due. Each brings the repository up to date first where its branch follows another one, and each takes
exit code 3, a rejected candidate, for the success that it is: the run finished, and the current adapter stays.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from inhouse_retrieval.errors import InhouseError

Timer = Literal["systemd", "cron", "github", "kubernetes"]

_REJECTED = "# Exit code 3 says that the gate rejected the candidate and the current adapter stays: no failure."


@dataclass(frozen=True, slots=True)
class Job:
    """What is scheduled.

    Attributes:
        root: of the repository.
        options: of `inhouse retrain`, without ``--repo``.
        pull: whether the branch follows another one that can be pulled.
        hour, minute: when, each day.
        hourly: run each hour at ``minute`` instead.
        image: a container image with `inhouse` in it, for Kubernetes.
    """

    root: Path
    options: tuple[str, ...]
    pull: bool
    hour: int
    minute: int
    hourly: bool
    image: str

    @property
    def name(self) -> str:
        """A name that every scheduler accepts: lower-case letters, digits and hyphens, at most 52."""
        return f"inhouse-retrain-{re.sub(r'[^a-z0-9]+', '-', self.root.name.lower())}"[:52].strip("-")

    @property
    def command(self) -> tuple[str, ...]:
        """The command on this machine."""
        return (sys.executable, "-m", "inhouse_server.cli", *self.arguments)

    @property
    def arguments(self) -> tuple[str, ...]:
        """What follows ``inhouse``."""
        return ("retrain", "--repo", str(self.root), *self.options)

    @property
    def pulling(self) -> tuple[str, ...]:
        """The command that brings the repository up to date; empty when there is nothing to pull from."""
        return ("git", "-C", str(self.root), "pull", "--quiet", "--ff-only") if self.pull else ()

    @property
    def cron(self) -> str:
        """The five fields of cron."""
        return f"{self.minute} {'*' if self.hourly else self.hour} * * *"


@dataclass(frozen=True, slots=True)
class Schedule:
    """Files for one scheduler, by name, and what to do with them."""

    files: dict[str, str]
    next_step: str


def schedule(timer: Timer, job: Job) -> Schedule:
    """The files that let ``timer`` run ``job``.

    Raises:
        InhouseError: a path holds what such a file cannot carry.
    """
    for word in job.command:
        if any(not character.isprintable() for character in word) or "${{" in word:
            raise InhouseError(
                f"The path {word!r} cannot be written into a schedule.",
                "Move it to a folder without control characters and '${{' in its name.",
            )
    return {"systemd": _systemd, "cron": _cron, "github": _github, "kubernetes": _kubernetes}[timer](job)


def _systemd(job: Job) -> Schedule:
    pulling = f"ExecStartPre=-{_for_systemd(job.pulling)}\n" if job.pull else ""
    service = f"""\
[Unit]
Description=Retrain: {job.name}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
{pulling}ExecStart={_for_systemd(job.command)}
{_REJECTED}
SuccessExitStatus=3
Nice=10
"""
    when = f"*-*-* {'*' if job.hourly else f'{job.hour:02}'}:{job.minute:02}:00"
    timer = f"""\
[Unit]
Description=When to retrain: {job.name}

[Timer]
OnCalendar={when}
# A machine that was off at that time catches up when it is on again.
Persistent=true

[Install]
WantedBy=timers.target
"""
    return Schedule(
        {f"{job.name}.service": service, f"{job.name}.timer": timer},
        f"Put both into ~/.config/systemd/user, then: systemctl --user daemon-reload && "
        f"systemctl --user enable --now {job.name}.timer && loginctl enable-linger",
    )


def _cron(job: Job) -> Schedule:
    line = f"{job.cron} {_for_shell(job)}".replace("%", r"\%")
    remark = "# cron mails what the command prints."
    return Schedule({f"{job.name}.cron": f"{_REJECTED}\n{remark}\n{line}\n"}, "Add it with: crontab -e")


def _github(job: Job) -> Schedule:
    workflow = f"""\
name: {job.name}
on:
  schedule:
    - cron: {json.dumps(job.cron)}  # UTC
  workflow_dispatch:
permissions: {{}}
concurrency: {job.name}
jobs:
  retrain:
    # The runner on the machine that holds the repository, its .inhouse folder and the command.
    runs-on: self-hosted
    timeout-minutes: 1440
    steps:
      {_REJECTED}
      - name: Retrain
        run: {json.dumps(_for_shell(job), ensure_ascii=False)}
"""
    return Schedule({f"{job.name}.yml": workflow}, "Commit it to .github/workflows on the main branch.")


def _kubernetes(job: Job) -> Schedule:
    root = json.dumps(str(job.root), ensure_ascii=False)
    # Kubernetes expands $(NAME) in arguments.
    script = _for_shell(job, ("inhouse", *job.arguments)).replace("$(", "$$(")
    manifest = f"""\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {job.name}
spec:
  schedule: {json.dumps(job.cron)}
  timeZone: Etc/UTC
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      backoffLimit: 2  # a run that was killed goes on from its last checkpoint
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: retrain
              image: {json.dumps(job.image)}
              {_REJECTED}
              command: ["/bin/sh", "-c"]
              args: [{json.dumps(script, ensure_ascii=False)}]
              volumeMounts:
                - name: repository
                  mountPath: {root}
          volumes:
            # The repository with its .inhouse folder; in a cluster of several nodes, a persistentVolumeClaim instead.
            - name: repository
              hostPath:
                path: {root}
                type: Directory
"""
    return Schedule(
        {f"{job.name}.yaml": manifest},
        f"The image {job.image} must hold inhouse and git; then: kubectl apply -f {job.name}.yaml",
    )


def _for_shell(job: Job, command: Sequence[str] | None = None) -> str:
    pulling = f"{shlex.join(job.pulling)} && " if job.pull else ""
    return f"{pulling}{{ {shlex.join(command or job.command)} || [ $? -eq 3 ]; }}"


def _for_systemd(command: Sequence[str]) -> str:
    """A command line of systemd, which has quotes, specifiers (%) and variables ($) of its own."""
    quoted = []
    for word in command:
        word = word.replace("\\", r"\\").replace('"', r"\"").replace("%", "%%").replace("$", "$$")
        quoted.append(word if re.fullmatch(r"[\w./:=@%+-]+", word) else f'"{word}"')
    return " ".join(quoted)
