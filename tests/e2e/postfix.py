"""Debian's Postfix as a sending server: unpacked by tests/lab/unpack, never installed, in a mount namespace of its own
where its files lie over the machine's. It logs in at its relay with Cyrus SASL's GSSAPI."""
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

from daemon import until

PACKAGE = Path(__file__).resolve().parents[2] / "build" / "peers" / "postfix"
USER, GROUP = 901, 902
QUEUES = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")
ADDRESS, PORT = "127.0.0.1", 2560  # it takes only addresses that an interface lists


class Postfix:
    def __init__(self, folder, relay, env):
        self.folder = Path(folder)
        self.log = self.folder / "mail.log"
        cache = Path(env["KRB5CCNAME"].removeprefix("FILE:"))
        self.cache = self.folder / "cc"
        self.cache.write_bytes(cache.read_bytes())
        os.chown(self.cache, USER, USER)
        for up in (self.folder, *self.folder.parents):  # its users must come in
            if str(up) in ("/", "/tmp"):
                break
            up.chmod(up.stat().st_mode | 0o111)
        self.make_etc(relay)
        self.make_queue()
        self.process = None

    def make_etc(self, relay):
        etc = self.folder / "etc"
        (etc / "postfix").mkdir(parents=True)
        (etc / "passwd").write_text(Path("/etc/passwd").read_text() + f"postfix:x:{USER}:{USER}::/nonexistent:/bin/false\n")
        (etc / "group").write_text(Path("/etc/group").read_text() + f"postfix:x:{USER}:\npostdrop:x:{GROUP}:\n")
        for name in ("hosts", "resolv.conf", "nsswitch.conf", "krb5.conf"):  # what an overlay cannot see through
            (etc / name).write_text(Path("/etc", name).read_text())
        for name in ("postfix-files", "dynamicmaps.cf", "postfix-script", "post-install"):
            source = PACKAGE / "etc" / "postfix" / name
            (etc / "postfix" / name).write_text(source.read_text() if source.exists() else "")
        (etc / "postfix" / "main.cf").write_text(f"""compatibility_level = 3.6
queue_directory = {self.folder}/spool
data_directory = {self.folder}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = postfix.corp.test
mydestination =
local_recipient_maps =
alias_maps =
relayhost = {relay}
inet_interfaces = {ADDRESS}
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtp_host_lookup = native
smtp_dns_support_level = disabled
smtpd_peername_lookup = no
smtp_tls_security_level = none
smtp_sasl_auth_enable = yes
smtp_sasl_mechanism_filter = gssapi
smtp_sasl_security_options = noanonymous
smtp_sasl_password_maps = inline:{{ {{ {relay} = bob: }} }}
import_environment = KRB5CCNAME=FILE:{self.cache} KRB5_CONFIG=/etc/krb5.conf
maillog_file = {self.log}
maillog_file_prefixes = {self.folder}
""")
        master = (PACKAGE / "usr/share/postfix/master.cf.dist").read_text()
        master = re.sub(r"^smtp(\s+inet)", rf"{PORT}\1", master, flags=re.M)
        # No chroot: its files are not made here.
        master = re.sub(r"^(\S+\s+(?:inet|unix|fifo|unix-dgram)\s+\S+\s+\S+\s+)[yn-](\s)", r"\1n\2", master, flags=re.M)
        (etc / "postfix" / "master.cf").write_text(
            master + ("" if "postlog " in master else "postlog unix-dgram n - n - 1 postlogd\n"))

    def make_queue(self):
        rows = [("", 0, 0, 0o755), ("pid", 0, 0, 0o755), ("maildrop", USER, GROUP, 0o730), ("public", USER, GROUP, 0o710)]
        for name, user, group, mode in rows + [(name, USER, 0, 0o700) for name in QUEUES]:
            path = self.folder / "spool" / name
            path.mkdir(parents=True, exist_ok=True)
            os.chown(path, user, group)
            path.chmod(mode)
        (self.folder / "data").mkdir()
        os.chown(self.folder / "data", USER, USER)

    def __enter__(self):
        script = f"mount -t overlay usr -o ro,lowerdir={PACKAGE}/usr:/usr /usr && " \
            f"mount -t overlay etc -o ro,lowerdir={self.folder}/etc:/etc /etc && " \
            "exec /usr/lib/postfix/sbin/master -c /etc/postfix"
        self.process = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", script],
                                        start_new_session=True, stdin=subprocess.DEVNULL)
        try:
            until(self.greets, "Postfix greets")
        except AssertionError:
            self.__exit__()
            raise AssertionError(f"Postfix did not start:\n{self.said()}")
        return self

    def said(self):
        return self.log.read_text()[-3000:] if self.log.exists() else ""

    def greets(self):
        assert self.process.poll() is None, self.said()
        try:
            with socket.create_connection((ADDRESS, PORT), 2) as sock:
                return sock.recv(100).startswith(b"220")
        except OSError:
            return False

    def inject(self, sender, recipient, content):
        import smtplib
        with smtplib.SMTP(ADDRESS, PORT, "client.test", timeout=30) as client:
            client.sendmail(sender, [recipient], content)
        until(lambda: "status=" in self.said(), "Postfix has tried")
        assert "status=sent" in self.said(), self.said()

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)
