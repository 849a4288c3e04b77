"""Two network namespaces on one veth pair without a way out, and the processes that run in them."""

import os
import shutil
import subprocess
import tempfile
import time

SIDES = "ab"
OTHER = {"a": "b", "b": "a"}
ADDRESS = {"a": "10.201.1.1", "b": "10.201.1.2"}  # on the veth pair
OVERLAY = {"a": "10.202.0.1", "b": "10.202.0.2"}  # in an overlay whose addresses we choose


class Failed(Exception):
    """An entrant or a measurement could not be run."""


def call(*words, input=None, timeout=30):
    """Runs a command to its end and returns its standard output."""
    words = [str(word) for word in words]
    try:
        done = subprocess.run(words, capture_output=True, text=True, input=input, timeout=timeout)
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise Failed(str(problem)) from problem
    if done.returncode:
        raise Failed(f"{' '.join(words)}: status {done.returncode}: {done.stderr.strip()[-300:]}")
    return done.stdout


def succeeds(*words):
    return subprocess.run([str(word) for word in words], capture_output=True).returncode == 0


def until(test, seconds, what):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s for {what}")
        time.sleep(0.02)


class Network:
    """Sides a and b. Use it in a `with` statement: what was made and started is gone at its end."""

    def __init__(self):
        self.tag = f"{os.getpid() % 1000000}"
        self.folder = None
        self.processes = []
        self.spaces = []

    def __enter__(self):
        try:
            self.folder = tempfile.mkdtemp(prefix="warren-bench-")
            for side in SIDES:
                call("ip", "netns", "add", self.space(side))
                self.spaces.append(self.space(side))
                self.ip(side, "link", "set", "lo", "up")
            self.ip("a", "link", "add", "u0", "mtu", 1500, "type", "veth",
                    "peer", "name", "u0", "mtu", 1500, "netns", self.space("b"))
            for side in SIDES:
                self.ip(side, "address", "add", f"{ADDRESS[side]}/24", "dev", "u0")
                self.ip(side, "link", "set", "u0", "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        for process in reversed(self.processes):
            if process.poll() is None:
                process.terminate()
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for space in self.spaces:
            subprocess.run(["ip", "netns", "delete", space], capture_output=True)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def space(self, side):
        return f"warren-bench-{self.tag}-{side}"

    def inside(self, side, *words):
        return ["ip", "netns", "exec", self.space(side), *(str(word) for word in words)]

    def on(self, side, *words, **options):
        """Runs a command on one side to its end and returns its standard output."""
        return call(*self.inside(side, *words), **options)

    def ip(self, side, *words):
        return call("ip", "-n", self.space(side), *words)

    def start(self, side, *words, environment=None, output=None):
        """Starts a process that runs until the end of the network. `ip netns exec` becomes the command, so the PID is the command's."""
        log = open(self.path(f"{len(self.processes)}.{side}.log"), "wb")
        with log:
            process = subprocess.Popen(self.inside(side, *words), stdin=subprocess.DEVNULL, stdout=output or log, stderr=log,
                                       env={**os.environ, **(environment or {})})
        process.name, process.log = f"{os.path.basename(str(words[0]))} on {side}", log.name
        self.processes.append(process)
        return process

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        """Writes a file that only we can read, and returns its path."""
        with open(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        return self.path(name)

    def logs(self):
        """The last lines of every process that wrote some."""
        found = {}
        for process in self.processes:
            with open(process.log, errors="replace") as file:
                text = file.read()[-500:].strip()
            if text:
                found[process.name] = text
        return found
