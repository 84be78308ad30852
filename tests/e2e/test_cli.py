"""The command line: exit statuses and shapes that scripts rely on."""
import json
import os
import re
import subprocess

import pytest

from daemon import BUILD, POSTERN, ROOT, TREE, Postern, domain, free_address, fresh_source, host, server, until
from pki import Authority


@pytest.fixture(scope="module")
def p(pki):
    text = 'retry_min = "600s"\nretry_max = "600s"\n' + server(
        "cli.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"]) + \
        domain("here.test", deliver="maildir:{dir}/mail/%u") + domain("dead.test", via=[f"[{free_address()}]:2599"]) + \
        domain("dead2.test", via=[f"[{free_address()}]:2599"])
    with Postern(text) as daemon:
        yield daemon


@pytest.fixture
def idle():
    daemon = Postern(server("cli.test", listen=["{address}:2525"]) + domain("here.test", deliver="discard"), start=False)
    yield daemon
    daemon.__exit__(None)


def tool(*args, **kw):
    return subprocess.run([str(a) for a in args], capture_output=True, text=True, timeout=60, **kw)


# usage

@pytest.mark.parametrize("args, code", [([], 64), (["nonsense"], 64), (["check", "--nonsense"], 64), (["queue"], 64),
                                        (["queue", "nonsense"], 64), (["user"], 64), (["user", "add"], 64), (["--help"], 0),
                                        (["--version"], 0), (["pause"], 64), (["pause", "sideways"], 64)])
def test_usage(args, code):
    done = tool(POSTERN, *args)
    assert done.returncode == code, done
    assert done.stdout or done.stderr


# check, config

def check(idle, text, *args):
    idle.config.write_text(text.replace("{dir}", str(idle.dir)))
    return idle.run("check", *args)


BAD = 'spool = "{dir}/spool"\nmax_recipents = 5\nmax_message_size = "lots"\nserver "a.test" {\n    listen = {"nowhere"}\n' \
      '    acept = "tls"\n}\nserver "b.test" { listen = {"127.0.0.1:2525"} accept = "tls" }\n' \
      'domain "x.test" { deliver = "pigeon" }\ndomain "y.test" { }\n'


def test_check_prints_all_mistakes(idle):
    done = check(idle, BAD)
    assert done.returncode == 78
    lines = done.stdout.splitlines()
    assert all(re.match(rf"{re.escape(str(idle.config))}:\d+: .", line) for line in lines), done.stdout
    numbers = {int(line.split(":")[1]) for line in lines}
    assert {2, 3, 5, 6, 8, 9, 10} <= numbers, done.stdout
    assert "max_recipients" in done.stdout and "accept" in done.stdout, "the nearest name is named"


def test_check_json(idle):
    done = check(idle, BAD, "--json")
    assert done.returncode == 78
    answer = json.loads(done.stdout)
    assert answer["file"] == str(idle.config)
    assert {"file", "line", "name", "text", "hint"} <= set(answer["mistakes"][0])
    assert len(answer["mistakes"]) >= 7


