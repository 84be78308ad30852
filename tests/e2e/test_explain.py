"""The command line that explains: the catalogue, and the report from session logs."""
import json
import os
import pty
import re
import subprocess
import time
from collections import Counter

import pytest

from daemon import POSTERN, TREE, Postern, server


def tool(*args, **kw):
    return subprocess.run([str(a) for a in (POSTERN, *args)], capture_output=True, text=True, timeout=60, **kw)


def explain(*args):
    done = tool("explain-event", *args)
    assert done.returncode == 0 and not done.stderr, done
    return done.stdout


# explain-event

def test_list_is_the_document():
    lines = explain().splitlines()
    document = (TREE / "docs" / "events.md").read_text()
    assert len(lines) > 130
    for line in lines:
        number, name, happened = re.match(r"(PE-\d{4})  (\S+) +(\S.*)$", line).groups()
        row = re.search(rf"^\| {number} \| `{re.escape(name.split('/')[-1])}` \|.*$", document, re.M)
        assert row and happened.replace("|", r"\|") in row.group(0), line


@pytest.mark.parametrize("what, names", [
    ("kvno-old", {"auth.reject/kvno-old", "delivery.login.failed/kvno-old"}),
    ("PE-2104", {"auth.reject/kvno-old"}), ("auth.lockout", {"auth.lockout"}),
    ("1012", {"auth.lockout", "auth.reject/locked-out"}), ("MSExchangeTransport 1035", {"auth.reject"}),
    ("0X80090303", {"delivery.login.failed/spn-unknown"}), ("NT_STATUS_WRONG_PASSWORD", {"auth.reject/wrong-password"}),
])
def test_names(what, names):
    events = json.loads(explain(what, "--json"))["events"]
    assert {e["name"] for e in events} == names


def test_old_ids_need_no_quotes():
    assert explain("MSExchangeTransport", "1706") == explain("MSExchangeTransport 1706")
    assert "delivery.login.failed/spn-unknown" in explain("1706")


def test_entry():
    text = explain("auth.reject/kvno-old")
    assert text.startswith("PE-2104  auth.reject/kvno-old  (error; the client is told 454 4.7.0)\n")
    assert "\n    klist -ket KEYTAB\n" in text and "1. the service account's password was reset" in text
    event, = json.loads(explain("auth.reject/kvno-old", "--json"))["events"]
    assert event["id"] == "PE-2104" and event["kind"] == "cause" and "kvno SERVICE" in event["run"]
    everything = json.loads(explain("--json"))["events"]
    assert event in everything
    assert not [e for e in everything if re.search(r"\{[a-z-]+\}", " ".join(e["run"]))]


def test_unknown_names():
    done = tool("explain-event", "kvno-odl")
    assert done.returncode == 1 and 'did you mean "kvno-old"?' in done.stderr and not done.stdout
    done = tool("explain-event", "auth.lokout")
    assert done.returncode == 1 and 'did you mean "auth.lockout"?' in done.stderr
    done = tool("explain-event", "999999")
    assert done.returncode == 1 and "lists all" in done.stderr
    for args in (["--nonsense"], [""], ["x" * 5000], ["--markdown", "nonsense"]):
        assert tool("explain-event", *args).returncode == 64, args


# auth report

def session(**kw):
    base = {"time": "2026-11-20T10:00:00.000Z", "session": "1", "server": "mail.corp.test", "client": "192.0.2.7", "port": 4711,
            "tls_version": "TLSv1.3", "mechanism": None, "user": None, "result": None, "cause": None, "mails": 0}
    return json.dumps(base | kw) + "\n"


def login(mechanism, user="anna", **kw):
    return session(mechanism=mechanism, user=user, result="accepted", cause="none", **kw)


@pytest.fixture
def site():
    daemon = Postern(server("report.test", listen=["{address}:2525"]), start=False)
    daemon.log_folder = daemon.dir / "sessions"
    daemon.log_folder.mkdir()
    daemon.config.write_text(daemon.config.read_text() + f'session_log = "{daemon.log_folder}/s.json"\n')
    yield daemon
    daemon.__exit__(None)


def report(site, *args, code=0):
    done = site.run("auth", "report", *args)
    assert done.returncode == code, done
    return done


def report_json(site, *args):
    return json.loads(report(site, *args, "--json").stdout)


