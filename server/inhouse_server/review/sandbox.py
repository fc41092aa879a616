"""A command on a copy of the repository, in a sandbox: no network, nothing of the machine that can be written, no
token, no home, no other process; with limits on time, memory and output. Linux only.

bubblewrap makes it where it is installed, else ``unshare`` of util-linux with namespaces of a user of their own. Where
neither can, there is no sandbox, and nothing is run.
"""

from __future__ import annotations

import os
import secrets
import selectors
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inhouse_retrieval import InhouseError

FOLDER = "/check"
"""Where the copy lies inside."""
_MOST_OUTPUT = 1_000_000
_PROCESSES = 512
_GIVEN, _CHANGED = "/given", "/changed"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store")
_ETC = (
    "alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "passwd", "group", "nsswitch.conf", "localtime",
    "mime.types",
)  # fmt: skip
_DEVICES = ("null", "zero", "full", "random", "urandom")
_AS_IT_IS = "-dR --preserve=mode,timestamps"
"""Not the owner: only one user is known inside."""
_COPY = f"""
cp {_AS_IT_IS} {_GIVEN}/. {FOLDER}/ && cp {_AS_IT_IS} {_CHANGED}/. {FOLDER}/ && cd {FOLDER} || exit 1
echo "$1"; exec /bin/sh -c "$2" 2>&1
"""
"""The copy is in memory, of bounded size, and is gone afterwards."""
_UNSHARED = r"""
set -eu
root=$1; memory=$2; shift 2
mount -t tmpfs -o mode=0755,size=16m,nosuid tmpfs "$root"
mkdir -p "$root/proc" "$root/tmp" "$root/check" "$root/dev" "$root/etc" "$root/.old"
etc=
mount -t tmpfs -o "mode=0700,size=$memory,nosuid,nodev" tmpfs "$root/tmp"
mount -t tmpfs -o "mode=0700,size=$memory,nosuid,nodev" tmpfs "$root/check"
while [ "$1" != -- ]; do
    case $2 in /etc/*) etc="$etc $1"; shift 2; continue ;; esac
    if [ -d "$1" ]; then mkdir -p "$root$2"; else mkdir -p "${root}${2%/*}"; : > "$root$2"; fi
    mount --rbind "$1" "$root$2"
    case $2 in /dev/*) ;; *)
        while read -r _ _ _ _ place _; do
            case $place in "$root$2"|"$root$2"/*) mount -o remount,bind,ro,nosuid,nodev "$place" ;; esac
        done < /proc/self/mountinfo ;;
    esac
    shift 2
done
shift
[ -z "$etc" ] || cp -dR $etc "$root/etc/"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -o remount,bind,ro,nosuid "$root"
cd "$root"
pivot_root . .old
umount -l /.old
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all --ambient-caps=-all "$@"
"""
"""Builds the view, then gives up what it needed for that: without capabilities nobody mounts anything anew."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a command.

    Attributes:
        code: its exit code; ``None`` when it was ended at a limit.
        output: both of its outputs.
        why: the limit, or why it could not be started; ``""`` when it ended by itself.
    """

    code: int | None
    output: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How commands are run here.

    Attributes:
        kind: ``"bwrap"`` or ``"unshare"``.
        seconds: after which a command is ended.
        memory: bytes that each of its processes may take, and that its files may take together.
        reads: folders that it may read beside the system's: ``(on this machine, inside)``.
    """

    kind: str
    seconds: float
    memory: int
    reads: tuple[tuple[Path, str], ...] = ()

    def run(self, command: str, given: Path, changed: Path) -> Ran:
        """Run ``command`` by `sh` in a copy of ``given``, over which ``changed`` was laid. Neither is written to."""
        ready = secrets.token_hex(16)
        inner = ["/bin/sh", "-c", _COPY, "sh", ready, command]
        limits = [
            "prlimit", f"--data={self.memory}", f"--fsize={self.memory}", f"--nproc={_PROCESSES}", "--core=0", "--",
        ]  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="inhouse-sandbox-") as root:
            outer = self._bwrap(given, changed) if self.kind == "bwrap" else self._unshare(Path(root), given, changed)
            # The whole dies with this process, however that ends.
            return self._ended(["setpriv", "--pdeathsig", "KILL", *limits, *outer, *inner], ready)

    def _ended(self, command: Sequence[str], ready: str) -> Ran:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True, env={"PATH": _PATH, "HOME": "/tmp", "LANG": "C.UTF-8", "TMPDIR": "/tmp"},
            )  # fmt: skip
        except OSError as error:
            return Ran(None, "", f"{error.filename} cannot be started: {error.strerror}")
        assert process.stdout is not None
        with process, selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            until = time.monotonic() + self.seconds
            output, why = bytearray(), ""
            while True:
                if not selector.select(max(0.0, until - time.monotonic())):
                    why = f"it took longer than {self.seconds:g} s"
                    break
                part = os.read(process.stdout.fileno(), 65536)
                output += part
                if len(output) > _MOST_OUTPUT:
                    why = f"it said more than {_MOST_OUTPUT:,} bytes"
                    break
                if not part:
                    break
            if why:
                process.kill()
            code = process.wait()
        told, began, said = output.decode("utf-8", "replace").partition(f"{ready}\n")
        if not began:
            return Ran(None, "", why or f"the sandbox could not be made: {told.strip()[-300:] or f'exit code {code}'}")
        return Ran(None if why else code, said, why)

    def _shown(self, given: Path, changed: Path) -> list[tuple[str, str]]:
        """``(on this machine, inside)`` of all that can be read; symbolic links of the system are left to be made."""
        system = [place for place in _SYSTEM if Path(place).is_dir() and not Path(place).is_symlink()]
        etc = [f"/etc/{name}" for name in _ETC if Path("/etc", name).exists()]
        same = [(place, place) for place in (*system, *etc)]
        return [
            *same,
            *((str(here), there) for here, there in self.reads),
            (str(given), _GIVEN),
            (str(changed), _CHANGED),
        ]

    @staticmethod
    def _links() -> list[tuple[str, str]]:
        return [(str(Path(place).readlink()), place) for place in _SYSTEM if Path(place).is_symlink()]

    def _bwrap(self, given: Path, changed: Path) -> list[str]:
        command = [
            "bwrap",
            "--unshare-all",
            "--unshare-user",
            "--die-with-parent",
            "--new-session",
            "--cap-drop",
            "ALL",
        ]
        command += ["--proc", "/proc", "--dev", "/dev"]
        for place in ("/tmp", FOLDER):
            command += ["--size", str(self.memory), "--tmpfs", place]
        for here, there in self._shown(given, changed):
            command += ["--ro-bind", here, there]
        for target, place in self._links():
            command += ["--symlink", target, place]
        return [*command, "--remount-ro", "/", "--"]

    def _unshare(self, root: Path, given: Path, changed: Path) -> list[str]:
        shown = [*self._shown(given, changed), *((f"/dev/{name}", f"/dev/{name}") for name in _DEVICES)]
        # Where /bin is a link to usr/bin, what is bound there is the folder itself.
        shown += [(str(Path(place).resolve()), place) for _, place in self._links()]
        spaces = ["--user", "--map-root-user", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--mount"]
        options = [*spaces, "--propagation", "private", "--fork", "--kill-child=KILL"]
        places = [word for pair in shown for word in pair]
        return ["unshare", *options, "/bin/sh", "-c", _UNSHARED, "sh", str(root), str(self.memory), *places, "--"]


def find_sandbox(seconds: float, memory: int, reads: Sequence[tuple[Path, str]] = ()) -> Sandbox:
    """The sandbox that this machine allows, tried out.

    Raises:
        InhouseError: it allows none.
    """
    reasons: list[str] = []
    with tempfile.TemporaryDirectory(prefix="inhouse-sandbox-") as folder:
        for kind in ("bwrap", "unshare"):
            if not all(shutil.which(name, path=_PATH) for name in (kind, "setpriv", "prlimit")):
                reasons.append(f"{kind} is not installed")
                continue
            sandbox = Sandbox(kind, seconds, memory, tuple(reads))
            ran = sandbox.run("true", Path(folder), Path(folder))
            if ran.code == 0:
                return sandbox
            reasons.append(f"{kind}: {ran.why or f'exit code {ran.code}'}")
    raise InhouseError(
        f"The check of inhouse.toml was not run: it needs a sandbox, and none can be made here ({'; '.join(reasons)}).",
        "Install bubblewrap and allow user namespaces, or remove check from inhouse.toml.",
    )
