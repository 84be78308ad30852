"""Reload: mistakes change nothing, sessions end under the configuration they began with, `postern reload` returns
when every role runs the new one."""
import os
import re
import signal
import threading

import pytest

from conftest import PASSWORD
from daemon import Postern, alive, domain, fresh_source, host, server, until
from peers import Sink
from wire import Wire, client_context


def text(name="old.test", extra="", domains=""):
    return "max_recipients = 10\n" + extra + server(name, listen=["{address}:2525"]) + \
        domain("here.test", deliver="maildir:{dir}/mail/%u") + domains


@pytest.fixture
def p():
    with Postern(text()) as daemon:
        yield daemon


def greeting(p, port=2525):
    with p.connect(port) as w:
        return w.greeting.lines[0].split(" ")[0]


def test_reload(p):
    with p.connect() as before:
        before.ehlo()
        p.write(text("new.test", domains=domain("added.test", deliver="discard")))
        done = p.reload()
        assert done.returncode == 0, done.stdout + done.stderr
        # every process of every role: ask often enough that each smtpd answers
        assert {greeting(p) for _ in range(12)} == {"new.test"}
        # a session ends as it began
        assert before.cmd("EHLO again", 250).lines[0].startswith("old.test")
        before.cmd("MAIL FROM:<a@b.test>", 250)
        before.cmd("RCPT TO:<x@added.test>", 550)
        before.cmd("RCPT TO:<x@here.test>", 250)
        before.cmd("DATA", 354)
        before.send(b"Subject: begun-before\r\n\r\nx\r\n.\r\n")
        assert before.reply().code == 250
    assert b"by old.test" in p.delivered("x", b"begun-before")
    p.sent(p.deliver("a@b.test", "x@added.test"))


@pytest.mark.parametrize("mistake, word", [
    ("nonsense = 1\n", "nonsense"), ("max_recipients = \"many\"\n", "max_recipients"), ("server \"x\" {\n", ""),
    ("max_recipents = 5\n", "max_recipients"), (server("t.test", listen=["{address}:2530"], accept="tls"), "certificate"),
    (server("t.test", submission=["{address}:2530"]), "certificate"),
    (server("t.test", listen=["{address}:2530"], certificate="/nonexistent/c.pem"), "/nonexistent/c.pem")],
    ids=["unknown", "type", "syntax", "hint", "tls-without-certificate", "submission-without-certificate", "file"])
def test_mistake_changes_nothing(p, mistake, word):
    pids = p.roles()
    p.write(text("new.test", extra="" if mistake.startswith("server") else mistake,
                 domains=mistake if mistake.startswith("server") else ""))
    done = p.reload()
    assert done.returncode == 78, done
    assert word in done.stdout + done.stderr
    before = len(p.log.lines)
    os.kill(p.process.pid, signal.SIGHUP)
    p.log.wait(r"master\.reload\.refused", since=before)
    assert {greeting(p) for _ in range(6)} == {"old.test"} and p.roles() == pids
    p.write(text("good.test"))
    assert p.reload().returncode == 0
    assert greeting(p) == "good.test"


def test_hup(p):
    p.write(text("hup.test"))
    os.kill(p.process.pid, signal.SIGHUP)
    p.log.wait(r"master\.reloaded")
    assert {greeting(p) for _ in range(12)} == {"hup.test"}


def test_listeners_come_and_go(p):
    p.write(text().replace('"{address}:2525"', '"{address}:2525", "{address}:2526"'))
    assert p.reload().returncode == 0
    assert greeting(p, 2526) == "old.test"
    p.write(text())
    assert p.reload().returncode == 0
    with pytest.raises(ConnectionError):
        Wire((p.address, 2526))


def test_many_reloads_under_traffic(p):
    with p.connect() as w:
        w.ehlo()
        for i in range(10):
            p.write(text(f"n{i}.test"))
            assert p.reload().returncode == 0
            assert w.message("a@b.test", "x@here.test", b"Subject: r%d\r\n\r\nx\r\n" % i).code == 250
            assert greeting(p) == f"n{i}.test"
    assert not p.log.find(r"master\.role\.died")


def test_route_and_password_change(pki):
    with Sink("127.7.0.1", mechanisms="PLAIN LOGIN", users={"u": "two"}) as sink:
        from peers import server_context
        sink.context = server_context(*pki.sink)
        base = 'retry_min = "1s"\nretry_max = "1s"\n' + server("r.test", host("127.0.0.0/8", relay=True),
                                                               listen=["{address}:2525"])
        route = domain("far.test", via=[sink.hop], tls="require", auth="PLAIN", user="u", password_file="{dir}/pw")
        p = Postern(base + route, start=False)
        (p.dir / "pw").write_text("one\n")
        (p.dir / "pw").chmod(0o600)
        with p:
            p.start()
            queue_id = p.deliver("a@b.test", "x@far.test")
            p.sent(queue_id, status="deferred")
            (p.dir / "pw").write_text("two\n")
            assert p.reload().returncode == 0
            p.sent(queue_id)
            assert sink.get().user == "u"