def test_weak_logins(site):
    log = site.log_folder
    (log / "s.json.2026-11-19").write_text(login("NTLM", time="2026-11-19T09:00:00.000Z") + login("PLAIN", client="192.0.2.8"))
    (log / "s.json").write_text(
        login("NTLM", time="2026-11-20T09:00:00.000Z") + login("GSS-SPNEGO", user="CORP\\bob", inner="spnego-ntlm") +
        login("LOGIN", tls_version=None, client="192.0.2.9", user="printer") + login("LOGIN", tls_version="TLSv1.1") +
        login("GSSAPI", inner="krb5") + login("SCRAM-SHA-256") +
        login("GSSAPI", inner="krb5", tls_version=None, layer="confidentiality") +
        session(tls_version=None, mails=2, client="198.51.100.1") + session(tls_version=None) +
        session(mechanism="GSSAPI", result="temporary", cause="kvno-old", client="192.0.2.10") +
        session(mechanism="PLAIN", user="eve", result="rejected", cause="bad-password") * 3)
    found = report_json(site)
    assert found["sessions"] == 15 and found["damaged"] == 0 and found["unlisted"] == 0 and found["since"] is None
    weak = Counter({(w["what"], w["client"], w["user"]): w["count"] for w in found["weak"]})
    assert weak == {
        ("password-in-clear", "192.0.2.9", "printer"): 1, ("ntlm", "192.0.2.7", "anna"): 2, ("ntlm", "192.0.2.7", "CORP\\bob"): 1,
        ("old-tls", "192.0.2.7", "anna"): 1, ("plain", "192.0.2.8", "anna"): 1, ("login", "192.0.2.7", "anna"): 1,
        ("plaintext", "198.51.100.1", None): 1}
    ntlm = next(w for w in found["weak"] if w["mechanism"] == "NTLM")
    assert (ntlm["first"], ntlm["last"]) == ("2026-11-19T09:00:00.000Z", "2026-11-20T09:00:00.000Z")
    assert [(f["cause"], f["id"], f["client"], f["count"]) for f in found["failures"]] == [
        ("bad-password", "PE-2003", "192.0.2.7", 3), ("kvno-old", "PE-2104", "192.0.2.10", 1)]
    lines = [line.split("\t") for line in report(site).stdout.splitlines()]
    assert {len(line) for line in lines} == {9}
    assert lines[0][:6] == ["weak", "password-in-clear", "1", "192.0.2.9", "printer", "LOGIN"]
    assert len(lines) == len(found["weak"]) + len(found["failures"])


def test_since(site):
    now = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - 60))
    (site.log_folder / "s.json").write_text(login("NTLM", time="2020-01-01T00:00:00.000Z") + login("NTLM", time=now, user="now"))
    assert [w["user"] for w in report_json(site, "--since", "1h")["weak"]] == ["now"]
    assert report_json(site, "--since", "2020-01-01")["sessions"] == 2
    assert report_json(site, "--since", "2020-01-01T00:00:01Z")["sessions"] == 1
    assert report_json(site, "--since", "2020-01-01")["since"] == "2020-01-01T00:00:00.000Z"
    assert report_json(site, "--since", "100000000d")["sessions"] == 2
    for bad in ("yesterday", "2020-02-30", "-1d", ""):
        assert "--since" in report(site, "--since", bad, code=64).stderr


def test_hostile_lines(site):
    (site.log_folder / "s.json").write_bytes(
        b"junk\n" + b"x" * 300000 + b"\n\x00\xff\n{}\n" + login("NTLM", user="a\tb\x1b[2J\nc").encode() +
        login("NTLM", user="n\x00l").encode() + login("NTLM", user="\u00e9" * 400).encode() +
        login("NTLM", user=["x"], mails="many").encode() + b'{"time":"2026')
    done = report(site)
    assert "6 lines of the session log are damaged" in done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and {len(line.split("\t")) for line in lines} == {9}
    assert "a?b?[2J?c" in done.stdout and "\x1b" not in done.stdout
    found = report_json(site)
    assert found["damaged"] == 6 and len(found["weak"]) == 3


def test_many_sessions(site):
    """A hundred thousand lines and more different clients than there are rows: time and memory stay bounded."""
    with open(site.log_folder / "s.json", "w") as f:
        for i in range(100000):
            f.write(login("PLAIN", user=f"user{i % 30000}", client=f"10.0.{i % 200}.1"))
    command = ["/bin/sh", "-c", f"ulimit -v 400000; exec {POSTERN} auth report --json -c {site.config}"]
    if os.environ.get("POSTERN_SANITIZER"):
        command[2] = command[2].split("; ", 1)[1] # their shadow memory needs terabytes of addresses
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["sessions"] == 100000 and len(found["weak"]) == 20000
    assert sum(w["count"] for w in found["weak"]) + found["unlisted"] == 100000 and found["unlisted"] > 0


def test_no_log(site):
    assert "no session log" in report(site, code=66).stderr
    text = site.config.read_text()
    site.config.write_text(re.sub(r"session_log = .*\n", "", text))
    assert "sets no session_log" in report(site, code=66).stderr
    site.config.write_text(text + "nonsense = 1\n")
    assert report(site, code=78).stdout == ""
    for args in ([], ["nonsense"], ["report", "--nonsense"], ["report", "--since"]):
        assert site.run("auth", *args).returncode == 64, args


def test_terminal(site):
    """On a terminal: headings and columns, for people."""
    (site.log_folder / "s.json").write_text(
        login("NTLM") + session(mechanism="GSSAPI", result="temporary", cause="kvno-old") * 2)
    ours, theirs = pty.openpty()
    with subprocess.Popen([str(POSTERN), "auth", "report", "-c", str(site.config)], stdout=theirs) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65536):
                text += part
        except OSError: # a terminal ends so
            pass
        assert process.wait() == 0
    os.close(ours)
    lines = text.decode().replace("\r", "").splitlines()
    assert lines[0] == "3 sessions"
    assert "NTLM" in lines and "refused, kvno-old: the client's ticket has a newer key version number than the keytab: the " \
                               "keytab is out of date" in lines
    assert re.search(r"^ +2  192\.0\.2\.7 +- +GSSAPI +TLSv1\.3 ", text.decode().replace("\r", ""), re.M)
