"""The two servers that are compared. Each runs in a mount namespace of its own (as root), with its spool on the disk
that is being measured; neither is installed, and nothing of the machine's own mail system is touched."""
import glob
import json
import os
import re
import shutil
import socket
import subprocess
import time

from machine import Group

START_S = 30
DRAIN_S = 90


def write(path, text, mode=0o644):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)


def make_certificate(folder):
    os.makedirs(folder, exist_ok=True)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-days", "30", "-subj", "/CN=mx.bench.test", "-keyout", f"{folder}/key.pem",
                    "-out", f"{folder}/cert.pem"], check=True, capture_output=True)


class Server:
    name = ""
    variant = ""

    def __init__(self, folder, port, sink_port, certificate, namespace):
        self.folder, self.port, self.sink_port = f"{folder}/{self.name}", port, sink_port
        self.certificate, self.namespace = certificate, namespace
        self.group, self.process, self.log = None, None, None

    def mounts(self):
        """Shell commands that make the server's view of the machine; they end with the process."""
        return ""

    def configure(self):
        raise NotImplementedError

    def command(self):
        raise NotImplementedError

    def queued(self):
        raise NotImplementedError

    def start(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(f"{self.folder}/log")
        os.makedirs(f"{self.folder}/tls")
        for name in ("cert.pem", "key.pem"):
            shutil.copy(f"{self.certificate}/{name}", f"{self.folder}/tls/{name}")
        os.chmod(f"{self.folder}/tls/key.pem", 0o600)
        self.configure()
        self.group = Group(self.name)
        self.log = open(f"{self.folder}/log/output", "w")
        limit = "ulimit -n 65536 2>/dev/null || ulimit -n $(ulimit -Hn); "
        script = f"{self.group.enter_command()}{self.mounts()}{limit}{self.command()}"
        argv = ["bash", "-ec", script]
        if self.namespace:
            argv = ["unshare", "-m", "--propagation", "private"] + argv
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
                                        start_new_session=True)
        self.group.first = self.process.pid
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.greets():
                return
            time.sleep(0.1)
        text = open(f"{self.folder}/log/output").read()
        self.stop(keep=True)
        raise RuntimeError(f"{self.name} did not start; its output in {self.folder}/log:\n{text[-2000:]}")

    def greets(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 2) as s:
                s.settimeout(2)
                return s.recv(100).startswith(b"220")
        except OSError:
            return False

    def stop(self, keep=False):
        if self.group:
            self.group.end()
        if self.process:
            self.process.wait()
        if self.log:
            self.log.close()
        self.group = self.process = self.log = None
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def drain(self, limit_s=DRAIN_S):
        """Waits until the queue is empty; False when it is not after the limit."""
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if self.queued() == 0:
                return True
            time.sleep(0.1)
        return False


