"""ntlm1.py PORT USER PASSWORD-FILE CONNECTIONS SECONDS: logins with NTLM version 1, the only one that Cyrus SASL's server
has and that `postern bench` does not speak. Reports some of what `postern bench --json` does. For loopback only: version 1
is not safe anywhere else."""
import base64
import ctypes
import json
import resource
import socket
import struct
import sys
import threading
import time

UNICODE, NTLM, REQUEST_TARGET = 1, 0x200, 4
crypto = ctypes.CDLL("libcrypto.so.3")


def nt_hash(password):
    octets = password.encode("utf-16-le")
    digest = ctypes.create_string_buffer(16)
    crypto.MD4(octets, ctypes.c_size_t(len(octets)), digest)
    return digest.raw


def des_schedule(seven):
    """56 bits spread over eight octets, whose lowest bit is parity."""
    bits = int.from_bytes(seven, "big")
    key = bytes((bits >> (49 - 7 * i) & 0x7f) << 1 for i in range(8))
    schedule = ctypes.create_string_buffer(128)
    crypto.DES_set_key_unchecked(key, schedule)
    return schedule


class Client:
    def __init__(self, user, password):
        keys = nt_hash(password) + bytes(5)
        self.schedules = [des_schedule(keys[i:i + 7]) for i in (0, 7, 14)]
        self.user = user.encode("utf-16-le")

    def negotiate(self):
        return b"NTLMSSP\0" + struct.pack("<II", 1, UNICODE | NTLM | REQUEST_TARGET) + bytes(16)

    def response(self, challenge):
        out = b""
        for schedule in self.schedules:
            block = ctypes.create_string_buffer(8)
            crypto.DES_ecb_encrypt(challenge, block, schedule, 1)
            out += block.raw
        return out

    def authenticate(self, message):
        answer, at = self.response(message[24:32]), 64
        fields, payload = b"", b""
        for part in (bytes(24), answer, b"", self.user, b"", b""):  # LM, NT, domain, user, workstation, session key
            fields += struct.pack("<HHI", len(part), len(part), at)
            payload, at = payload + part, at + len(part)
        return b"NTLMSSP\0" + struct.pack("<I", 3) + fields + struct.pack("<I", UNICODE | NTLM) + payload


def say(stream, line, code):
    if line:
        stream.write(line + b"\r\n")
        stream.flush()
    while True:
        reply = stream.readline()
        if not reply.startswith(code):
            raise OSError(f"{line!r} -> {reply!r}")
        if reply[3:4] != b"-":
            return reply[4:].strip()


def log_in(port, client):
    with socket.create_connection(("127.0.0.1", port), 30) as s, s.makefile("rwb") as stream:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.monotonic()
        say(stream, b"", b"220")
        say(stream, b"EHLO client.bench.test", b"250")
        message = say(stream, b"AUTH NTLM " + base64.b64encode(client.negotiate()), b"334")
        say(stream, base64.b64encode(client.authenticate(base64.b64decode(message))), b"235")
        took = time.monotonic() - start
        say(stream, b"QUIT", b"221")
    return took


def main():
    port, user, password_file, connections, seconds = sys.argv[1:]
    client = Client(user, open(password_file).readline().rstrip("\n"))
    times, errors = [], []
    start = time.monotonic()
    end = start + float(seconds)

    def work():
        while time.monotonic() < end and len(errors) < 100:
            try:
                times.append(log_in(int(port), client))
            except OSError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(int(connections))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, usage = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    times.sort()
    p99 = times[min(len(times) * 99 // 100, len(times) - 1)] * 1000 if times else 0
    print(json.dumps({"sessions": len(times), "sessions_per_s": len(times) / wall, "session_ms": {"p99": p99},
                      "error_count": len(errors), "errors": [{"text": text} for text in errors[:1]],
                      "cpu_share": (usage.ru_utime + usage.ru_stime) / wall}))


if __name__ == "__main__":
    main()
