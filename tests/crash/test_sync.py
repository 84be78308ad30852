"""Syncs that fail or take long, a disk that is full, records that are damaged."""
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest

from daemon import Postern, domain, host, server, until
from load import Load, names
from wire import Closed

TEXT = 'smtpd_processes = 1\nmax_sessions_per_address = 0\nmax_errors = 0\nmax_commands = 0\nretry_min = "1s"\n' + server(
    "sync.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"]) + \
    domain("here.test", deliver="maildir:{dir}/mail/%u") + domain("null.test", deliver="discard")


class Strace:
    """strace on the running smtpd process, with every thread of it."""

    def __init__(self, p, inject, role="smtpd"):
        self.out = p.dir / "strace.out"
        self.process = subprocess.Popen(
            ["strace", "-f", "-p", str(p.role(role)), "-e", "trace=fdatasync,fsync", "-e", f"inject=fdatasync,fsync:{inject}",
             "-o", str(self.out)], stderr=subprocess.PIPE, text=True)
        line = self.process.stderr.readline()
        assert "attached" in line, line

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.process.wait(20)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


@pytest.fixture
def p():
    with Postern(TEXT) as daemon:
        yield daemon


@pytest.mark.parametrize("recipient", ["x@here.test", "x@null.test"])
def test_failing_sync_is_no_250(p, recipient):
    """EIO from the sync: 451 4.3.0 for all that waits on it, an event, and no such message is ever called accepted."""
    with p.connect() as w:
        w.ehlo()
        assert w.message("a@b.test", recipient, b"Subject: LOAD-0-1\r\n\r\nx\r\n").code == 250
        with Strace(p, "error=EIO"):
            reply = w.message("a@b.test", recipient, b"Subject: LOAD-0-2\r\n\r\nx\r\n")
            assert (reply.code, reply.enhanced) == (451, "4.3.0"), reply
        p.log.wait(r"(?i)(sync|spool)\S*.*(fail|error|EIO|Input/output)")

    def again():
        try:
            with p.connect() as w2:
                w2.ehlo()
                return w2.message("a@b.test", recipient, b"Subject: LOAD-0-3\r\n\r\nx\r\n").code == 250
        except (AssertionError, Closed, OSError):
            return False

    until(again, "with a segment that works, mail is taken again")
    if recipient == "x@here.test":
        until(lambda: {"LOAD-0-1", "LOAD-0-3"} <= set(names(p.maildir("x"))), "what was acknowledged")


