"""Logins: Postern, Postfix with Cyrus SASL, and Postfix with Dovecot's auth, the servers on one core, the load on the
other. A KDC of MIT's (tests/lab/mit) gives the tickets; all three have a replay cache."""
import glob
import json
import os
import re
import shutil
import statistics
import subprocess

import servers
from servers import write

HERE = os.path.dirname(os.path.abspath(__file__))
HOST = "mx.bench.test"
SERVER_CORE, LOAD_CORE = 1, 0
PASSWORD = "Alice-pass1"
CONNECTIONS = 20
MECHANISMS = ("GSSAPI", "NTLM", "SCRAM-SHA-256")
TARGET = 2.0


class Realm:
    """The KDC, a keytab, and the load's password."""

    def __init__(self, root):
        self.folder = f"{root}/realm"
        self.lab = f"{HERE}/../tests/lab/mit"
        subprocess.run([self.lab, "start", self.folder], check=True)
        self.config = f"{self.folder}/krb5.conf"
        self.keytab, self.password = f"{self.folder}/smtp.keytab", f"{self.folder}/password"
        rows = f"addprinc -randkey smtp/{HOST}\nktadd -k {self.keytab} smtp/{HOST}\n"
        subprocess.run([self.lab, "kadmin", self.folder], input=rows, text=True, check=True)
        write(self.password, PASSWORD + "\n", 0o600)
        os.chmod(self.folder, 0o755)
        os.chmod(self.keytab, 0o644)  # of a key that lives for minutes; each server has users of its own
        os.chmod(self.config, 0o644)

    def end(self):
        subprocess.run([self.lab, "stop", self.folder])


def fetch(folder, *packages):
    """Downloads packages, and what they need that is not here, without installing anything."""
    if os.path.exists(f"{folder}/done"):
        return folder
    plan = subprocess.run(["apt-get", "-s", "install", "--no-install-recommends", *packages], capture_output=True,
                          text=True).stdout
    names = re.findall(r"^Inst (\S+)", plan, re.M) or list(packages)
    os.makedirs(f"{folder}/debs", exist_ok=True)
    subprocess.run(["apt-get", "download", "-qq"] + names, cwd=f"{folder}/debs", check=True, capture_output=True)
    for deb in glob.glob(f"{folder}/debs/*.deb"):
        subprocess.run(["dpkg", "-x", deb, folder], check=True)
    write(f"{folder}/done", "")
    return folder


class Postern(servers.Postern):
    realm = None
    mechanisms = MECHANISMS
    tokens_each_s = 4000
    more = ""

    def configure(self):
        self.config = f"{self.folder}/postern.conf"
        write(self.config, f"""spool = "{self.folder}/spool"
users = "{self.folder}/users/users.db"
keys = "{self.folder}/keys"
log = "{self.folder}/log/postern.log"
krb5_config = "{self.krb5_config()}"
max_sessions_per_address = 0
auth_failure_limit = 0
server "{HOST}" {{
    submission = {{"127.0.0.1:{self.port}"}}
    certificate = "{self.folder}/tls/cert.pem"
    key = "{self.folder}/tls/key.pem"
    keytab = "{self.realm.keytab}"
    mechanisms = {{{", ".join(f'"{name}"' for name in MECHANISMS)}}}
    host "127.0.0.0/8" {{ plaintext = true }}
}}
domain "bench.test" {{ deliver = "discard" }}
{self.more}""")

    def krb5_config(self):
        return self.realm.config

    def mounts(self):
        return super().mounts() + f"taskset -p {1 << SERVER_CORE:x} $$ >/dev/null; "

    def command(self):
        postern, config = f"{self.build}/postern", self.config
        return (f"{postern} setup -c {config}; {postern} user add --ntlm alice -c {config} < {self.realm.password}; "
                f"exec {self.build}/posternd -f -c {config}")


