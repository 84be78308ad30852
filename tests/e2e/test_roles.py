"""The processes: who they are, what they may, and what happens when one of them dies."""
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from daemon import POSTERN, POSTERND, Postern, alive, domain, fresh_source, host, server, status, until
from peers import Sink
from wire import Closed

ROLES = ("smtpd", "queue", "delivery", "auth", "keys")
USERS = {"queue": "postern", "smtpd": "postern-smtpd", "keys": "postern-keys", "auth": "postern-auth",
         "delivery": "postern-delivery"}


@pytest.fixture(scope="module")
def sink():
    with Sink("127.8.0.1") as s:
        yield s


@pytest.fixture(scope="module")
def p(pki, sink):
    text = 'retry_min = "1s"\nretry_max = "2s"\n' + server(
        "roles.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"], certificate=pki.mail[0], key=pki.mail[1])
    text += domain("here.test", deliver="maildir:{dir}/mail/%u") + domain("far.test", via=[sink.hop], tls="none")
    with Postern(text) as daemon:
        yield daemon


def test_every_role_runs(p):
    names = [role for role, _ in p.roles()]
    assert set(names) == set(ROLES) and names.count("smtpd") == 2


@pytest.mark.root
@pytest.mark.parametrize("role", ROLES)
def test_user_of_role(p, role):
    import pwd
    wanted = pwd.getpwnam(USERS[role]).pw_uid
    for (name, _), pid in p.roles().items():
        if name == role:
            assert status(pid)["Uid"].split() == [str(wanted)] * 4 and wanted != 0
            assert "0" not in status(pid)["Gid"].split() and "0" not in status(pid)["Groups"].split()


@pytest.mark.ordinary
def test_user_of_roles_is_ours(p):
    for pid in p.roles().values():
        assert status(pid)["Uid"].split() == [str(os.geteuid())] * 4


@pytest.mark.parametrize("role", ROLES)
def test_sandbox(p, role):
    for (name, _), pid in p.roles().items():
        if name == role:
            fields = status(pid)
            assert fields["Seccomp"] == "2" and fields["NoNewPrivs"] == "1", fields
            assert int(fields["CapEff"], 16) == int(fields["CapPrm"], 16) == 0
            assert int(fields["CapBnd"], 16) == 0 or os.geteuid() != 0
            for task in Path(f"/proc/{pid}/task").iterdir():  # threads too
                try:
                    rows = (task / "status").read_text()
                except OSError:
                    continue  # a thread that has ended
                assert re.search(r"^Seccomp:\s+2$", rows, re.M), task


@pytest.mark.root
@pytest.mark.parametrize("role", ["smtpd", "keys"])
def test_empty_root(p, role):
    pid = p.role(role)
    root = os.readlink(f"/proc/{pid}/root")
    assert root != "/", "smtpd and keys have a root folder of their own"
    assert set(os.listdir(f"/proc/{pid}/root/")) <= {"etc", "krb5.conf"}


@pytest.mark.root
def test_no_long_lived_secret_in_smtpd(p):
    links = [os.readlink(f"/proc/{p.role('smtpd')}/fd/{fd}") for fd in os.listdir(f"/proc/{p.role('smtpd')}/fd")]
    assert not any(link.endswith((".key", ".db", ".pw")) for link in links), links


@pytest.mark.root
def test_keys_and_passwords_of_root_are_enough(p):
    """key and certificate are root:root 0600 here, and TLS works: master opened them."""
    from wire import client_context
    with p.connect(source=fresh_source()) as w:
        w.ehlo()
        w.starttls(client_context())


@pytest.mark.root
def test_control_socket_asks_who(p, tmp_path):
    """Any local user may hand over mail, only root and the daemon's own users may do more."""
    def as_nobody(*words):
        return subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(p_binary(p)), *words, "-c",
                               str(p.config)], capture_output=True, text=True, timeout=30)
    done = as_nobody("reload")
    assert done.returncode == 77, done
    assert p.run("reload").returncode == 0


def p_binary(p):
    """The command where nobody can reach it."""
    copy = p.dir / "postern"
    if not copy.exists():
        shutil.copy(POSTERN, copy)
        copy.chmod(0o755)
    return copy


# deaths

