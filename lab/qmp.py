# SPDX-License-Identifier: GPL-2.0-or-later
"""QMP, the hypervisor's control protocol."""

import json
import os
import socket
import threading

from .errors import LabError
from .stream import LIMIT


class Qmp:
    """A connection to the hypervisor's control socket."""

    @classmethod
    def connect(cls, path) -> "Qmp":
        """Connect to the socket PATH. PATH may be a link: a socket's name must be short, a link's need not be."""
        connection = socket.socket(socket.AF_UNIX)
        # A socket that another program uses accepts the connection but does not answer.
        connection.settimeout(10)
        connection.connect(os.path.realpath(path))
        return cls(connection)

    def __init__(self, connection: socket.socket):
        self._connection = connection
        self._lines = connection.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()
        self._events = []
        self._lines.readline()
        self.execute("qmp_capabilities")

    def _next(self, what):
        try:
            for line in self._lines:
                return json.loads(line)
        except TimeoutError:
            raise LabError(f"QMP {what}: no answer within {LIMIT} s") from None
        except (OSError, ValueError):
            pass
        raise LabError(f"QMP {what}: the hypervisor closed the connection")

    def execute(self, command: str, **arguments):
        """Run COMMAND; returns its result."""
        with self._lock:
            request = {"execute": command}
            if arguments:
                request["arguments"] = {name.replace("_", "-"): value for name, value in arguments.items()}
            self._connection.sendall(json.dumps(request).encode() + b"\n")
            while True:
                answer = self._next(command)
                if "error" in answer:
                    raise LabError(f"QMP {command}: {answer['error']['desc']}")
                if "return" in answer:
                    return answer["return"]
                self._events.append(answer)

    def wait_event(self, name: str, **data) -> dict:
        """Wait for the event NAME whose data has, for each KEY=VALUES, one of VALUES; returns its data.

        Each event is found once; earlier events are forgotten.
        """
        with self._lock:
            while True:
                event = self._events.pop(0) if self._events else self._next(f"event {name}")
                found = event.get("data", {})
                if event.get("event") == name and all(found.get(key) in values for key, values in data.items()):
                    return found

    def forget_events(self):
        """Forget all events so far: those that came before the answer to the last command."""
        with self._lock:
            self._events.clear()

    def get(self, path: str, name: str):
        """A property of the object at PATH."""
        return self.execute("qom-get", path=path, property=name)

    def set(self, path: str, name: str, value):
        """Set a property of the object at PATH."""
        self.execute("qom-set", path=path, property=name, value=value)