class Postfix(Server):
    name = "postfix"
    package = ""  # folder of the unpacked package
    ids = {"postfix": 901, "postdrop": 902}

    @classmethod
    def fetch(cls, folder):
        """Downloads the package, and what it needs that is not here, without installing anything."""
        cls.package = f"{folder}/postfix"
        if os.path.exists(f"{cls.package}/usr/sbin/postfix"):
            return
        plan = subprocess.run(["apt-get", "-s", "install", "--no-install-recommends", "postfix"], capture_output=True,
                              text=True).stdout
        names = re.findall(r"^Inst (\S+)", plan, re.M) or ["postfix"]
        os.makedirs(f"{folder}/debs", exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq"] + names, cwd=f"{folder}/debs", check=True, capture_output=True)
        for deb in glob.glob(f"{folder}/debs/*.deb"):
            subprocess.run(["dpkg", "-x", deb, cls.package], check=True)

    def mounts(self):
        return (f"mount -t overlay usr -o ro,lowerdir={self.package}/usr:/usr /usr; "
                f"mount -t overlay etc -o ro,lowerdir={self.folder}/etc:/etc /etc; ")

    def configure(self):
        etc, spool = f"{self.folder}/etc", f"{self.folder}/spool"
        write(f"{etc}/passwd", open("/etc/passwd").read() + "postfix:x:901:901::/nonexistent:/bin/false\n")
        write(f"{etc}/group", open("/etc/group").read() + "postfix:x:901:\npostdrop:x:902:\n")
        write(f"{etc}/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n")
        self.make_queue(spool)
        for name in ("postfix-files", "dynamicmaps.cf", "postfix-script", "post-install"):
            source = f"{self.package}/etc/postfix/{name}"
            text = open(source).read() if os.path.exists(source) else ""
            write(f"{etc}/postfix/{name}", text, 0o755)
        write(f"{etc}/postfix/main.cf", self.main_cf(spool))
        master = open(f"{self.package}/usr/share/postfix/master.cf.dist").read()
        master = re.sub(r"^smtp(\s+inet)", rf"{self.port}\1", master, flags=re.M)
        # No chroot: its files are not made here, and it makes no difference to the measures.
        master = re.sub(r"^(\S+\s+(?:inet|unix|fifo|unix-dgram)\s+\S+\s+\S+\s+)[yn-](\s)", r"\1n\2", master, flags=re.M)
        if "postlog " not in master:
            master += "postlog unix-dgram n - n - 1 postlogd\n"
        write(f"{etc}/postfix/master.cf", master)

    def main_cf(self, spool):
        """Debian's defaults, and what the comparison needs: no name lookups, discard, the sink, TLS, large messages."""
        return f"""compatibility_level = 3.6
queue_directory = {spool}
data_directory = {self.folder}/data
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.bench.test
mydestination = bench.test
local_transport = discard:
local_recipient_maps =
alias_maps =
relay_domains = relay.test
transport_maps = inline:{{ relay.test=smtp:[127.0.0.1]:{self.sink_port} }}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_peername_lookup = no
smtp_dns_support_level = disabled
smtp_host_lookup = native
biff = no
message_size_limit = 0
maillog_file = {self.folder}/log/mail.log
maillog_file_prefixes = {self.folder}
smtpd_tls_security_level = may
smtpd_tls_chain_files = {self.folder}/tls/key.pem, {self.folder}/tls/cert.pem
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
{self.variant}"""

    def make_queue(self, spool):
        owner, group = self.ids["postfix"], self.ids["postdrop"]
        rows = [("", 0, 0, 0o755), ("pid", 0, 0, 0o755), ("maildrop", owner, group, 0o730)]
        rows += [("public", owner, group, 0o710)]
        rows += [(name, owner, 0, 0o700) for name in ("active", "bounce", "corrupt", "defer", "deferred", "flush",
                                                      "hold", "incoming", "private", "saved", "trace")]
        for name, uid, gid, mode in rows:
            os.makedirs(f"{spool}/{name}", exist_ok=True)
            os.chown(f"{spool}/{name}", uid, gid)
            os.chmod(f"{spool}/{name}", mode)
        os.makedirs(f"{self.folder}/data")
        os.chown(f"{self.folder}/data", owner, owner)

    def command(self):
        return "exec /usr/lib/postfix/sbin/master -c /etc/postfix"

    def queued(self):
        return sum(len(files) for queue in ("incoming", "active", "deferred", "maildrop")
                   for _, _, files in os.walk(f"{self.folder}/spool/{queue}"))


class Postern(Server):
    name = "postern"
    build = ""

    def mounts(self):
        """A private /etc, so that the users which setup makes are gone afterwards."""
        if not self.namespace:
            return ""
        os.makedirs(f"{self.folder}/etc-work")
        os.makedirs(f"{self.folder}/etc-upper")
        folders = f"lowerdir=/etc,upperdir={self.folder}/etc-upper,workdir={self.folder}/etc-work"
        return f"mount -t overlay etc -o {folders} /etc; "

    def configure(self):
        self.config = f"{self.folder}/postern.conf"
        write(self.config, f"""spool = "{self.folder}/spool"
users = "{self.folder}/users/users.db"
keys = "{self.folder}/keys"
log = "{self.folder}/log/postern.log"
max_message_size = "100M"
max_sessions = 20000
max_sessions_per_address = 0
auth_failure_limit = 0
server "mx.bench.test" {{
    listen = {{"127.0.0.1:{self.port}"}}
    certificate = "{self.folder}/tls/cert.pem"
    key = "{self.folder}/tls/key.pem"
    accept = "any"
    host "127.0.0.0/8" {{ accept = "any" relay = true }}
}}
domain "bench.test" {{ deliver = "discard" }}
domain "relay.test" {{ via = {{"127.0.0.1:{self.sink_port}"}} tls = "none" }}
{self.variant}""")

    def command(self):
        return f"{self.build}/postern setup -c {self.config}; exec {self.build}/posternd -f -c {self.config}"

    def queued(self):
        argv = [f"{self.build}/postern", "queue", "list", "--json", "-c", self.config]
        if self.namespace:
            argv = ["nsenter", "-t", str(self.process.pid), "-m"] + argv
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"postern queue list: exit {done.returncode}: {done.stderr.strip()}")
        return sum(1 for line in done.stdout.splitlines() if json.loads(line))
