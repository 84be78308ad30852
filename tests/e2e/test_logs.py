"""What is written: delivery lines that pflogsumm reads, the protocol log without secrets, the session log as JSON."""
import json
import re
import socket
import subprocess
import threading

import pytest

from conftest import HOSTS, PASSWORD
from daemon import Postern, domain, fresh_source, host, server, until
from peers import Sink
from wire import b64, client_context


@pytest.fixture(scope="module")
def sink():
    with Sink("127.9.0.1") as s:
        s.answer = lambda session, verb, line: "550 5.1.1 no" if verb == "RCPT" and "gone" in line else \
            "450 4.2.0 later" if verb == "RCPT" and "later" in line else None
        yield s


def test_pflogsumm(pki, sink, tmp_path):
    """A day's work in the log; pflogsumm counts what happened."""
    text = server("log.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"]) + \
        domain("here.test", deliver="maildir:{dir}/mail/%u") + domain("far.test", via=[sink.hop], tls="none")
    with Postern(text) as p:
        for to, fate in [("a@here.test", "sent"), ("b@here.test", "sent"), ("x@far.test", "sent"), ("gone@far.test", "bounced"),
                         ("later@far.test", "deferred")]:
            p.sent(p.deliver("s@here.test", to), to, fate)
        p.delivered("s", b"gone@far.test")  # the bounce
        with p.connect(source=fresh_source()) as w:
            w.ehlo()
            w.cmd("MAIL FROM:<a@b.test>", 250)
            w.cmd("RCPT TO:<x@nowhere.test>", 550)
        p.log.wait(r"nowhere\.test")
        lines = [line for line in p.log.lines if "postern/" in line]
    log = tmp_path / "mail.log"
    log.write_text("\n".join(lines) + "\n")
    done = subprocess.run(["pflogsumm", "--syslog-name=postern", "--verbose-msg-detail", str(log)], capture_output=True,
                          text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    got = {name: int(number) for number, name in re.findall(r"^\s+(\d+)\s+(received|delivered|deferred|bounced|rejected)\b",
                                                             done.stdout, re.M)}
    assert got["received"] >= 5 and got["delivered"] >= 3 and got["deferred"] == 1 and got["bounced"] == 1, done.stdout
    assert "far.test" in done.stdout and "here.test" in done.stdout, done.stdout


def test_lines_of_a_message(main):
    queue_id = main.deliver("a@b.test", "alice@corp.test", source=HOSTS.plain)
    main.removed(queue_id)
    lines = main.log.find(rf"\]: {queue_id}: ")
    assert re.search(rf"postern/smtpd\[\d+\]: {queue_id}: client=\S*\[{re.escape(HOSTS.plain)}\]", lines[0]), lines
    assert any(re.search(r"postern/(qmgr|cleanup)\[\d+\]: \w+: from=<a@b\.test>, size=\d+, nrcpt=1 ", line) for line in lines), lines
    assert re.search(r"postern/\w+\[\d+\]: \w+: to=<alice@corp\.test>, .*status=sent", "\n".join(lines))
    assert lines[-1].endswith(f"{queue_id}: removed")
    assert re.match(r"[0-9A-F]{10,20}$", queue_id)


def test_queue_ids_are_unique(main):
    with main.connect(source=fresh_source()) as w:
        w.ehlo()
        ids = [w.message("a@b.test", "x@null.test").queue_id for _ in range(100)]
    assert len(set(ids)) == 100


def log_text(path, marker):
    return until(lambda: marker in (text := path.read_text(errors="replace")) and text, f"{marker} in {path}")


def test_protocol_log_has_no_secret(main):
    secrets = [b64(f"\0alice\0{PASSWORD}"), b64(PASSWORD), PASSWORD, b64("\0alice\0typo-pass"), "typo-pass", b64("typo-pass")]
    with main.connect(source=fresh_source()) as w:
        w.ehlo("protocol-log.test")
        w.starttls(client_context(), sni="mail.corp.test")
        w.ehlo("protocol-log-tls.test")
        w.cmd("AUTH PLAIN " + secrets[3], 535)
        w.cmd("AUTH LOGIN", 334)
        w.cmd(b64("alice"), 334)
        w.cmd(b64("typo-pass"), 535)
        w.cmd("AUTH  PLAIN " + secrets[0])
        w.cmd("auth plain " + secrets[0])
        w.cmd("AUTHPLAIN " + secrets[0])
        w.cmd("RSET")
        w.message("log-sender@b.test", "alice@corp.test", b"Subject: secret-subject\r\n\r\nsecret-body-line\r\n")
        w.cmd("QUIT", 221)
    text = log_text(main.dir / "log" / "mail.log", "221 2.0.0")
    text = log_text(main.dir / "log" / "mail.log", "log-sender@b.test")
    for secret in secrets:
        assert secret not in text, secret
        assert secret not in "\n".join(main.log.lines)
    assert "secret-body-line" not in text and "secret-subject" not in text
    [session] = {line.split(" ")[1] for line in text.splitlines() if "protocol-log-tls.test" in line and "<" in line}
    mine = [line for line in text.splitlines() if f" {session} " in line]
    assert any(re.search(r" < MAIL FROM:<log-sender@b\.test>", line) for line in mine), mine
    assert any(re.search(r" > 250 ", line) for line in mine) and all(re.match(r"\d{4}-\d\d-\d\dT", line) for line in mine)


def test_protocol_log_of_deliveries(pki):
    """A route's server logs what is said to its next hop, without secrets, and into the new file after a rotation."""
    import os
    import signal
    from peers import server_context
    with Sink("127.9.0.2", context=server_context(*pki.sink), mechanisms="PLAIN", users={"relay": "out-secret"}) as hop:
        hop.answer = lambda session, verb, line: "550 5.1.1 no \x1b[31m one" if verb == "RCPT" and "gone" in line else None
        text = server("first.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"], protocol_log="{dir}/log/first.log")
        text += server("second.test", protocol_log="{dir}/log/second.log", listen=["{address}:2526"])
        text += domain("far.test", via=[hop.hop], tls="require", auth="PLAIN", user="relay", password_file="{dir}/pw",
                       server="second.test") + domain("here.test", deliver="discard")
        p = Postern(text, start=False)
        (p.dir / "pw").write_text("out-secret\n")
        (p.dir / "pw").chmod(0o600)
        with p:
            p.start()
            log = p.dir / "log" / "second.log"
            p.sent(p.deliver("a@b.test", "x@far.test", b"Subject: s\r\n\r\nbody-of-it\r\n"))
            said = log_text(log, "<< 250 2.0.0 taken")
            at = re.escape(f"[{hop.address}]:{hop.port}")
            for line in (">> EHLO second.test", ">> STARTTLS", "<< 220 2.0.0 go", ">> MAIL FROM:<a@b.test>", ">> RCPT TO:<x@far.test>"):
                assert re.search(rf"^\S+Z OUT[0-9A-F]+ \S*{at} {re.escape(line)}", said, re.M), (line, said)
            assert re.search(r">> AUTH PLAIN", said) and "body-of-it" not in said
            for secret in ("out-secret", b64("\0relay\0out-secret")):
                assert secret not in said
            assert ">>" not in (p.dir / "log" / "first.log").read_text(), "only its own"
            old = log.rename(log.with_suffix(".old"))
            os.kill(p.process.pid, signal.SIGUSR1)
            until(log.exists, "a new file")

            def in_new():
                p.sent(p.deliver("a@b.test", "gone@far.test"), status="bounced")
                return ">> RCPT TO:<gone@far.test>" in log.read_text()

            until(in_new, "deliveries in the new file")
            assert "\x1b" not in log.read_text() + old.read_text()


