"""The daemon under test: a folder, a configuration, a process, its log. Nothing here waits by sleeping for a fixed
time: the log's reader wakes whoever waits for a line, and everything else is looked at until a deadline."""
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from wire import Wire, client_context

ROOT = os.geteuid() == 0
TREE = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("POSTERN_BUILD", TREE / "build"))
POSTERND, POSTERN = BUILD / "posternd", BUILD / "postern"
READY_S, STOP_S, WAIT_S = 60, 90, int(os.environ.get("POSTERN_WAIT_S", 60))  # only a failing test waits that long
SANITIZER = re.compile(r"ERROR: (Address|Leak)Sanitizer|: runtime error: ")

_sources = itertools.count(1)


def fresh_source():
    """A client address that no other test uses: limits per address then touch only their own test."""
    n = next(_sources)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
    return f"127.{100 + worker}.{n >> 8}.{n & 255}"


def free_address():
    """A loopback address on which nothing listens: fixed ports on it cannot collide."""
    for _ in range(200):
        address = f"127.{random.randint(30, 90)}.{random.randint(0, 255)}.{random.randint(1, 254)}"
        with socket.socket() as probe:
            try:
                probe.bind((address, 2525))
                return address
            except OSError:
                continue
    raise AssertionError("no loopback address is free")


def until(condition, what, timeout=WAIT_S):
    """Looks until `condition()` is true; returns what it returned."""
    end = time.monotonic() + timeout
    pause = 0.001
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def value(v):
    if isinstance(v, bool):
        return "true" if v else "false"
    if isinstance(v, (list, tuple)):
        return "{" + ", ".join(f'"{x}"' for x in v) + "}"
    if isinstance(v, int):
        return str(v)
    return f'"{v}"'


def options(**kw):
    return " ".join(f"{k} = {value(v)}" for k, v in kw.items() if v is not None)


def host(network, **kw):
    return f'    host "{network}" {{ {options(**kw)} }}\n'


def server(name, *hosts, **kw):
    return f'server "{name}" {{\n    ' + "\n    ".join(options(**{k: v}) for k, v in kw.items() if v is not None) + \
        "\n" + "".join(hosts) + "}\n"


def domain(name, **kw):
    return f'domain "{name}" {{ {options(**kw)} }}\n'


