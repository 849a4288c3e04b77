"""What the drivers have in common: they print who they are, then obey commands, one JSON object per line, one answer per line.

A driver runs until its standard input ends. A command is a method of the same name; what it raises is the answer's error.
"""
import json
import signal
import sys

# The test protocols, which every peer with streams of its own serves.
ECHO = "/echo/1"  # every byte comes back
AFTER_END = "/after-end/1"  # all comes back, but only after the end of input
RESET = "/reset/1"  # is reset after the first bytes


def announce(peer, addresses):
    say({"event": "ready", "peer_id": peer, "addrs": addresses})


def say(answer):
    print(json.dumps(answer), flush=True)


def failure(error):
    """What went wrong, and what that came from."""
    reasons = []
    while error:
        reasons.append(f"{type(error).__name__}: {error}")
        error = error.__cause__
    return {"ok": False, "error": "; ".join(reasons)}


def obey(commands):
    """For drivers without an event loop."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say({"ok": True, "result": getattr(commands, request.pop("cmd"))(**request)})
        except Exception as error:
            say(failure(error))