def test_check_good(idle):
    done = idle.run("check")
    assert (done.returncode, done.stdout) == (0, ""), done
    done = idle.run("check", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["mistakes"] == []


def test_check_unreadable(idle):
    done = tool(POSTERN, "check", "-c", idle.dir / "not-there.conf")
    assert done.returncode == 66 and "not-there.conf" in done.stderr


def test_check_warns_of_any(idle):
    done = check(idle, idle.config.read_text().replace(idle.address, "0.0.0.0"))
    assert done.returncode == 0 and "any" in done.stderr and done.stdout == "", done


def tls_check(idle, certificate, key, name="mail.corp.test"):
    return check(idle, f'spool = "{{dir}}/spool"\nusers = "{{dir}}/state/users.db"\nkeys = "{{dir}}/keys"\n' + server(
        name, listen=["127.0.0.1:2525"], certificate=certificate, key=key) + domain("x.test", deliver="discard"))


def test_check_looks_into_certificates(idle, pki):
    done = tls_check(idle, *pki.mail)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done
    done = tls_check(idle, pki.mail[0], pki.partner[1])
    assert done.returncode == 78 and re.search(rf"^{idle.config}:7: key: .*{pki.partner[1]}", done.stdout), done
    done = tls_check(idle, pki.wrong_name[0], pki.wrong_name[1])
    assert done.returncode == 0 and "elsewhere.test" in done.stderr and "mail.corp.test" in done.stderr, done
    old = Authority(idle.dir / "ca").issue("mail.corp.test", days=-1)
    done = tls_check(idle, *old)
    assert done.returncode == 0 and "expired" in done.stderr, done
    both = idle.dir / "nothing.pem"
    both.write_text(pki.mail[1].read_text())
    both.chmod(0o600)
    done = tls_check(idle, both, pki.mail[1])
    assert done.returncode == 78 and "nothing.pem" in done.stdout, done


def test_check_opens_the_user_store(idle):
    text = idle.config.read_text().replace('deliver = "discard"', 'deliver = "discard" recipients = "users"')
    done = check(idle, text)
    assert done.returncode == 0 and "no users yet" in done.stderr, done
    idle.add_user("alice", "x")
    done = check(idle, text)
    assert (done.returncode, done.stderr) == (0, ""), done
    store = idle.dir / "state" / "users.db"
    if ROOT:
        os.chown(store, 0, 0)
        done = check(idle, text)
        assert done.returncode == 78 and "postern-auth" in done.stdout and "users.db" in done.stdout, done
    store.write_bytes(b"this is no SQLite database" * 100)
    done = check(idle, text)
    assert done.returncode == 78 and "users.db" in done.stdout, done


def test_check_warns_of_passwords_for_anybody(idle):
    (idle.dir / "pw").write_text("x\n")
    (idle.dir / "pw").chmod(0o600)
    base = idle.config.read_text()
    for tls, warned in (("require", True), ("verify", False)):
        done = check(idle, base + domain("far.test", via=["hop.test"], tls=tls, auth="PLAIN", user="u",
                                         password_file="{dir}/pw"))
        assert done.returncode == 0 and ("whoever answers" in done.stderr) == warned, done


def test_setup_makes_the_logs_folder(idle):
    check(idle, idle.config.read_text() + 'log = "{dir}/elsewhere/mail.log"\n')
    assert "elsewhere" in idle.cli("setup") and (idle.dir / "elsewhere").is_dir()


@pytest.mark.root
def test_one_folder_cannot_have_two_owners(idle):
    text = re.sub(r"^users = .*$", 'users = "{dir}/spool/users.db"', idle.config.read_text(), flags=re.M)
    done = check(idle, text)
    assert done.returncode == 78 and "postern-auth" in done.stdout and f"{idle.dir}/spool" in done.stdout, done
    done = idle.run("setup")
    assert done.returncode == 78 and "postern-auth" in done.stderr and "the spool" in done.stderr, done


@pytest.mark.root
def test_setup_puts_an_existing_user_into_the_drop_group(idle):
    """As when the user was made by hand, or by a package."""
    import grp
    name = f"pt{os.getpid()}"
    subprocess.run(["useradd", "--system", "--user-group", "--no-create-home", name], check=True)
    try:
        check(idle, f'user = "{name}"\n' + idle.config.read_text())
        assert f"user {name} is now in the group {name}-drop" in idle.cli("setup")
        assert name in grp.getgrnam(f"{name}-drop").gr_mem
        assert "nothing to do" in idle.cli("setup")
    finally:
        for suffix in ("", "-smtpd", "-keys", "-auth", "-delivery"):
            subprocess.run(["userdel", name + suffix], stderr=subprocess.DEVNULL)
        subprocess.run(["groupdel", name + "-drop"], check=True)


def test_check_syntax_error_ends_the_list(idle):
    done = check(idle, 'spool = "x\nserver "y" {')
    assert done.returncode == 78 and re.match(r".*:1: ", done.stdout), done


def test_option_before_and_after_the_verb(idle):
    assert tool(POSTERN, "-c", idle.config, "check").returncode == 0
    assert tool(POSTERN, "check", "-c", idle.config).returncode == 0


def test_includes(idle):
    extra = idle.dir / "extra.conf"
    extra.write_text('domain "more.test" { deliver = "discard" }\nnonsense = 1\n')
    done = check(idle, idle.config.read_text() + 'include("extra.conf")\n')
    if done.returncode == 78 and "include" in done.stdout:
        done = check(idle, idle.config.read_text() + 'include "extra.conf"\n')
    assert done.returncode == 78 and f"{extra}:2: " in done.stdout, done
    extra.write_text('domain "more.test" { deliver = "discard" }\n')
    assert idle.run("check").returncode == 0
    assert "more.test" in idle.cli("config", "--dump")


def test_dump_loads_again(idle, tmp_path):
    dump = idle.cli("config", "--dump")
    assert 'max_recipients' in dump and "cli.test" in dump
    again = tmp_path / "again.conf"
    again.write_text(dump)
    done = tool(POSTERN, "config", "--dump", "-c", again)
    assert done.returncode == 0 and done.stdout == dump
    short = idle.cli("config", "--dump", "--non-default")
    assert "max_recipients" not in short and "cli.test" in short and len(short) < len(dump)
    assert isinstance(json.loads(idle.cli("config", "--dump", "--json")), dict)


def test_the_example_loads(idle, pki):
    """The example of the specification, word for word but for paths, ports and addresses."""
    d = idle.dir
    text = f'''
spool    = "{d}/spool"
users    = "{d}/state/users.db"          # the embedded user store (SQLite)
keys     = "{d}/keys"
max_message_size = "50M"
postmaster = "hostmaster@corp.test"              # takes <postmaster> and postmaster@ours
resolver = {{"127.0.0.1:5353"}}                    # default: /etc/resolv.conf
session_log = "{d}/log/sessions.jsonl"  # one JSON line a session, kept session_log_days = 90

server "mail.corp.test" {{                        # a virtual server = one identity: name, ports, certificate, rules
    listen       = {{"127.0.0.1:25", "[::1]:25"}}     # SMTP, STARTTLS offered
    submission   = {{"127.0.0.1:587"}}               # authentication required
    submissions  = {{"127.0.0.1:465"}}               # TLS from the first byte, authentication required
    certificate  = "{pki.mail[0]}"      # chain; key beside it or in the same file
    key          = "{pki.mail[1]}"
    mechanisms   = {{"SCRAM-SHA-256", "PLAIN", "LOGIN"}}
    accept       = "any"                         # any | auth | tls | auth+tls | deny : what a connecting host must bring
    host "10.1.0.0/16"   {{ accept = "auth+tls" }} # most specific network wins
    host "192.168.7.20"  {{ accept = "any" relay = true plaintext = true mechanisms = {{"LOGIN"}} }}   # the old scanner
    protocol_log = "{d}/log/mail.log"
}}
server "partner.corp.test" {{ listen = {{"127.0.0.2:25"}} certificate = "{d}/partner.pem" accept = "tls" }}   # own address beside the wildcard

domain "corp.test"        {{ deliver = "maildir:{d}/mail/%u" recipients = "users" }}  # or "lmtp:/run/dovecot/lmtp", "lmtp:host:24", "discard"
domain "partner.example"  {{ via = {{"smtp.partner.example:587"}} tls = "verify" auth = "PLAIN" user = "relay" password_file = "{d}/partner.pw" server = "mail.corp.test" }}
domain "*"                {{ via = {{"mx"}} tls = "opportunistic" }}       # tls: none | opportunistic | require | verify; "mx:2526" = another port
'''
    both = d / "partner.pem"
    both.write_text(pki.partner[0].read_text() + pki.partner[1].read_text())
    both.chmod(0o600)
    (d / "partner.pw").write_text("x\n")
    (d / "partner.pw").chmod(0o600)
    idle.config.write_text(text)
    done = idle.run("check")
    assert done.returncode == 0, done.stdout + done.stderr


# queue

def held(p, to="x@dead.test", sender="a@b.test"):
    queue_id = p.deliver(sender, to, source=fresh_source())
    # Its hop may be left alone for a while already: the row says that it waits.
    until(lambda: (row := row_of(p, queue_id)) and row["queue_name"] == "deferred", f"{queue_id} is deferred")
    return queue_id


def row_of(p, queue_id):
    return next((row for row in p.queue() if row["queue_id"] == queue_id), None)


def test_queue_list_json(p):
    queue_id = held(p)
    row = row_of(p, queue_id)
    assert row["queue_name"] == "deferred" and row["sender"] == "a@b.test" and row["message_size"] > 0
    assert isinstance(row["arrival_time"], int)
    assert row["recipients"] == [{"address": "x@dead.test", "delay_reason": row["recipients"][0]["delay_reason"]}]
    for name in ("next_attempt", "attempts", "next_hop", "server", "tls", "auth"):
        assert name in row, row
    assert queue_id in p.cli("queue", "list")
    assert queue_id in p.cli("queue", "show", queue_id) and "hello" in p.cli("queue", "show", queue_id)
    p.cli("queue", "delete", queue_id)
    assert row_of(p, queue_id) is None
    assert p.run("queue", "delete", queue_id).returncode == 1


def test_hold_and_release(p):
    queue_id = held(p)
    p.cli("queue", "hold", queue_id)
    assert row_of(p, queue_id)["queue_name"] == "hold"
    p.cli("queue", "release", queue_id)
    assert row_of(p, queue_id)["queue_name"] in ("active", "deferred")
    p.cli("queue", "delete", queue_id)


def test_filters(p):
    one, two, three = held(p, "f1@dead.test", "s1@b.test"), held(p, "f2@dead2.test", "s1@b.test"), held(p, "f3@dead2.test", "s2@b.test")

    def ids(*args):
        return {json.loads(line)["queue_id"] for line in p.cli("queue", "list", "--json", *args).splitlines()} & {one, two, three}

    assert ids("--sender", "s1@b.test") == {one, two}
    assert ids("--recipient", "f3@dead2.test") == {three}
    assert ids("--domain", "dead2.test") == {two, three}
    assert ids("--sender", "s1@b.test", "--domain", "dead2.test") == {two}
    p.cli("queue", "delete", "--domain", "dead2.test")
    assert ids() == {one}
    p.cli("queue", "delete", one)


def test_status_counts_sessions(p):
    def sessions():
        return json.loads(p.cli("status", "--json"))["sessions"]

    until(lambda: sessions() == 0, "earlier sessions have ended")
    with p.connect(source=fresh_source()), p.connect(source=fresh_source()):
        assert sessions() == 2
    until(lambda: sessions() == 0, "they are given back")


def test_pause_in_and_out(p):
    p.cli("pause", "in")
    with p.connect(source=fresh_source()) as w:
        w.ehlo()
        w.cmd("MAIL FROM:<a@b.test>", 450, "4.3.2")
    p.cli("resume", "in") if p.run("pause", "in", "--off").returncode else None
    until(lambda: p.deliver("a@b.test", "pi@here.test", source=fresh_source()), "mail is taken again")


def test_empty_queue_says_nothing(idle):
    idle.start()
    assert idle.cli("queue", "list", "--json") == ""
    assert tool(BUILD / "postern", "queue", "list", "-c", idle.config).returncode == 0
    idle.stop()


def test_queue_list_when_down(pki):
    """Read from the spool, or 69; never an empty success."""
    text = server("cli.test", host("127.0.0.0/8", relay=True), listen=["{address}:2525"]) + \
        domain("dead.test", via=[f"[{free_address()}]:2599"])
    with Postern(text) as p:
        queue_id = held(p)
        p.stop()
        done = p.run("queue", "list", "--json")
        assert done.returncode == 69 or queue_id in done.stdout, done
        assert p.run("reload").returncode == 69
        p.start()
        assert row_of(p, queue_id), "and it is still there"


# sendmail

def sendmail(p, *args, input, name="sendmail"):
    link = p.dir / name
    if not link.exists():
        link.symlink_to(POSTERN)
    return tool(link, *args, input=input, env=dict(os.environ, POSTERN_CONFIG=str(p.config), MAILCONFIG=str(p.config)))


@pytest.mark.parametrize("args, to", [(["-oi", "-f", "me@here.test", "sm1@here.test"], "sm1"), (["-t", "-oi"], "sm2"),
                                      (["-i", "-F", "Full Name", "-f", "me@here.test", "--", "sm3@here.test"], "sm3")])
def test_sendmail(p, args, to):
    letter = f"From: me@here.test\nTo: {to}@here.test\nBcc: bcc-{to}@here.test\nSubject: by-sendmail-{to}\n\nx\n.\ny\n"
    done = sendmail(p, "-C", str(p.config), *args, input=letter)
    assert done.returncode == 0, done
    got = p.delivered(to, f"by-sendmail-{to}".encode())
    assert got.endswith(b"x\r\n.\r\ny\r\n"), "-i: a dot does not end the message"
    if "-t" in args:
        p.delivered(f"bcc-{to}", f"by-sendmail-{to}".encode())
        assert b"Bcc:" not in got
    assert b"\r\nMessage-ID:" in got and b"\r\nDate:" in got


def test_mailq(p):
    queue_id = held(p)
    done = sendmail(p, "-C", str(p.config), input="", name="mailq")
    assert done.returncode == 0 and queue_id in done.stdout, done
    p.cli("queue", "delete", queue_id)


def test_newaliases(p):
    assert sendmail(p, input="", name="newaliases").returncode == 0


def test_sendmail_while_down(pki):
    """One synced file in the drop folder; the queue takes it in when it comes."""
    text = server("cli.test", listen=["{address}:2525"]) + domain("here.test", deliver="maildir:{dir}/mail/%u")
    with Postern(text) as p:
        p.stop()
        done = sendmail(p, "-C", str(p.config), "-f", "me@here.test", "down@here.test", input="Subject: while-down\n\nx\n")
        assert done.returncode in (0, 75), done
        if done.returncode == 0:
            p.start()
            p.delivered("down", b"while-down")
        else:
            p.start()
        assert not ROOT or done.returncode == 0, "root can write the drop folder"


@pytest.fixture
def known(pki):
    """Domains whose recipients are known: one by the user store, one by a file."""
    text = server("cli.test", listen=["{address}:2525"]) + \
        domain("users.test", deliver="maildir:{dir}/mail/%u", recipients="users") + \
        domain("file.test", deliver="maildir:{dir}/mail/%u", recipients="{dir}/recipients") + \
        domain("any.test", deliver="maildir:{dir}/mail/%u")
    with Postern(text, start=False) as p:
        (p.dir / "recipients").write_text("listed\n")
        (p.dir / "recipients").chmod(0o644)
        p.add_user("alice", "secret")
        yield p.start()


@pytest.mark.parametrize("to, exists", [("alice@users.test", True), ("Alice@users.test", True), ("nobody@users.test", False),
                                        ("listed@file.test", True), ("nobody@file.test", False)])
def test_sendmail_to_somebody_who_does_not_exist(known, to, exists):
    done = sendmail(known, "-C", str(known.config), "-f", "me@any.test", "me@any.test", to, input="Subject: known\n\nx\n")
    if exists:
        assert done.returncode == 0, done
        known.delivered(to.split("@")[0].lower(), b"known")
    else:
        assert done.returncode == 65 and to in done.stderr and "5.1.1" in done.stderr, done
        assert not known.maildir("me"), "nobody gets a message that was refused"


@pytest.mark.root
def test_dropped_for_somebody_who_does_not_exist(known):
    """sendmail has said 0 while the daemon was down: the sender gets a bounce, the others their message."""
    known.stop()
    done = sendmail(known, "-C", str(known.config), "-f", "me@any.test", "nobody@users.test", "gone@file.test",
                    "alice@users.test", input="Subject: dropped-for-some\n\nx\n")
    assert done.returncode == 0, done
    done = sendmail(known, "-C", str(known.config), "-f", "you@any.test", "nobody@users.test", input="Subject: for-none\n\nx\n")
    assert done.returncode == 0, done
    known.start()
    known.delivered("alice", b"dropped-for-some")
    for sender, lost in (("me", (b"nobody@users.test", b"gone@file.test")), ("you", (b"nobody@users.test",))):
        bounce = known.delivered(sender, b"5.1.1")
        assert all(to in bounce for to in lost) and b"alice@users.test" not in bounce.split(b"Content-Type: text/rfc822")[0]
    known.log.wait(r"queue\.drop\.unknown")
    until(lambda: not list((known.dir / "spool").rglob("*.mail")), "the files are gone")
    assert not (known.dir / "mail" / "nobody").exists()


# spool verify

def test_spool_verify(idle):
    idle.start()
    idle.deliver("a@b.test", "x@here.test")
    idle.stop()
    assert idle.run("spool", "verify").returncode == 0


def test_manual_pages():
    """Every page passes mandoc's lint without a warning."""
    for page in [*TREE.glob("man/*.[1-8]"), *BUILD.glob("**/*.[1-8]")]:
        if page.is_file() and page.read_bytes().startswith((b".Dd", b".\\\"")):
            done = tool("mandoc", "-T", "lint", "-W", "warning", page)
            assert done.returncode == 0, done.stdout
