"""Final delivery: Maildir, LMTP, discard; what is written, where, with which rights, and what is logged."""
import re
import stat

import pytest

from daemon import Postern, domain, fresh_source, server, until
from peers import Sink


@pytest.fixture(scope="module")
def lmtp():
    with Sink("127.3.0.2", lmtp=True) as sink:
        yield sink


@pytest.fixture(scope="module")
def local(lmtp):
    text = 'retry_min = "1s"\nretry_max = "2s"\n' + server("local.test", listen=["{address}:2525"])
    text += domain("user.test", deliver="maildir:{dir}/mail/%u") + domain("name.test", deliver="maildir:{dir}/mail/%d/%u")
    text += domain("whole.test", deliver="maildir:{dir}/mail/%a") + domain("null.test", deliver="discard")
    text += domain("lmtp.test", deliver=f"lmtp:{lmtp.address}:{lmtp.port}")
    text += domain("nolmtp.test", deliver="lmtp:127.3.0.99:24") + domain("nosocket.test", deliver="lmtp:{dir}/mail/none.sock")
    with Postern(text) as p:
        yield p


def test_maildir(local):
    queue_id = local.deliver("a@b.test", "Walter@user.test", b"Subject: m1\r\n\r\nline\r\n")
    line = local.sent(queue_id, "Walter@user.test")
    assert re.search(r"relay=\S+, delay=[\d.]+, delays=[\d./]+, dsn=2\.0\.0, status=sent \(.+\)$", line), line
    local.removed(queue_id)
    folder = local.dir / "mail" / "walter"
    for part in (folder, folder / "new", folder / "cur", folder / "tmp"):
        assert stat.S_IMODE(part.stat().st_mode) == 0o700, part
    [file] = (folder / "new").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0
    assert not list((folder / "tmp").iterdir())
    got = local.maildir("walter")[0]
    assert got.startswith(b"Return-Path: <a@b.test>\r\n") and got.endswith(b"\r\n\r\nline\r\n")
    assert got.lower().count(b"\r\nreceived:") == 1


@pytest.mark.root
def test_maildir_owner_is_not_root(local):
    local.sent(local.deliver("a@b.test", "owned@user.test"))
    folder = local.dir / "mail" / "owned"
    [file] = (folder / "new").iterdir()
    import pwd
    owner = pwd.getpwnam("postern-delivery").pw_uid
    assert folder.stat().st_uid == file.stat().st_uid == owner != 0


@pytest.mark.parametrize("address, path", [
    ("Bob@user.test", "bob"), ("Bob@Name.Test", "name.test/bob"), ("Bob@Whole.Test", "bob@whole.test"),
    ("a.b+c@user.test", "a.b+c"), ('"sp ace"@user.test', "sp ace")])
def test_percent(local, address, path):
    local.sent(local.deliver("x@y.test", address, b"Subject: percent\r\n\r\nx\r\n"))
    assert any(b"percent" in m for m in local.maildir(path)), path


def test_return_path_of_the_client_is_replaced(local):
    letter = b"Return-Path: <forged@x.test>\r\nSubject: rp\r\n\r\nx\r\n"
    local.sent(local.deliver("", "rp@user.test", letter))
    got = local.maildir("rp")[0]
    assert got.startswith(b"Return-Path: <>\r\n") and got.lower().count(b"return-path:") == 1, got


def test_discard(local):
    queue_id = local.deliver("a@b.test", "x@null.test")
    local.sent(queue_id, "x@null.test")
    local.removed(queue_id)


def test_one_message_many_ways(local, lmtp):
    with local.connect(source=fresh_source()) as w:
        w.ehlo()
        w.envelope("a@b.test", "m1@user.test", "m2@name.test", "m3@null.test", "m4@lmtp.test", "m5@lmtp.test")
        w.cmd("DATA", 354)
        w.send(b"Subject: many\r\n\r\nx\r\n.\r\n")
        queue_id = w.reply().queue_id
    for to in ("m1@user.test", "m2@name.test", "m3@null.test", "m4@lmtp.test", "m5@lmtp.test"):
        local.sent(queue_id, to)
    local.removed(queue_id)
    mail = lmtp.get()
    assert sorted(mail.recipients) == ["m4@lmtp.test", "m5@lmtp.test"], "one transaction for both"
    assert any(line.upper().startswith("LHLO local.test".upper()) for line in lmtp.commands)