def test_certificate_change(pki):
    base = server("c.test", listen=["{address}:2525"], certificate="{dir}/c.pem", key="{dir}/c.key")
    p = Postern(base, start=False)

    def put(pair):
        for source, name in zip(pair, ("c.pem", "c.key")):
            (p.dir / name).write_bytes(source.read_bytes())
            (p.dir / name).chmod(0o600)

    def subject():
        import ssl
        with p.connect() as w:
            w.ehlo()
            w.starttls(client_context())
            return ssl.DER_cert_to_PEM_cert(w.sock.getpeercert(binary_form=True))

    put(pki.mail)
    with p:
        p.start()
        first = subject()
        put(pki.partner)
        assert p.reload().returncode == 0
        assert {subject() for _ in range(6)} - {first} and subject() != first
        (p.dir / "c.key").write_bytes(pki.mail[1].read_bytes())  # a key that does not fit
        assert p.reload().returncode == 78
        assert subject() != first


def test_what_needs_a_restart_is_said(p):
    p.write('log_format = "json"\nsmtpd_processes = 3\n' + text("new.test"))
    for _ in range(2):  # it is said again until the restart
        done = p.reload()
        assert done.returncode == 0 and greeting(p) == "new.test"
        assert re.search(r"warning: .*log_format: ", done.stderr) and "smtpd_processes: " in done.stderr, done
        assert "max_recipients" not in done.stderr
    p.log.wait(r"master\.restart\.needed.*log_format")
    p.write(text("again.test"))
    done = p.reload()
    assert (done.returncode, done.stderr) == (0, ""), done


def test_a_later_reload_takes_the_place_of_an_earlier_one(p):
    """The first one never returned while a process hung; it must say 75 when it is superseded."""
    pid = p.role("auth")
    os.kill(pid, signal.SIGSTOP)
    try:
        p.write(text("first.test"))
        first = p.background("reload")
        until(lambda: greeting(p) == "first.test", "smtpd runs the first")
        p.write(text("second.test"))
        second = p.background("reload")
        assert first.wait(60) == 75 and "another reload" in first.stderr.read()
        assert second.poll() is None, "auth does not run it yet"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert second.wait(60) == 0
    assert greeting(p) == "second.test"


def test_new_mail_folder_does_not_wait_for_a_slow_hop(pki):
    """A new Landlock set needs a new process; the one that talks to a slow hop finishes beside it, and nothing is sent
    twice."""
    release = threading.Event()
    with Sink("127.7.0.2") as slow:
        slow.final = lambda session, mail: release.wait(120) and ["250 2.0.0 at last"]
        routes = domain("slow.test", via=[slow.hop], tls="none")
        base = server("r.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"])
        with Postern(base + routes + domain("old.test", deliver="maildir:{dir}/mail/%u")) as p:
            queue_id = p.deliver("a@b.test", "x@slow.test")
            slow.connected.acquire(timeout=60)
            until(lambda: "DATA" in slow.verbs() or "BDAT" in slow.verbs(), "it hangs in mid-message")
            old = p.role("delivery")
            p.write(base + routes + domain("old.test", deliver="maildir:{dir}/mail/%u") +
                    domain("new.test", deliver="maildir:{dir}/other/%u"))
            p.cli("setup")
            done = p.reload()
            assert done.returncode == 0, done
            assert alive(old) and not release.is_set(), "the old process still has its message"
            p.sent(p.deliver("a@b.test", "y@new.test", b"Subject: elsewhere\r\n\r\nx\r\n"))
            assert list((p.dir / "other" / "y" / "new").iterdir())
            release.set()
            p.sent(queue_id)
            p.removed(queue_id)
            until(lambda: not alive(old), "the old process has ended")
            assert slow.get().recipients == ["x@slow.test"] and slow.mails.empty(), "once"
            assert not p.log.find(r"master\.role\.died")
            p.kill_role("delivery")
            p.sent(p.deliver("a@b.test", "z@new.test"))


def test_users_are_not_touched_by_reload(pki):
    base = server("c.test", listen=["{address}:2525"], certificate=pki.mail[0], key=pki.mail[1])
    with Postern(base, users={"alice": PASSWORD}) as p:
        assert p.reload().returncode == 0
        with p.connect(source=fresh_source()) as w:
            w.ehlo()
            w.starttls(client_context())
            w.ehlo()
            w.auth_plain("alice", PASSWORD, code=235)
