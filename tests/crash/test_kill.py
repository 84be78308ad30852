"""kill -9 under load: of each role, of all, of master, again and again. Every message that got its 250 arrives."""
import os
import random
import signal

import pytest

from daemon import Postern, alive, domain, host, server, until
from load import Load, names
from peers import Sink

ROLES = ("smtpd", "queue", "delivery", "auth", "keys")


def text(sink):
    return 'max_sessions_per_address = 0\nretry_min = "1s"\nretry_max = "2s"\nmax_errors = 0\nmax_commands = 0\n' + server(
        "crash.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"]) + \
        domain("here.test", deliver="maildir:{dir}/mail/%u") + domain("far.test", via=[sink.hop], tls="none")


@pytest.fixture
def sink():
    with Sink("127.11.0.1") as s:
        yield s


def counted(p, sink, acked, recipient, timeout=90):
    """Waits until all that was acknowledged has arrived; at least once is the promise."""
    seen = {}

    def all_there():
        while not sink.mails.empty():
            for name, n in names([sink.mails.get().content]).items():
                seen[name] = seen.get(name, 0) + n
        here = dict(seen)
        for name, n in names(p.maildir("x")).items():
            here[name] = here.get(name, 0) + n
        missing = set(acked) - set(here)
        return not missing and here

    found = until(all_there, f"{len(acked)} acknowledged messages for {recipient}", timeout)
    twice = sum(n - 1 for n in found.values())
    assert twice <= max(200, len(acked) // 4), f"{twice} duplicates of {len(acked)}"


@pytest.mark.parametrize("recipient", ["x@here.test", "x@far.test"])
@pytest.mark.parametrize("role", ROLES)
def test_role(sink, role, recipient):
    with Postern(text(sink)) as p:
        load = Load(p, recipient)
        for round_ in range(2):
            load.wait(100 * (round_ + 1))
            old = {k: pid for k, pid in p.roles().items() if k[0] == role}
            for pid in old.values():
                os.kill(pid, signal.SIGKILL)
            until(lambda: all((new := p.roles()).get(k) not in (None, pid) for k, pid in old.items()), f"new {role}")
        load.wait(len(load.acked) + 50)
        acked = load.stop()
        counted(p, sink, acked, recipient)
        assert p.process.poll() is None


def test_all_roles_at_once(sink):
    with Postern(text(sink)) as p:
        load = Load(p)
        load.wait(150)
        for pid in p.roles().values():
            os.kill(pid, signal.SIGKILL)
        load.wait(len(load.acked) + 150)
        counted(p, sink, load.stop(), "x@here.test")


@pytest.mark.parametrize("round_", range(3))
def test_master_and_everything(sink, round_):
    """The machine stops dead, but for the disk: a new start finds all that was acknowledged."""
    with Postern(text(sink)) as p:
        recipient = ("x@here.test", "x@far.test")[round_ % 2]
        load = Load(p, recipient)
        load.wait(200 + 150 * round_)
        p.kill()
        acked = load.stop()
        done = p.run("spool", "verify")
        assert done.returncode == 0, done.stdout + done.stderr
        p.start()
        counted(p, sink, acked, recipient)


def test_master_alone(sink):
    """Its roles finish their syncs and replies, and go."""
    with Postern(text(sink)) as p:
        load = Load(p)
        load.wait(200)
        roles = list(p.roles().values())
        p.process.kill()
        p.process.wait(10)
        until(lambda: not any(alive(pid) for pid in roles), "the roles have gone", 30)
        acked = load.stop()
        p.ended()
        p.start()
        counted(p, sink, acked, "x@here.test")


def test_random_deaths(sink):
    with Postern(text(sink)) as p:
        load = Load(p)
        dice = random.Random(4711)
        for _ in range(8):
            load.wait(len(load.acked) + 40)
            running = p.roles()
            victim = dice.choice(sorted(running))
            os.kill(running[victim], signal.SIGKILL)
            until(lambda: p.roles().get(victim) not in (None, running[victim]), f"a new {victim}")
        load.wait(len(load.acked) + 40)
        counted(p, sink, load.stop(), "x@here.test")