def test_lmtp_content(local, lmtp):
    body = b"Subject: lm\r\n\r\n.\r\n..\r\nx\r\n"
    with local.connect(source=fresh_source()) as w:
        w.ehlo()
        w.envelope("a@b.test", "one@lmtp.test")
        w.send(b"BDAT %d LAST\r\n" % len(body) + body)
        assert w.reply().code == 250
    mail = until(lambda: (m := lmtp.get()) and b"Subject: lm" in m.content and m, "the message by LMTP")
    assert mail.content.endswith(b"\r\n\r\n.\r\n..\r\nx\r\n") and mail.sender == "a@b.test"


def test_lmtp_answers_each_recipient(local, lmtp):
    """One is taken, one is refused for good, one for now: three fates."""
    def final(session, mail):
        rows = []
        for to in mail.recipients:
            later = "later" in to and not any("attempt2" in str(s) for s in seen)
            rows.append("452 4.2.2 full" if later else "550 5.1.1 gone" if "gone" in to else "250 2.0.0 ok")
        seen.append("attempt2")
        return rows

    seen = []
    lmtp.final = final
    try:
        with local.connect(source=fresh_source()) as w:
            w.ehlo()
            w.envelope("sender@user.test", "fine@lmtp.test", "gone@lmtp.test", "later@lmtp.test")
            w.cmd("DATA", 354)
            w.send(b"Subject: fates\r\n\r\nx\r\n.\r\n")
            queue_id = w.reply().queue_id
        local.sent(queue_id, "fine@lmtp.test")
        assert "550 5.1.1" in local.sent(queue_id, "gone@lmtp.test", "bounced")
        assert "452 4.2.2" in local.sent(queue_id, "later@lmtp.test", "deferred")
        local.sent(queue_id, "later@lmtp.test", "sent")
        local.removed(queue_id)
        bounce = local.delivered("sender", b"gone@lmtp.test")
        assert b"fine@lmtp.test" not in bounce.split(b"Content-Type: message/delivery-status")[1].split(b"\r\n--")[0]
    finally:
        lmtp.final = lmtp.accept_all


def test_lmtp_socket(local):
    """lmtp:/PATH: a UNIX socket."""
    import socket
    import threading
    path = local.dir / "lmtp.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o777)
    listener.listen(5)
    got = []

    def serve():
        conn, _ = listener.accept()
        stream = conn.makefile("rwb")

        def say(text):
            try:
                stream.write(text + b"\r\n")
                stream.flush()
            except BrokenPipeError:
                pass  # it says QUIT and does not wait for the answer

        say(b"220 here LMTP")
        n = 0
        while line := stream.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                say(b"354 go")
                while (row := stream.readline()) != b".\r\n":
                    got.append(row)
                for _ in range(n):
                    say(b"250 2.0.0 ok")
            else:
                n += verb == b"RCPT"
                say(b"221 bye" if verb == b"QUIT" else b"250 ok")

    threading.Thread(target=serve, daemon=True).start()
    text = server("sock.test", listen=["{address}:2525"]) + domain("sock.test", deliver=f"lmtp:{path}")
    with Postern(text) as p:
        p.sent(p.deliver("a@b.test", "x@sock.test", b"Subject: by-socket\r\n\r\nx\r\n"))
    assert b"Subject: by-socket\r\n" in got
    listener.close()


@pytest.mark.parametrize("to", ["x@nolmtp.test", "x@nosocket.test"])
def test_lmtp_down_defers(local, to):
    queue_id = local.deliver("a@b.test", to)
    line = local.sent(queue_id, to, "deferred")
    assert re.search(r"dsn=4\.\d\.\d", line), line
    assert any(row["queue_id"] == queue_id for row in local.queue())
    local.forget(queue_id)


@pytest.mark.root
def test_unwritable_maildir_defers():
    text = 'retry_min = "1s"\n' + server("w.test", listen=["{address}:2525"]) + domain("w.test", deliver="maildir:{dir}/mail/%u")
    with Postern(text) as p:
        (p.dir / "mail" / "full").mkdir(mode=0o700)  # of root: not ours to write
        queue_id = p.deliver("a@b.test", "full@w.test")
        line = p.sent(queue_id, "full@w.test", "deferred")
        assert "dsn=4." in line
        (p.dir / "mail" / "full").rmdir()
        p.sent(queue_id, "full@w.test")


@pytest.mark.ordinary
def test_unwritable_maildir_defers_for_a_user():
    text = 'retry_min = "1s"\n' + server("w.test", listen=["{address}:2525"]) + domain("w.test", deliver="maildir:{dir}/mail/%u")
    with Postern(text) as p:
        (p.dir / "mail" / "full").mkdir(mode=0o500)
        queue_id = p.deliver("a@b.test", "full@w.test")
        assert "dsn=4." in p.sent(queue_id, "full@w.test", "deferred")
        (p.dir / "mail" / "full").chmod(0o700)
        p.sent(queue_id, "full@w.test")
