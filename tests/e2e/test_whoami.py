"""postern whoami, and keytabs on their way from master: what needs no domain."""
import json
import os
import struct
import subprocess

import pytest

from daemon import POSTERN, Postern, domain, server

RULES = '''directory "CORP.TEST" { servers = {"ldap://127-0-0-1.invalid:1"} netbios = "CORP" principal = "p@CORP.TEST"
                        keytab = "{dir}/absent.keytab" }
identity "applications" { match = "svc-(.*)@CORP\\\\.TEST" mailbox = "\\\\1@corp.test" }
identity "guests" { match = "guest.*" reject = true }
identity "table" { table = "{dir}/identity" }
identity "corp" { realm = "CORP.TEST" domain = "corp.test" }
peers "exchange" { principals = {"MX1$@CORP.TEST"} rights = {relay, any-sender} }
'''


@pytest.fixture
def whoami(tmp_path):
    config = tmp_path / "postern.conf"

    def run(*args, rules=RULES):
        config.write_text(server("s.test", listen=["127.0.0.1:2525"]) + domain("corp.test", deliver="discard")
                          + rules.replace("{dir}", str(tmp_path)))
        return subprocess.run([POSTERN, "whoami", "-c", config, *args], capture_output=True, text=True, timeout=60)
    (tmp_path / "identity").write_text("bob  bob@corp.test sales@corp.test  # the shop\n")
    run.dir = tmp_path
    return run


@pytest.mark.parametrize("name", ["alice@CORP.TEST", "CORP\\alice", "alice@corp.test"])
def test_one_person(whoami, name):
    done = whoami(name)
    assert done.returncode == 0, done
    lines = done.stdout.splitlines()
    assert lines[-3:] == ["principal: alice@CORP.TEST", "mailbox: alice@corp.test", "rights: submit relay"]
    decided = next(line for line in lines if line.endswith(": mailbox alice@corp.test"))
    place, line = decided.split(": ")[0].rsplit(":", 1)
    assert 'identity "corp"' in open(place).read().splitlines()[int(line) - 1]


def test_json(whoami):
    done = whoami("bob", "--json")
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    assert answer["mailbox"] == "bob@corp.test" and answer["addresses"] == ["bob@corp.test", "sales@corp.test"]
    assert answer["verdict"] == "mailbox" and answer["rights"] == ["submit", "relay"]
    assert [s["rule"] for s in answer["steps"] if s["decided"]] == ['identity "table"']
    assert all(s["file"] and s["line"] for s in answer["steps"][1:])


@pytest.mark.parametrize("name, verdict, status", [("nobody", "none", 1), ("guest7", "refused", 1), ("MX1$@CORP.TEST", "none", 1),
                                                   ("alice@OTHER.TEST", "none", 1), ("svc-fax@CORP.TEST", "mailbox", 0)])
def test_verdicts(whoami, name, verdict, status):
    done = whoami(name, "--json")
    assert done.returncode == status
    assert json.loads(done.stdout)["verdict"] == verdict


def test_peer(whoami):
    answer = json.loads(whoami("MX1$@CORP.TEST", "--json").stdout)
    assert answer["peers"] == "exchange" and answer["rights"] == ["submit", "relay", "any-sender"]


def test_what_cannot_be_asked(whoami):
    directory = RULES.replace('identity "table" { table = "{dir}/identity" }',
                              'identity "ldap" { realm = "CORP.TEST" attribute = {"mail"} }')
    done = whoami("alice@CORP.TEST", rules=directory)
    assert done.returncode == 75 and "ldap://127-0-0-1.invalid:1" in done.stdout
    os.unlink(whoami.dir / "identity")
    done = whoami("bob")
    assert done.returncode == 75 and "cannot open" in done.stderr and "table could not be read" in done.stdout


def test_mistakes(whoami):
    assert whoami().returncode == 64
    assert whoami("a", "b").returncode == 64
    assert whoami("alice", rules='identity "x" { }\n').returncode == 78


def keytab(kvno):
    """One entry: SMTPSVC/s.test@CORP.TEST, aes256."""
    def counted(text):
        return struct.pack(">H", len(text)) + text
    entry = struct.pack(">H", 2) + counted(b"CORP.TEST") + counted(b"SMTPSVC") + counted(b"s.test") + \
        struct.pack(">IIBH", 1, 0, kvno, 18) + counted(bytes([kvno]) * 32)
    return b"\x05\x02" + struct.pack(">i", len(entry)) + entry


def test_changed_keytab_is_noticed():
    text = server("s.test", listen=["{address}:2525"], keytab="{dir}/s.keytab") + domain("here.test", deliver="discard")
    daemon = Postern(text, start=False)
    path = daemon.dir / "s.keytab"
    path.write_bytes(keytab(1))
    with daemon as p:
        p.start()
        new = daemon.dir / "new.keytab"
        new.write_bytes(keytab(2))
        mark = p.log.mark()
        new.rename(path)
        p.log.wait(r"event=master\.keytab\.changed .*s\.keytab", since=mark)
        mark = p.log.mark()
        path.unlink()
        p.log.wait(r"event=master\.keytab\.failed .*s\.keytab", since=mark)
        path.write_bytes(keytab(3))
        p.log.wait(r"event=master\.keytab\.changed .*s\.keytab", since=mark)