class Log:
    """The lines that the daemon wrote to stderr, as they come."""

    def __init__(self, stream):
        self.lines, self.ended = [], False
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self.thread.start()

    def _read(self, stream):
        for raw in stream:
            with self.changed:
                self.lines.append(raw.decode("utf-8", "replace").rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def mark(self):
        return len(self.lines)

    def find(self, pattern, since=0):
        return [line for line in self.lines[since:] if re.search(pattern, line)]

    def wait(self, pattern, since=0, count=1, timeout=WAIT_S):
        end = time.monotonic() + timeout
        with self.changed:
            while len(found := self.find(pattern, since)) < count:
                left = end - time.monotonic()
                tail = "\n".join(self.lines[-25:])
                assert left > 0 and not self.ended, f"{count} × /{pattern}/ not in the log; its end:\n{tail}"
                self.changed.wait(left)
        return found if count != 1 else found[0]


class Postern:
    """with Postern(…) as p: …   The text may hold {address}, {dir}; every folder it names is made."""

    live = []  # what runs now, so that a failing test shows its logs

    def __init__(self, text, users=None, start=True, address=None, env=None, wrapper=()):
        self.address = address or free_address()
        self.dir = Path(tempfile.mkdtemp(prefix="postern-e2e-"))
        self.dir.chmod(0o755)
        self.config = self.dir / "postern.conf"
        self.users, self.process, self.log = users or {}, None, None
        self.env, self.wrapper = env, list(wrapper)
        self.old_logs = []
        self.write(text)
        self.make_folders()
        for name, password in self.users.items():
            self.add_user(name, password)
        if start:
            self.start()

    # configuration

    def write(self, text):
        head = f'spool = "{self.dir}/spool"\nusers = "{self.dir}/state/users.db"\nkeys = "{self.dir}/keys"\n'
        if "smtpd_processes" not in text:
            head += "smtpd_processes = 2\n"
        if "segment_size" not in text:
            head += 'segment_size = "4M"\n'
        self.config.write_text(head + text.replace("{address}", self.address).replace("{dir}", str(self.dir)))
        self.config.chmod(0o644)

    def make_folders(self):
        (self.dir / "log").mkdir(mode=0o755, exist_ok=True)
        self.cli("setup")

    def add_user(self, name, password):
        self.cli("user", "add", name, input=password + "\n")

    # command line

    def run(self, *args, input=None, timeout=60):
        done = subprocess.run([str(POSTERN), *args, "-c", str(self.config)], input=input, capture_output=True,
                              text=True, timeout=timeout, env=self.env)
        assert not SANITIZER.search(done.stderr), done.stderr
        return done

    def background(self, *args):
        return subprocess.Popen([str(POSTERN), *args, "-c", str(self.config)], stdin=subprocess.DEVNULL,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=self.env)

    def cli(self, *args, input=None, status=0):
        done = self.run(*args, input=input)
        assert done.returncode == status, f"postern {args} -> {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def forget(self, queue_id):
        """Deletes a message that is tried again and again; while a try runs, the answer is 75."""
        until(lambda: self.run("queue", "delete", queue_id).returncode == 0, f"{queue_id} is deleted")

    def queue(self):
        return [json.loads(line) for line in self.cli("queue", "list", "--json").splitlines()]

    # process

    def start(self, wait=True):
        env = dict(os.environ, **(self.env or {}))
        self.process = subprocess.Popen([*self.wrapper, str(POSTERND), "-c", str(self.config), "-f"], env=env,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                        start_new_session=True)
        self.log = Log(self.process.stderr)
        self.live.append(self)
        if wait:
            try:
                self.log.wait(r"\bmaster\.ready\b", timeout=READY_S)
            except AssertionError:
                self.kill()
                raise
        return self

    def master_pid(self):
        if not self.wrapper:
            return self.process.pid
        return next(pid for pid in children(self.process.pid) if b"--role" not in cmdline(pid))

    def roles(self, name=None):
        """{(role, index): pid} of what runs now."""
        found = {}
        for pid in children(self.master_pid()):
            words = cmdline(pid).decode("utf-8", "replace").split("\0")
            if "--role" in words:
                role, index = words[words.index("--role") + 1], int(words[words.index("--index") + 1])
                if name in (None, role):
                    found[role, index] = pid
        return found

    def role(self, name, index=0):
        return self.roles()[name, index]

    def kill_role(self, name, index=0):
        """kill -9, and waits until its successor serves."""
        old = self.role(name, index)
        mark = self.log.mark()
        os.kill(old, signal.SIGKILL)
        self.log.wait(rf"master\.role\.died.*\b{name}\b", since=mark)
        return until(lambda: (pid := self.roles().get((name, index))) and pid != old and pid, f"a new {name}")

    def reload(self):
        return self.run("reload")

    def stop(self, status=0):
        """SIGTERM drains; the end must be clean and nothing may be left behind."""
        if self.process is None:
            return
        pids = list(self.roles().values()) if self.process.poll() is None else []
        if self.process.poll() is None:
            os.kill(self.master_pid(), signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError("posternd did not end on SIGTERM:\n" + "\n".join(self.log.lines[-25:]))
        until(lambda: not any(alive(pid) for pid in pids), "every role has ended")
        self.log.thread.join(10)
        self.ended()
        assert code == status, f"posternd ended with {code}:\n" + "\n".join(self.log.lines[-25:])
        self.assert_sane()

    def assert_sane(self):
        """A build with sanitizers has found nothing: every process writes what it finds to the common stderr."""
        lines = self.old_logs
        found = next((i for i, line in enumerate(lines) if SANITIZER.search(line)), None)
        assert found is None, "a sanitizer found something:\n" + "\n".join(lines[found:found + 40])

    def kill(self):
        """kill -9 of everything at once: master first, so that nothing is restarted."""
        if self.process is None:
            return
        pids = [self.process.pid] if not self.wrapper else []
        try:
            pids += [self.master_pid()] if self.wrapper else []
            pids += self.roles().values()
        except StopIteration:
            pass
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if self.wrapper:
            self.process.kill()
        self.process.wait(STOP_S)
        until(lambda: not any(alive(pid) for pid in pids), "every process has ended")
        self.ended()

    def ended(self):
        self.old_logs += self.log.lines
        self.process = None
        if self in self.live:
            self.live.remove(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self.stop()
            else:
                print("\n".join(self.log.lines[-60:]) if self.log else "")
                self.kill()
        finally:
            shutil.rmtree(self.dir, ignore_errors=True)

    # mail

    def connect(self, port=2525, address=None, **kw):
        return Wire((address or self.address, port), **kw)

    def maildir(self, user):
        """The messages in a user's Maildir, as octets with CRLF line ends."""
        folder = self.dir / "mail" / user
        found = sorted((folder / "new").glob("*")) if (folder / "new").is_dir() else []
        return [path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n") for path in found]

    def sent(self, queue_id, to=None, status="sent", timeout=WAIT_S):
        """The delivery line of a message, when it comes."""
        who = re.escape(f"to=<{to}>") if to else r"to=<[^>]*>"
        return self.log.wait(rf"postern/\w+\[\d+\]: {queue_id}: {who}.*status={status}", timeout=timeout)

    def removed(self, queue_id):
        return self.log.wait(rf"postern/\w+\[\d+\]: {queue_id}: removed")

    def delivered(self, user, marker, timeout=WAIT_S):
        """The message of a user that holds `marker`, when it has come."""
        return until(lambda: next((m for m in self.maildir(user) if marker in m), None), f"{marker} for {user}", timeout)

    def deliver(self, sender, recipient, content=None, params="", port=2525, source=None):
        """Hands a message over; its queue id."""
        with self.connect(port, source=source) as wire:
            wire.ehlo()
            reply = wire.message(sender, recipient, content or b"Subject: t\r\n\r\nhello\r\n", params)
            assert reply.code == 250, reply
            return reply.queue_id


def children(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in task.read_text().split()]
        except OSError:
            pass
    return found


def cmdline(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def alive(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def status(pid):
    """The fields of /proc/PID/status."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.strip() for name, _, rest in (row.partition(":") for row in rows)}


ANY_TLS = client_context()
__all__ = ["ANY_TLS", "BUILD", "POSTERN", "POSTERND", "ROOT", "TREE", "Postern", "alive", "children", "domain",
           "free_address", "fresh_source", "host", "server", "status", "until"]
