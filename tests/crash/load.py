"""Load that counts: every message has a number of its own, and what got its 250 is written down."""
import re
import threading

from wire import Closed


class Load:
    """Connections that send until they are told to stop."""

    def __init__(self, p, recipient="x@here.test", connections=8, size=600):
        self.p, self.recipient, self.size = p, recipient, size
        self.lock, self.enough = threading.Lock(), threading.Event()
        self.acked, self.refused, self.problems = [], [], []
        self.progress = threading.Condition(self.lock)
        self.threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(connections)]
        for thread in self.threads:
            thread.start()

    def _run(self, n):
        wire, i = None, 0
        while not self.enough.is_set():
            try:
                if wire is None:
                    wire = self.p.connect(greeting=None)
                    first = wire.reply()
                    if first.code != 220:
                        wire.close()
                        wire = None
                        self.enough.wait(0.01)
                        continue
                    wire.send(b"EHLO load.test\r\n")
                    wire.reply()
                name = f"LOAD-{n}-{i}"
                i += 1
                reply = self._one(wire, name)
                with self.lock:
                    (self.acked if reply.code == 250 else self.refused).append(name if reply.code == 250 else reply)
                    self.progress.notify_all()
                if reply.code == 421:
                    wire = None
            except (Closed, OSError):
                wire = None
                self.enough.wait(0.01)
            except Exception as problem:  # a test must not lose what a thread found
                self.problems.append(problem)
                return

    def _one(self, wire, name):
        wire.send(f"MAIL FROM:<s@load.test>\r\nRCPT TO:<{self.recipient}>\r\nDATA\r\n".encode())
        replies = [wire.reply() for _ in range(3)]
        if replies[2].code != 354:
            if replies[0].code == 250:
                wire.cmd("RSET")
            return next(r for r in replies if r.code not in (250,))
        wire.send(f"Subject: {name}\r\n\r\n".encode() + b"z" * self.size + b"\r\n.\r\n")
        return wire.reply()

    def wait(self, count, timeout=60):
        """Until so many are acknowledged."""
        with self.progress:
            done = self.progress.wait_for(lambda: len(self.acked) >= count or self.problems, timeout)
        assert not self.problems, self.problems
        assert done, f"only {len(self.acked)} of {count} acknowledged; refused: {self.refused[-3:]}"

    def stop(self):
        self.enough.set()
        for thread in self.threads:
            thread.join(30)
        assert not self.problems, self.problems
        return list(self.acked)


def names(messages):
    """How often each came."""
    found = {}
    for message in messages:
        got = re.search(rb"Subject: (LOAD-\d+-\d+)\r\n", message)
        if got:
            found[got.group(1).decode()] = found.get(got.group(1).decode(), 0) + 1
    return found