def pump(p, marker, count=40, kill=None, at=15):
    """Sends while something dies; every message gets its 250 in the end, from as many connections as that takes."""
    wire, acked, tries = None, [], 0
    killed = False
    while len(acked) < count:
        tries += 1
        assert tries < 4000, "the service did not come back"
        if len(acked) >= at and kill and not killed:
            killed = True
            kill()
        try:
            if wire is None:
                wire = p.connect(source=fresh_source())
                wire.ehlo()
            to = ("x@here.test", "x@far.test")[len(acked) % 2]
            name = f"{marker}-{len(acked):03d}"
            reply = wire.message("s@here.test", to, f"Subject: {name}\r\n\r\nx\r\n".encode())
            if reply.code == 250:
                acked.append(name)
            else:
                assert reply.code // 100 == 4, reply
        except AssertionError as problem:
            assert re.search(r"-> 4\d\d|^4\d\d|421", str(problem)), problem
            wire = None
        except (Closed, OSError):
            wire = None
    return acked


@pytest.mark.parametrize("role", ROLES)
def test_role_dies_while_mail_flows(p, sink, role):
    marker = f"death-{role}"
    old = p.roles()

    def kill():
        for (name, _), pid in old.items():
            if name == role:
                os.kill(pid, signal.SIGKILL)

    acked = pump(p, marker, kill=kill)
    p.log.wait(rf"master\.role\.died.*\b{role}\b")
    seen = set()

    def all_there():
        while not sink.mails.empty():
            seen.update(re.findall(rf"{marker}-\d+", sink.mails.get().content.decode()))
        for message in p.maildir("x"):
            seen.update(re.findall(rf"{marker}-\d+", message.decode()))
        return set(acked) <= seen

    until(all_there, f"every acknowledged message of {len(acked)}", 60)
    new = until(lambda: (r := p.roles()) and len(r) == len(old) and r, "all roles again")
    assert all(new[k] != old[k] for k in old if k[0] == role) and all(new[k] == old[k] for k in old if k[0] != role)
    p.deliver("a@b.test", "y@here.test")


def test_master_dies(pki):
    """Every role sees the end and goes; a new master takes the spool over and delivers what was acknowledged."""
    text = server("m.test", listen=["{address}:2525"]) + domain("here.test", deliver="maildir:{dir}/mail/%u")
    with Postern(text) as p:
        for i in range(20):
            p.deliver("a@b.test", "x@here.test", b"Subject: before-%d\r\n\r\nx\r\n" % i)
        pids = list(p.roles().values())
        p.process.kill()
        p.process.wait(10)
        until(lambda: not any(alive(pid) for pid in pids), "the roles have gone with their master")
        p.ended()
        p.start()
        until(lambda: len({m.split(b"Subject: ")[1].split(b"\r\n")[0] for m in p.maildir("x")}) == 20, "all twenty")


def test_role_that_keeps_dying_is_restarted_with_backoff(pki):
    text = server("m.test", listen=["{address}:2525"]) + domain("here.test", deliver="discard")
    with Postern(text) as p:
        for _ in range(4):
            p.kill_role("delivery")
        p.sent(p.deliver("a@b.test", "x@here.test"))
        assert len(p.log.find(r"master\.role\.died.*delivery")) == 4


@pytest.mark.parametrize("role", ROLES)
def test_role_that_hangs_is_replaced(role):
    """Its loop turns no more, but it is there: nobody would be told. Master asks, misses the answers, and ends it."""
    text = server("m.test", listen=["{address}:2525"]) + domain("here.test", deliver="discard")
    with Postern("smtpd_processes = 1\n" + text, env=dict(os.environ, POSTERN_WATCH_MS="300")) as p:
        others = {k: pid for k, pid in p.roles().items() if k[0] != role}
        pid = p.role(role)
        os.kill(pid, signal.SIGSTOP)
        assert re.search(rf"role={role}\b", p.log.wait(r"event=master\.role\.hung"))
        p.log.wait(rf"master\.role\.died.*\b{role}\b")
        until(lambda: p.roles().get((role, 0)) not in (None, pid), "a new one")
        p.sent(p.deliver("a@b.test", "x@here.test"))
        now = p.roles()
        assert all(now[k] == others[k] for k in others), "nobody else"


def test_nobody_hangs_when_all_were_stopped(pki):
    """As when the machine sleeps: what was missed meanwhile counts for nobody."""
    text = server("m.test", listen=["{address}:2525"]) + domain("here.test", deliver="discard")
    with Postern(text, env=dict(os.environ, POSTERN_WATCH_MS="300")) as p:
        before = p.roles()
        pids = [p.process.pid, *before.values()]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        threading.Event().wait(3)  # longer than a process may be silent
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        p.sent(p.deliver("a@b.test", "x@here.test"))
        assert p.roles() == before and not p.log.find(r"master\.role\.hung")


