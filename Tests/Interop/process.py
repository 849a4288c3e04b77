"""Starts a peer, or the node under test, in a network namespace and talks to it: one JSON object per line each way."""
import json
import queue
import subprocess
import threading
import time


class Broken(Exception):
    """The process does not answer, or answered with an error."""


class Process:
    START_SECONDS = 60
    STOP_SECONDS = 5

    def __init__(self, name, namespace, command, log):
        self.name = name
        self.broken = None
        self.lines = queue.Queue()
        self.log = open(log, "wb")
        try:
            self.child = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=self.log, text=True)
        except OSError as error:
            raise Broken(f"{name} cannot be started: {error}") from error
        self.reader = threading.Thread(target=self.read_lines, daemon=True)
        self.reader.start()
        try:
            ready = self.next_answer(self.START_SECONDS)
        except Broken:
            self.stop()
            raise
        self.peer, self.address = ready["peer_id"], ready["addrs"][0]

    def read_lines(self):
        for line in self.child.stdout:
            if line.startswith("{"):
                self.lines.put(line)
        self.lines.put(None)

    def next_answer(self, seconds):
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise self.breaks(f"no answer from {self.name} in {seconds} s") from None
        if line is None:
            raise self.breaks(f"{self.name} ended with {self.child.wait()}: {self.last_words()}")
        return json.loads(line)

    def last_words(self):
        with open(self.log.name, errors="replace") as log:
            lines = log.read().splitlines()
        return lines[-1] if lines else "nothing on standard error"

    def breaks(self, reason):
        """From now on nothing it says can be matched to a question."""
        self.broken = reason
        return Broken(reason)

    def __call__(self, command, seconds=20, **arguments):
        """Has a command performed; returns its result."""
        if self.broken:
            raise Broken(self.broken)
        try:
            self.child.stdin.write(json.dumps({"cmd": command, **arguments}) + "\n")
            self.child.stdin.flush()
        except OSError as error:
            raise self.breaks(f"{self.name} is gone: {error}") from error
        answer = self.next_answer(seconds)
        if not answer["ok"]:
            raise Broken(f"{self.name}: {command}: {answer['error']}")
        return answer.get("result")

    def stop(self):
        """Ends it the orderly way first; returns its exit status, negative when a signal was needed."""
        for end in (self.child.stdin.close, self.child.terminate, self.child.kill):
            try:
                end()
            except OSError:
                pass
            try:
                self.child.wait(self.STOP_SECONDS)
                break
            except subprocess.TimeoutExpired:
                continue
        self.reader.join(self.STOP_SECONDS)
        self.log.close()
        return self.child.returncode


def until(what, probe, seconds=10):
    """Asks until the answer is true, and returns it."""
    end = time.monotonic() + seconds
    while not (answer := probe()):
        if time.monotonic() > end:
            raise Broken(f"not within {seconds} s: {what}")
        time.sleep(0.05)
    return answer