def test_a_peer_cannot_forge_a_line(main):
    with main.connect(source=fresh_source()) as w:
        w.ehlo("forge.test")
        w.cmd(b"NOOP \x1b[31m\x07 forged", None)
        w.cmd("MAIL FROM:<\"x\\\ny\"@b.test>".replace("\n", "\x0b"))
        w.cmd("RSET", 250)
        w.envelope("a@b.test", "alice@corp.test")
        w.cmd("RCPT TO:<nobody-forge@corp.test>", 550)
        w.cmd("QUIT", 221)
    text = log_text(main.dir / "log" / "mail.log", "nobody-forge")
    assert "\x1b" not in text and "\x07" not in text
    assert "\x1b" not in "\n".join(main.log.lines)


def session_line(main, helo):
    path = main.dir / "log" / "sessions.jsonl"

    def find():
        whole = path.read_text().rpartition("\n")[0]  # a reader may see a line half written
        rows = [json.loads(line) for line in whole.splitlines()]
        return next((row for row in rows if row["helo"] == helo), None)

    return until(find, f"the session of {helo}")


def test_session_log(main):
    source = fresh_source()
    with main.connect(source=source) as w:
        port = w.sock.getsockname()[1]
        w.ehlo("session-one.test")
        w.starttls(client_context(), sni="mail.corp.test")
        w.ehlo("session-one.test")
        w.auth_plain("alice", PASSWORD, code=235)
        w.envelope("alice@corp.test", "bob@corp.test", "x@out.test")
        w.cmd("DATA", 354)
        w.send(b"Subject: s\r\n\r\nx\r\n.\r\n")
        assert w.reply().code == 250
        w.cmd("QUIT", 221)
    row = session_line(main, "session-one.test")
    assert row["server"] == "mail.corp.test" and row["client"] == source and row["port"] == port
    assert row["tls_version"] == "TLSv1.3" and "AES" in row["tls_cipher"] or "CHACHA" in row["tls_cipher"]
    assert row["mechanism"] == "PLAIN" and row["user"] == "alice" and row["result"] == "accepted"
    assert row["recipients"] == 2 and row["relayed"] == 1 and row["octets"] > 100
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$", row["time"])