# beginning and end

def test_term_drains(pki):
    """SIGTERM: a message whose data is under way is finished and acknowledged, then everything ends with 0."""
    text = server("m.test", listen=["{address}:2525"]) + domain("here.test", deliver="maildir:{dir}/mail/%u")
    with Postern(text) as p:
        with p.connect() as w:
            w.ehlo()
            w.envelope("a@b.test", "x@here.test")
            w.cmd("DATA", 354)
            w.send(b"Subject: drained\r\n\r\n")
            mark = p.log.mark()
            os.kill(p.process.pid, signal.SIGTERM)
            until(lambda: p.log.mark() > mark or refused(p), "draining begins")
            w.send(b"x\r\n.\r\n")
            assert w.reply().code == 250
            w.sock.settimeout(10)
        p.stop()
        p.start()
        p.delivered("x", b"drained")


def refused(p):
    try:
        with p.connect(greeting=None) as w:
            return w.reply(2).code != 220
    except (OSError, Closed):
        return True


def test_second_daemon_on_the_spool(p):
    """It waits for the lock, says so, and gives up with 75; the first is not touched."""
    other = subprocess.Popen([str(POSTERND), "-c", str(p.config), "-f"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             text=True)
    try:
        line = other.stderr.readline()
        assert "lock" in line and str(p.dir / "spool") in line, line
        other.send_signal(signal.SIGTERM)
        other.wait(60)
    finally:
        other.kill()
        other.wait()
    p.deliver("a@b.test", "x@here.test")


IDLE = server("idle.test", listen=["{address}:2525"])


def run_once(text):
    p = Postern(IDLE, start=False)
    p.write(text)
    try:
        done = subprocess.run([str(POSTERND), "-c", str(p.config), "-f"], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr
    finally:
        p.__exit__(None)


def test_start_with_mistakes():
    code, said = run_once("nonsense = 1\n" + server("x.test", listen=["{address}:2525"], acept="any"))
    assert code == 78 and re.search(r"postern\.conf:\d+: ", said) and "nonsense" in said and "accept" in said, said


def test_start_without_configuration():
    done = subprocess.run([str(POSTERND), "-c", "/nonexistent/p.conf", "-f"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 66 and "/nonexistent/p.conf" in done.stderr


def test_start_with_a_key_that_does_not_match(pki):
    code, said = run_once(server("x.test", listen=["{address}:2525"], certificate=pki.mail[0], key=pki.partner[1]))
    assert code == 78 and str(pki.partner[1]) in said, said


def test_start_with_a_missing_key(pki):
    code, said = run_once(server("x.test", listen=["{address}:2525"], certificate=pki.mail[0], key="{dir}/none.key"))
    assert code == 78 and "none.key" in said, said


def test_start_on_a_port_in_use(p):
    other = Postern(IDLE, start=False)
    with socket.create_server((other.address, 2525)):
        other.write(server("x.test", listen=["{address}:2525"]))
        done = subprocess.run([str(POSTERND), "-c", str(other.config), "-f"], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0 and f"{other.address}:2525" in done.stderr, done
    other.__exit__(None)


def test_start_without_folders():
    p = Postern(IDLE, start=False)
    p.write('spool = "{dir}/not-there"\n' + server("x.test", listen=["{address}:2525"]))
    p.config.write_text(p.config.read_text().split("\n", 1)[1])  # without the fixture's own spool
    done = subprocess.run([str(POSTERND), "-c", str(p.config), "-f"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and "postern setup" in done.stderr and "not-there" in done.stderr, done
    p.__exit__(None)


def test_background(pki):
    """Without -f posternd returns when every role serves, and not before."""
    text = server("bg.test", listen=["{address}:2525"]) + domain("here.test", deliver="discard") + 'log = "{dir}/log/out"\n'
    p = Postern(text, start=False)
    (p.dir / "log").chmod(0o777)
    done = subprocess.run([str(POSTERND), "-c", str(p.config)], stdout=subprocess.PIPE, timeout=60)  # stderr stays open
    assert done.returncode == 0, done
    try:
        with p.connect() as w:
            w.ehlo()
    finally:
        for pid in (int(d.name) for d in Path("/proc").iterdir() if d.name.isdigit()):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if str(p.config).encode() in words:
                os.kill(pid, signal.SIGTERM)
                until(lambda: not alive(pid), "the daemon in the background ends", 40)
        p.__exit__(None)