class PostfixCyrus(servers.Postfix):
    name = "postfix+cyrus"
    realm = None
    mechanisms = MECHANISMS
    tokens_each_s = 1200

    def environment(self):
        return f"KRB5_CONFIG={self.realm.config} KRB5_KTNAME={self.realm.keytab} KRB5RCACHEDIR={self.folder}/rcache"

    def sasl(self):
        return f"smtpd_sasl_type = cyrus\nsmtpd_sasl_path = smtpd\ncyrus_sasl_config_path = {self.folder}/sasl\n"

    def configure(self):
        self.variant = f"""smtpd_sasl_auth_enable = yes
smtpd_sasl_security_options = noanonymous
smtpd_sasl_local_domain = {HOST}
import_environment = MAIL_CONFIG MAIL_LOGTAG PATH {self.environment()}
{self.sasl()}"""
        super().configure()
        os.makedirs(f"{self.folder}/rcache")
        os.chmod(f"{self.folder}/rcache", 0o777)
        write(f"{self.folder}/sasl/smtpd.conf", f"""pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {self.folder}/sasl/sasldb2
mech_list: {" ".join(MECHANISMS)}
""")

    def mounts(self):
        return super().mounts() + f"taskset -p {1 << SERVER_CORE:x} $$ >/dev/null; "

    def command(self):
        return (f"saslpasswd2 -p -c -f {self.folder}/sasl/sasldb2 -u {HOST} alice < {self.realm.password}; "
                f"chmod 644 {self.folder}/sasl/sasldb2; " + super().command())


class PostfixDovecot(PostfixCyrus):
    name = "postfix+dovecot"
    mechanisms = ("GSSAPI", "SCRAM-SHA-256")  # its own NTLM was removed in 2.3.13

    def sasl(self):
        return "smtpd_sasl_type = dovecot\nsmtpd_sasl_path = private/dovecot-auth\n"

    def configure(self):
        super().configure()
        with open(f"{self.folder}/etc/passwd", "a") as f:
            f.write("dovecot:x:903:903::/nonexistent:/bin/false\ndovenull:x:904:904::/nonexistent:/bin/false\n")
        with open(f"{self.folder}/etc/group", "a") as f:
            f.write("dovecot:x:903:\ndovenull:x:904:\n")
        write(f"{self.folder}/dovecot.conf", f"""base_dir = {self.folder}/dovecot
state_dir = {self.folder}/dovecot-state
log_path = {self.folder}/log/dovecot.log
protocols =
ssl = no
disable_plaintext_auth = no
import_environment = PATH {self.environment()}
auth_mechanisms = {" ".join(name.lower() for name in self.mechanisms)}
auth_krb5_keytab = {self.realm.keytab}
auth_gssapi_hostname = {HOST}
passdb {{
  driver = passwd-file
  args = username_format=%n {self.folder}/dovecot.users
}}
userdb {{
  driver = static
  args = uid=904 gid=904 home=/nonexistent
}}
service auth {{
  unix_listener {self.folder}/spool/private/dovecot-auth {{
    mode = 0666
  }}
}}
""")

    def command(self):
        conf = f"{self.folder}/dovecot.conf"
        verifier = f'echo "alice:$(doveadm -c {conf} pw -s SCRAM-SHA-256 -p {PASSWORD})" > {self.folder}/dovecot.users'
        return f"{verifier}; dovecot -c {conf}; " + servers.Postfix.command(self)


class Logins:
    def __init__(self, build, realm, seconds):
        self.postern, self.realm, self.seconds = f"{build}/postern", realm, seconds

    def load(self, server, mechanism, *options):
        if mechanism == "GSSAPI":
            tokens = int(server.tokens_each_s * self.seconds)
            who = ["-u", "alice@CORP.TEST", "--spn", f"smtp/{HOST}", "--tokens", str(tokens)]
        else:
            realm = f"@{HOST}" if server.name == "postfix+cyrus" else ""
            who = ["-u", "alice" + realm]
        argv = ["taskset", "-c", str(LOAD_CORE), "timeout", "120", self.postern, "bench", "--json", "-q", "-w", "30", "-e",
                "1000", "-p", self.realm.password, "-a", mechanism, *who, *[str(o) for o in options]]
        done = subprocess.run(argv + [f"127.0.0.1:{server.port}"], capture_output=True, text=True,
                              env=dict(os.environ, KRB5_CONFIG=self.realm.config))
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise RuntimeError(f"{' '.join(argv)} against {server.name}: {done.stderr.strip()[-300:]}") from None

    def measure(self, server, mechanism):
        self.load(server, mechanism, "-n", CONNECTIONS, "-m", 2 * CONNECTIONS)  # processes, credentials, caches
        cpu = server.group.cpu_s()
        load = self.load(server, mechanism, "-n", CONNECTIONS, "-d", self.seconds)
        return {"per_s": load["sessions_per_s"], "p99_ms": load["session_ms"]["p99"], "errors": load["error_count"],
                "error_texts": load["errors"], "generator_share": load["cpu_share"],
                "cpu_ms": (server.group.cpu_s() - cpu) / max(load["sessions"], 1) * 1000}