def test_session_log_names_the_host_rule(main):
    with main.connect(source=HOSTS.scanner) as w:
        w.ehlo("session-two.test")
        w.cmd("QUIT", 221)
    row = session_line(main, "session-two.test")
    rule = row["host_rule"]
    assert rule["network"] == HOSTS.scanner and rule["file"] == str(main.config)
    assert HOSTS.scanner in main.config.read_text().splitlines()[rule["line"] - 1]
    assert row["tls_version"] is None and row["mechanism"] is None and row["user"] is None


def test_session_log_of_a_refused_login(main):
    with main.connect(source=fresh_source()) as w:
        w.ehlo("session-three.test")
        w.starttls(client_context(), sni="mail.corp.test")
        w.ehlo("session-three.test")
        w.auth_plain("alice", "wrong", code=535)
        w.cmd("QUIT", 221)
    row = session_line(main, "session-three.test")
    assert row["result"] == "rejected" and row["cause"] and row["user"] == "alice"


def test_json_log(pki):
    text = 'log_format = "json"\n' + server("json.test", listen=["{address}:2525"], certificate=pki.mail[0], key=pki.mail[1]) + \
        domain("here.test", deliver="discard")
    with Postern(text) as p:
        p.deliver("a@b.test", "x@here.test")
        p.log.wait("removed")
        for line in p.log.lines:
            assert isinstance(json.loads(line), dict), line


def test_log_to_a_file_and_reopen(pki):
    """USR1 after a rotation: the next line is in a new file, and none is lost."""
    import os
    import signal
    text = 'log = "{dir}/log/postern.log"\n' + server("file.test", listen=["{address}:2525"]) + \
        domain("here.test", deliver="discard")
    p = Postern(text, start=False)
    p.start(wait=False)
    log = p.dir / "log" / "postern.log"
    with p:
        until(lambda: log.exists() and "master.ready" in log.read_text(), "ready")
        first = p.deliver("a@b.test", "x@here.test")
        until(lambda: f"{first}: removed" in log.read_text(), "the first")
        old = log.rename(log.with_suffix(".old"))
        os.kill(p.process.pid, signal.SIGUSR1)
        until(log.exists, "a new file")

        def in_new():
            queue_id = p.deliver("a@b.test", "x@here.test")
            until(lambda: f"{queue_id}: removed" in old.read_text() + (log.read_text() if log.exists() else ""), queue_id)
            return f"{queue_id}: removed" in log.read_text()

        until(in_new, "lines of every role in the new file")


class Receiver:
    """What stands at a log's socket: keeps every packet."""

    def __init__(self, path):
        self.packets = []
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        path.chmod(0o666)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        while packet := self.sock.recv(1 << 20):
            self.packets.append(packet.decode())

    def find(self, pattern):
        return [packet for packet in self.packets if re.search(pattern, packet)]


# A mount namespace in which /dev/log and /run are the test's own.
NAMESPACE = """
set -e
for name in null zero full random urandom; do touch "$0/dev/$name"; mount --bind "/dev/$name" "$0/dev/$name"; done
mount --rbind "$0/dev" /dev
mount --bind "$0/run" /run
exec "$@"
"""


@pytest.mark.root
@pytest.mark.parametrize("to, where", [("syslog", "dev/log"), ("journal", "run/systemd/journal/socket")])
def test_log_to_the_system(to, where):
    text = f'log = "{to}"\n' + server("sys.test", listen=["{address}:2525"]) + domain("here.test", deliver="discard")
    p = Postern(text, start=False)
    (p.dir / "dev").mkdir()
    (p.dir / "run/systemd/journal").mkdir(parents=True)
    receiver = Receiver(p.dir / where)
    p.wrapper = ["unshare", "--mount", "sh", "-c", NAMESPACE, str(p.dir)]
    p.start(wait=False)
    p.wrapper = []  # each of these has become the next: the process is master
    with p:
        until(lambda: receiver.find("master.ready"), f"the first lines in {to}; stderr: {p.log.lines}")
        queue_id = p.deliver("a@b.test", "x@here.test")
        until(lambda: receiver.find(f"{queue_id}: removed"), "the last line of a message")
        [line] = receiver.find(f"{queue_id}: to=<x@here.test>.*status=sent")
        if to == "syslog":  # facility mail (2), severity informational (6): RFC 3164
            assert re.match(r"<22>.*postern/discard\[\d+\]: ", line), line
        else:
            fields = dict(row.split("=", 1) for row in line.strip().split("\n"))
            assert fields["PRIORITY"] == "6" and fields["SYSLOG_FACILITY"] == "2", fields
            assert fields["SYSLOG_IDENTIFIER"] == "postern/discard" and fields["MESSAGE"].startswith(queue_id), fields