def test_failing_sync_under_load(p):
    """Many wait on the one sync that fails: none of them is told 250."""
    load = Load(p, connections=12)
    load.wait(100)
    with Strace(p, "error=EIO:when=5") as trace:
        until(lambda: load.refused, "someone was refused", 30)
        until(lambda: "EIO" in trace.out.read_text(), "the trace")
    load.wait(len(load.acked) + 30)
    acked = load.stop()
    assert all(r.code // 100 == 4 for r in load.refused), load.refused[:5]
    until(lambda: set(acked) <= set(names(p.maildir("x"))), "every acknowledged message", 60)


def test_slow_sync_delays_250(p):
    """No 250 sooner than the sync ends: 200 ms."""
    with p.connect() as w, Strace(p, "delay_exit=200000"):
        w.ehlo()
        for _ in range(3):
            w.envelope("a@b.test", "x@here.test")
            w.cmd("DATA", 354)
            begun = time.monotonic()
            w.send(b"Subject: slow\r\n\r\nx\r\n.\r\n")
            assert w.reply().code == 250
            assert time.monotonic() - begun >= 0.2
        w.envelope("a@b.test", "x@null.test")
        begun = time.monotonic()
        w.send(b"BDAT 6 LAST\r\na: b\r\n")
        assert w.reply().code == 250
        assert time.monotonic() - begun >= 0.2


def test_slow_sync_is_shared(p):
    """Group commit: while one sync runs, all that arrives goes with the next; 20 messages need far less than 20 syncs."""
    with Strace(p, "delay_exit=200000") as trace:
        wires = [p.connect() for _ in range(20)]
        for w in wires:
            w.ehlo()
            w.envelope("a@b.test", "x@here.test")
            w.cmd("DATA", 354)
        for w in wires:
            w.send(b"Subject: shared\r\n\r\nx\r\n.\r\n")
        for w in wires:
            assert w.reply().code == 250
        for w in wires:
            w.close()
    assert 1 <= len(re.findall(r"fdatasync\(", trace.out.read_text())) <= 15


def test_slow_sync_blocks_no_session(p):
    """The loop goes on while the disk works."""
    with Strace(p, "delay_exit=4000000"):
        w = p.connect()
        w.ehlo()
        w.envelope("a@b.test", "x@here.test")
        w.cmd("DATA", 354)
        w.send(b"Subject: slow\r\n\r\nx\r\n.\r\n")
        with p.connect() as other:
            other.ehlo()
            assert not select.select([w.sock], [], [], 0)[0], "it was answered while the sync still runs"
        assert w.reply().code == 250
        w.close()


def test_large_body_is_synced_before_250(p):
    """Larger than a segment's share: it goes to a file of its own, and the same holds."""
    body = b"Subject: large\r\n\r\n" + (b"y" * 98 + b"\r\n") * 60_000  # 6 MB, segments are 4 MiB
    with p.connect() as w, Strace(p, "delay_exit=200000"):
        w.ehlo()
        w.envelope("a@b.test", "x@here.test")
        w.cmd("DATA", 354)
        w.send(body)
        begun = time.monotonic()
        w.send(b".\r\n")
        assert w.reply().code == 250
        assert time.monotonic() - begun >= 0.2
    assert p.delivered("x", b"Subject: large").endswith(body[-1000:])


def test_large_body_with_failing_sync(p):
    body = b"Subject: large-eio\r\n\r\n" + (b"y" * 98 + b"\r\n") * 60_000
    with p.connect() as w, Strace(p, "error=EIO"):
        w.ehlo()
        w.envelope("a@b.test", "x@here.test")
        w.cmd("DATA", 354)
        w.send(body + b".\r\n")
        assert w.reply().code == 451


# full disk

def fill_and_count(p, free):
    """Sends until 452 comes, frees space, and counts."""
    load = Load(p, recipient="x@here.test", connections=4, size=30_000)
    until(lambda: any(r.code == 452 for r in load.refused), f"452; so far {load.refused[-2:]}, {len(load.acked)} taken", 60)
    assert all(r.code // 100 == 4 for r in load.refused), load.refused[:3]
    free()
    size = len(load.acked)
    load.wait(size + 5, 60)
    acked = load.stop()
    until(lambda: set(acked) <= set(names(p.maildir("x"))), "every acknowledged message", 60)


@pytest.mark.root
def test_full_disk(tmp_path):
    """A spool on a small file system that others fill: 452, nothing lost, and mail again when there is room."""
    p = Postern(server("full.test", listen=["{address}:2525"]), start=False)
    spool = p.dir / "spool"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", str(spool)], check=True)
    try:
        # The next hop hangs, so that mail stays: the spool fills with messages.
        p.write(TEXT.replace("smtpd_processes = 1", "smtpd_processes = 1\nsegment_size = \"2M\"").replace(
            'deliver = "maildir:{dir}/mail/%u"', 'deliver = "lmtp:127.11.9.9:24"')
            + domain("other.test", deliver="maildir:{dir}/mail/%u"))  # so that the folder is within the sandbox from the start
        p.cli("setup")
        p.start()

        def free():
            """The hop comes to life: what lies there goes, and gives its place back."""
            p.write(TEXT.replace("smtpd_processes = 1", "smtpd_processes = 1\nsegment_size = \"2M\""))
            assert p.reload().returncode == 0
            p.run("queue", "retry", "--all")

        fill_and_count(p, free)
        p.stop()
        assert p.run("spool", "verify").returncode == 0
    finally:
        p.kill()
        subprocess.run(["umount", str(spool)], check=False)
        p.__exit__(None)


def test_disk_full_by_limit_of_file_size(p):
    """ENOSPC from every write of the queue's new segments: what was lent goes on being used, then 452, then recovery."""
    out = p.dir / "strace.full"
    strace = subprocess.Popen(["strace", "-f", "-p", str(p.role("queue")), "-e", "trace=fallocate,pwrite64,pwritev,pwritev2,write",
                               "-e", "inject=fallocate,pwrite64,pwritev,pwritev2:error=ENOSPC", "-o", str(out)],
                              stderr=subprocess.PIPE, text=True)
    assert "attached" in strace.stderr.readline()
    load = Load(p, recipient="x@here.test", connections=4, size=60_000)
    try:
        until(lambda: any(r.code == 452 for r in load.refused), "452", 60)
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(20)
    size = len(load.acked)
    load.wait(size + 5, 60)
    acked = load.stop()
    assert all(r.code // 100 == 4 for r in load.refused)
    until(lambda: set(acked) <= set(names(p.maildir("x"))), "every acknowledged message", 60)


# damage

def segments(p):
    return sorted((f for f in (p.dir / "spool").rglob("*") if f.is_file() and f.stat().st_size >= 1 << 20),
                  key=lambda f: f.stat().st_mtime)


def queued_and_stopped(count=30):
    text = TEXT + domain("stuck.test", deliver="lmtp:127.11.9.8:24")
    p = Postern(text)
    ids = [p.deliver("a@b.test", "x@stuck.test", b"Subject: DAMAGE-%03d\r\n\r\n" % i + b"q" * 200 + b"\r\n") for i in range(count)]
    for queue_id in ids:
        p.sent(queue_id, status="deferred")
    p.stop()
    return p, ids


def test_corrupt_record_is_found():
    """Damage within acknowledged mail: verify exits 1 and says where; the daemon starts, says so, and keeps the rest."""
    p, ids = queued_and_stopped()
    try:
        assert p.run("spool", "verify").returncode == 0
        hit = None
        for file in segments(p):
            data = file.read_bytes()
            at = data.find(b"Subject: DAMAGE-010")
            if at >= 0:
                hit = file
                with open(file, "r+b") as f:
                    f.seek(at + 30)
                    f.write(b"XXXXXXXX")
        assert hit, "the message lies in a segment"
        done = p.run("spool", "verify")
        assert done.returncode == 1 and hit.name in done.stdout, done
        p.start()
        until(lambda: len(p.queue()) >= 29, "the other 29")
        assert p.log.find(r"(?i)(damage|corrupt)"), "an event says it"
        left = {row["queue_id"] for row in p.queue()}
        assert left >= set(ids[:10]) | set(ids[11:])
        p.stop()
    finally:
        p.kill()
        p.__exit__(None)


def test_torn_tail_is_no_damage():
    """Octets behind the last synced record, as a crash leaves them: noted, and nothing is called damaged."""
    p, ids = queued_and_stopped(10)
    try:
        for file in segments(p):
            data = file.read_bytes()
            at = data.rfind(b"DAMAGE-009")
            if at >= 0:
                behind = (at // 4096 + 1) * 4096
                with open(file, "r+b") as f:
                    f.seek(behind)
                    f.write(os.urandom(1000))
        done = p.run("spool", "verify")
        assert done.returncode == 0, done.stdout + done.stderr
        p.start()
        until(lambda: len(p.queue()) == 10, "all ten")
        p.stop()
    finally:
        p.kill()
        p.__exit__(None)


def test_unreadable_spool():
    """A spool folder that cannot be used: 78 or 7x with the path, nothing invented."""
    p = Postern(TEXT, start=False)
    lost = p.dir / "spool"
    lost.rename(p.dir / "moved")
    lost.write_text("not a folder")
    p.start(wait=False)
    code = p.process.wait(40)
    p.log.thread.join(10)
    assert code in (71, 73, 74, 75, 78) and str(lost) in "\n".join(p.log.lines), (code, p.log.lines)
    p.ended()
    p.__exit__(None)


def test_no_message_is_acknowledged_from_memory(p):
    """A reading of the disk the moment 250 comes finds the message there (page cache counts: the kernel did not die)."""
    marker = b"ON-THE-DISK-AT-250"
    with p.connect() as w:
        w.ehlo()
        assert w.message("a@b.test", "x@null.test", b"Subject: " + marker + b"\r\n\r\nx\r\n").code == 250
        assert any(marker in f.read_bytes() for f in Path(p.dir / "spool").rglob("*") if f.is_file())
