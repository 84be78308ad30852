"""A private CA and certificates, made with the openssl command."""
import subprocess
from pathlib import Path


def openssl(*args, cwd=None):
    done = subprocess.run(["openssl", *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"openssl {args}: {done.stderr}"
    return done.stdout


class Authority:
    def __init__(self, folder, name="Test CA"):
        self.folder = Path(folder)
        self.folder.mkdir(mode=0o755, exist_ok=True)
        self.certificate = self.folder / "ca.pem"
        self.key = self.folder / "ca.key"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                "-subj", f"/CN={name}", "-keyout", self.key, "-out", self.certificate)

    def issue(self, name, kind="ec", names=(), days=20):
        """(certificate, key) for a host; key in a file of its own, mode 0600."""
        stem = f"{name}-{kind}"
        certificate, key, request = (self.folder / f"{stem}.{ext}" for ext in ("pem", "key", "csr"))
        algorithm = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["rsa:2048"]
        openssl("req", "-newkey", *algorithm, "-nodes", "-subj", f"/CN={name}", "-keyout", key, "-out", request)
        extensions = self.folder / f"{stem}.ext"
        extensions.write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in (name, *names)) + "\n")
        openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
                "-days", days, "-extfile", extensions, "-out", certificate)
        key.chmod(0o600)
        return certificate, key
