# SPDX-License-Identifier: GPL-2.0-or-later
"""A partition, its hypervisor and its HMCs as Python objects, for the tests and for `make run` alike.

    with Lab() as lab:
        partition = lab.partition(sources=["hmc1", "hmc2"])
        partition.run("hvpipe status").check()
        hmc = lab.hmc(partition, "hmc1", "echo")

Leaving the Lab ends every process it started and removes its sockets; the logs stay. Nothing here waits by sleeping:
whoever waits is woken by the output it waits for, and a time limit only ever makes a test fail.
"""

import base64
import gzip
import io
import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
BUILD = TOP / "build"
MACHINES = BUILD / "machines"   # NAME.qmp for each that runs: a link to a control socket, for scripts/fault
KERNEL = os.environ.get("KERNEL") or "vmlinux"  # what partitions run, if nothing else is said
# What a kernel says that found a bug of its own, KASAN, UBSAN, lockdep and the hung task detector among them
SPLAT = re.compile(r"\bOops\b|BUG:|WARNING: (CPU|possible|suspicious|inconsistent|bad)|UBSAN:|Call Trace|rcu: INFO|"
                   r"blocked for more")
LEAKS = "/sys/kernel/debug/kmemleak"
LIMIT = 120     # seconds; generous, for a loaded machine


class LabError(Exception):
    """Something the lab runs did not do what it should; the text carries its last output."""


class CommandFailed(LabError):
    """A command in the partition ended with a status other than 0."""


def source_id(name):
    """The source ID that NAME stands for: hmcN, or a number."""
    match = re.fullmatch(r"hmc(\d+)", name)
    return 0x02000000 | int(match[1]) if match else int(name, 0)


class Line(io.RawIOBase):
    """What can be read from files or sockets one after the other: from the next one when the one before has ended."""

    def __init__(self, first):
        super().__init__()
        self._parts = [first]

    def follow(self, part):
        """Go on with PART. To be said before the one before ends, lest its end be taken for that of all."""
        self._parts.append(part)

    @property
    def last(self):
        """What is read last, and written to."""
        return self._parts[-1]

    def readable(self):
        return True

    def readinto(self, buffer):
        while True:
            try:
                data = os.read(self._parts[0].fileno(), len(buffer))
            except (OSError, ValueError):
                data = b""
            if data or len(self._parts) == 1:
                buffer[:len(data)] = data
                return len(data)
            self._parts.pop(0).close()


class Stream:
    """Everything that came out of a file descriptor so far, to look at and to wait for; also kept in a log file."""

    def __init__(self, reader, name, log=None):
        self.name = name
        # Not what fills a buffer first, nor what asks for more at the end.
        self._read_some = reader.read if isinstance(reader, Line) else lambda size: os.read(reader.fileno(), size)
        self._log = open(log, "ab", buffering=0) if log else None
        self._bytes = bytearray()
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, name=f"read {name}", daemon=True)
        self._thread.start()

    def _read(self):
        while True:
            try:
                data = self._read_some(65536)
            except (OSError, ValueError):
                data = b""
            with self._changed:
                if not data:
                    self._ended = True
                    if self._log:
                        self._log.close()
                self._bytes += data
                self._changed.notify_all()
                if not data:
                    return
            if self._log:
                self._log.write(data)

    @property
    def text(self):
        """All of it so far."""
        with self._changed:
            return self._bytes.decode(errors="replace")

    @property
    def size(self):
        """How many bytes there are so far: a mark for wait_for()."""
        with self._changed:
            return len(self._bytes)

    def since(self, mark):
        """What came after MARK."""
        with self._changed:
            return self._bytes[mark:].decode(errors="replace")

    def wait_for(self, pattern, since=0, count=1, limit=LIMIT):
        """Wait until what came after SINCE matches PATTERN COUNT times; returns the last of these matches."""
        pattern = re.compile(pattern, re.M)
        deadline = time.monotonic() + limit
        with self._changed:
            while True:
                text = self._bytes[since:].decode(errors="replace")
                match = next(itertools.islice(pattern.finditer(text), count - 1, None), None)
                if match:
                    return match
                if self._ended:
                    why = "it ended"
                elif deadline <= time.monotonic():
                    why = f"not within {limit} s"
                else:
                    self._changed.wait(deadline - time.monotonic())
                    continue
                raise LabError(f"{self.name}: no {pattern.pattern!r}: {why}. Its last output:\n{text[-2000:]}")

    def wait_end(self, limit=LIMIT):
        """Wait until the other side has closed; returns all the output."""
        self._thread.join(limit)
        if self._thread.is_alive():
            raise LabError(f"{self.name}: still going after {limit} s. Its last output:\n{self.text[-2000:]}")
        return self.text


class Command:
    """A command that runs in the partition. Its output is there when it has ended."""

    def __init__(self, agent, number, text):
        self._agent = agent
        self._number = number
        self.text = text
        self.status = None
        self.output = None
        self._ended = threading.Event()

    def _finish(self, status, output):
        self.status, self.output = status, output
        self._ended.set()

    @property
    def running(self):
        """Whether it has not ended yet."""
        return not self._ended.is_set()

    def wait(self, limit=LIMIT):
        """Wait for its end; returns itself, with status and output (bytes)."""
        if not self._ended.wait(limit):
            self._agent.signal(self._number, "KILL")
            raise LabError(f"partition: {self.text!r} did not end within {limit} s")
        if self.status is None:
            raise LabError(f"partition: it went away while {self.text!r} ran")
        return self

    def signal(self, name):
        """Send the signal NAME to it and to what it started."""
        self._agent.signal(self._number, name)

    def stop(self):
        """Ask it, and what it started, to end; returns itself when it has."""
        self.signal("TERM")
        return self.wait()

    def kill(self):
        """Kill it and what it started; returns itself when it has ended."""
        self.signal("KILL")
        return self.wait()

    def check(self):
        """Fail unless its status is 0; returns its output as text."""
        self.wait()
        if self.status != 0:
            raise CommandFailed(f"partition: {self.text!r} ended with status {self.status}:\n{self.stdout}")
        return self.stdout

    @property
    def stdout(self):
        """Its output (both streams) as text."""
        return self.output.decode(errors="replace")


class Agent:
    """Our side of the partition's second terminal, where scripts/initramfs/bin/agent runs commands for us.

    What was typed at one machine but not read by the partition when it left is lost. Hence nothing is typed behind the
    command that makes it leave, until that has ended or the partition has arrived: it reads that command last.
    """

    def __init__(self, line, log):
        self._line = line
        self._numbers = itertools.count(1)
        self._waiting = {}
        self._alone = None      # the command behind which nothing may be typed
        self._gone = "it is gone"
        self._changed = threading.Condition()
        self._ready = threading.Semaphore(0)
        self._boots = 0
        self._log = open(log, "wb", buffering=0)
        self._thread = threading.Thread(target=self._read, name="agent", daemon=True)
        self._thread.start()

    def _read(self):
        command, status, body = None, None, b""
        with io.BufferedReader(self._line) as lines, self._log:
            try:
                for line in lines:
                    self._log.write(line)
                    words = line.split()
                    if command is not None and words == [b"ready"]:     # its kernel left in the middle of its answer
                        command._finish(None, b"")
                        command = None
                    if command is not None:
                        if words[:1] == [b"end"]:
                            self._let_type(command)
                            command._finish(status, base64.b64decode(body))
                            command = None
                        else:
                            body += line
                    elif words[:1] == [b"begin"] and len(words) == 3:
                        with self._changed:
                            command = self._waiting.pop(int(words[1]))
                        status, body = int(words[2]), b""
                    elif words == [b"ready"]:
                        self._boots += 1
                        if self._boots > 1:     # what ran has gone with the kernel it ran on
                            self._finish_all({})
                        self._ready.release()
            except (ValueError, KeyError):
                self._gone = f"its agent's line is garbled: {line[:200]!r}"
        self._finish_all(None)
        if command:
            command._finish(None, b"")
        self._ready.release()

    def _finish_all(self, then):
        with self._changed:
            left, self._waiting, self._alone = list(self._waiting.values()), then, None
            self._changed.notify_all()
        for one in left:
            one._finish(None, b"")

    def _let_type(self, command):
        with self._changed:
            if self._alone is command:
                self._alone = None
                self._changed.notify_all()

    def _type(self, text):
        # With the condition held
        if not self._changed.wait_for(lambda: self._alone is None or self._waiting is None, LIMIT):
            raise LabError(f"partition: {self._alone.text!r} did not end within {LIMIT} s, cannot type {text[:200]!r}")
        if self._waiting is not None:
            self._line.last.sendall(text)

    def wait_ready(self, limit):
        """Wait until the partition has booted, once more if it had, as far as its agent."""
        return self._ready.acquire(timeout=limit) and self._waiting is not None

    def start(self, text, alone=False):
        """Start TEXT, a shell command, in the partition; ALONE: type nothing more until it has ended, or follow()."""
        with self._changed:
            command = Command(self, next(self._numbers), text)
            request = b"%d %s\n" % (command._number, base64.b64encode(text.encode()))
            if self._waiting is not None:
                self._waiting[command._number] = command
                self._type(request)
            if self._waiting is None:
                raise LabError(f"partition: {self._gone}, cannot run {text[:200]!r}")
            if alone:
                self._alone = command
        return command

    def follow(self, connection):
        """The partition goes on at the other end of CONNECTION."""
        self._line.follow(connection)
        with self._changed:
            self._alone = None
            self._changed.notify_all()

    def running(self):
        """The commands that have not ended."""
        with self._changed:
            return list((self._waiting or {}).values())

    def signal(self, number, name):
        """Send the signal NAME to command NUMBER."""
        with self._changed:
            self._type(b"kill %d %s\n" % (number, name.encode()))


class Qmp:
    """The hypervisor's control socket."""

    @classmethod
    def connect(cls, path):
        """Connect to PATH, a link too; its target's name may be short enough for a socket where PATH's is not."""
        connection = socket.socket(socket.AF_UNIX)
        # While another program is connected it takes this one, but does not answer.
        connection.settimeout(10)
        connection.connect(os.path.realpath(path))
        return cls(connection)

    def __init__(self, connection):
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
            raise LabError(f"QMP {what}: nothing within {LIMIT} s") from None
        except (OSError, ValueError):
            pass
        raise LabError(f"QMP {what}: the hypervisor closed the connection")

    def execute(self, command, **arguments):
        """Run COMMAND; returns what it returns, or fails with what it says."""
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

    def wait_event(self, name, **data):
        """Wait for the event NAME, one of those whose DATA is so: each NAME=VALUES, those that it may have; returns its
        data. Each event is waited for once, and those before it are forgotten."""
        with self._lock:
            while True:
                event = self._events.pop(0) if self._events else self._next(f"event {name}")
                more = event.get("data", {})
                if event.get("event") == name and all(more.get(key) in values for key, values in data.items()):
                    return more

    def forget_events(self):
        """Wait for none of the events so far. They have come in when a command has returned that was run after them."""
        with self._lock:
            self._events.clear()

    def get(self, path, name):
        """A property of the object at PATH."""
        return self.execute("qom-get", path=path, property=name)

    def set(self, path, name, value):
        """Set a property of the object at PATH."""
        self.execute("qom-set", path=path, property=name, value=value)


def publish(name, path):
    """Let scripts/fault find machine NAME by PATH, its control socket; returns what takes that back."""
    link = MACHINES / f"{name}.qmp"
    MACHINES.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(path)

    def withdraw():
        if os.path.lexists(link) and os.readlink(link) == str(path):
            link.unlink()
    return withdraw


def source_sockets(directory, name, sources):
    """Where the HMCs of SOURCES connect to: {hmcN: path}."""
    return {source.partition(",")[0]: directory / f"{name}-{source.partition(',')[0]}.sock" for source in sources}


def machine(directory, name, lines, sources=(), echo=(), hvpipe=True, kernel=KERNEL, append="", options=(), smp=1,
            memory="1G", capable=True):
    """The command that runs a partition.

    LINES are its character devices, {"console": chardev, "agent": chardev, "qmp": chardev, "control": chardev}; the
    last two are the same, for two programs. A source of SOURCES is
    "hmcN", or "hmcN,PROPERTY=VALUE..." for a device with more properties; those of ECHO answer by themselves. A machine
    that is not CAPABLE has no pipe, but keeps the state of one for a partition on its way.
    """
    command = [
        BUILD / "qemu-system-ppc64", "-machine", "pseries,x-vof=on", "-accel", "tcg", "-nodefaults", "-nographic",
        "-L", BUILD / "pc-bios", "-m", memory, "-smp", smp, "-no-reboot", "-name", name,
        "-kernel", BUILD / kernel, "-initrd", BUILD / "initramfs.cpio.gz",
        "-append", f"console=hvc0 rdinit=/init {append}".strip(),
    ]
    for line, chardev in lines.items():
        kind, _, more = chardev.partition(",")
        command += ["-chardev", f"{kind},id={line},{more}"]
        if line in ("qmp", "control"):
            command += ["-qmp", f"chardev:{line}"]
        else:
            command += ["-device", f"spapr-vty,chardev={line},reg={0x30000000 + 0x1000 * (line == 'agent'):#x}"]
    if hvpipe:
        command += ["-device", "spapr-hvpipe,id=hvpipe" + ("" if capable else ",capable=off")]
    for source, path in source_sockets(directory, name, sources).items():
        command += ["-chardev", f"socket,id={source},path={path},server=on,wait=off"]
    for source in [*sources, *echo]:
        source, _, more = source.partition(",")
        more = more or ("echo=on" if source in echo else "")
        command += ["-device", f"spapr-hvpipe-source,id=source-{source},source-id={source_id(source):#x},"
                    + ",".join(filter(None, ("" if source in echo else f"chardev={source}", more)))]
    return [str(word) for word in [*command, *options]]


def initrd_with(directory, name, code, files=(), initrd=BUILD / "initramfs.cpio.gz"):
    """Compile the C program CODE for the partition; returns a copy of INITRD with it as /bin/NAME, and with FILES."""
    program = Path(directory) / name
    subprocess.run(["powerpc64le-linux-gnu-gcc", "-Wall", "-Wextra", "-Werror", "-O2", "-static", "-s", "-o", program,
                    "-x", "c", "-"], input=code.encode(), check=True)
    archive = b""
    for inode, (path, mode, data) in enumerate([(f"bin/{name}", 0o100755, program.read_bytes()),
                                                *((path.name, 0o100644, path.read_bytes()) for path in files),
                                                ("TRAILER!!!", 0, b"")]):
        fields = inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path) + 1, 0
        archive += b"070701" + b"".join(b"%08x" % field for field in fields) + path.encode() + b"\0"
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    result = Path(directory) / f"initrd-{name}"
    result.write_bytes(initrd.read_bytes() + gzip.compress(archive, 1))
    return result


class Machine:
    """A pseries machine under our QEMU; what it is made of is said in machine(). It boots a partition, or waits for one
    to move in if it is INCOMING."""

    def __init__(self, directory, name, hvpipe=True, trace=True, options=(), incoming=False, log=None, **how):
        self.name = name
        self.sockets = source_sockets(directory, name, how.get("sources", ()))
        self.incoming = directory / f"{name}-incoming.sock"

        # We listen and QEMU connects, so that not a byte of the boot is lost.
        listeners = {line: socket.socket(socket.AF_UNIX) for line in ("console", "agent", "qmp")}
        lines = {}
        for line, listener in listeners.items():
            path = directory / f"{name}-{line}.sock"
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen(1)
            lines[line] = f"socket,path={path}"
        control = directory / f"{name}-control.sock"
        lines["control"] = f"socket,path={control},server=on,wait=off"
        self._withdraw = publish(name, control)
        if hvpipe and trace:
            options = [*options, "-trace", "spapr_hvpipe_*"]
        if incoming:
            options = [*options, "-incoming", f"unix:{self.incoming}"]
        self.command = machine(directory, name, lines, hvpipe=hvpipe, options=options, **how)

        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT)
        # What the hypervisor says: its complaints, and a line for each thing that passes through the pipe.
        self.hypervisor = Stream(self.process.stdout, f"{name}'s hypervisor", log)
        self.lines = {}
        try:
            for line, listener in listeners.items():
                self.lines[line] = self._accept(listener)
            self.lines["qmp"].settimeout(LIMIT)
            self.qmp = Qmp(self.lines["qmp"])
        except OSError as error:
            words = self._last_words()
            self.close()
            raise LabError(f"{name}: the hypervisor went away ({error}):\n{words}") from None
        except BaseException:
            self.close()
            raise

    def _last_words(self):
        self.process.kill()
        return f"{shlex.join(self.command)}\n{self.hypervisor.wait_end()}"

    def _accept(self, listener):
        with listener:
            listener.settimeout(0.2)
            deadline = time.monotonic() + LIMIT
            while True:
                try:
                    connection, _ = listener.accept()
                    connection.settimeout(None)
                    return connection
                except TimeoutError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise LabError(f"{self.name}: the hypervisor did not start:\n{self._last_words()}") from None

    def quit(self):
        """End it in order, so that HMCs see their links closed."""
        self.qmp.execute("quit")
        try:
            self.process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name}: the hypervisor was told to quit, and did not within {LIMIT} s") from None
        self.close()

    def close(self):
        """End it, whatever state it is in."""
        self._withdraw()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hypervisor.wait_end()
        for line in self.lines.values():
            try:
                line.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.process.stdout.close()


class Partition:
    """A partition, booted to its agent on a Machine, which it can leave for another one."""

    def __init__(self, directory, name="partition", wait=True, **how):
        self.name = name
        self._directory, self._how = Path(directory), how
        logs = BUILD / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.console_log = logs / f"{name}.console.log"
        self.qemu_log = logs / f"{name}.qemu.log"
        self.console_log.unlink(missing_ok=True)
        self.qemu_log.unlink(missing_ok=True)
        self.machine = Machine(self._directory, name, log=self.qemu_log, **how)
        self._target = None
        self._streams = itertools.count(1)
        self._console = Line(self.machine.lines["console"])
        self.console = Stream(self._console, f"{name}'s console", self.console_log)
        self.agent = Agent(Line(self.machine.lines["agent"]), logs / f"{name}.agent.log")
        try:
            if wait:
                self.wait_booted()
        except BaseException:
            self.close()
            raise

    @property
    def process(self):
        """The hypervisor's process, where the partition is now."""
        return self.machine.process

    @property
    def hypervisor(self):
        """What the hypervisor says, where the partition is now."""
        return self.machine.hypervisor

    @property
    def qmp(self):
        """The hypervisor's control socket, where the partition is now."""
        return self.machine.qmp

    @property
    def sockets(self):
        """Where HMCs connect to now, {hmcN: path}."""
        return self.machine.sockets

    def addresses(self, source):
        """Where an HMC finds SOURCE, here and at the next target: of two places, turn by turn."""
        return [source_sockets(self._directory, name, [source])[source] for name in (self.name, f"{self.name}-b")]

    def target(self, options=(), **changes):
        """Start another machine, to which the partition can move: like that here, but for CHANGES and OPTIONS more."""
        if self._target:
            self._target.close()
        name = f"{self.name}-b" if self.machine.name == self.name else self.name
        how = {**self._how, **changes}
        how["options"] = [*how.get("options", ()), *options]
        self._target = Machine(self._directory, name, incoming=True, log=self.qemu_log, **how)
        return self._target

    def sleep(self):
        """Have the partition go to sleep in order to migrate; returns the command that ends when it is back.

        Nothing can be run meanwhile: who tries waits.
        """
        stream = next(self._streams)
        self.qmp.set("/machine", "vasi-stream", stream)
        # A migration that was aborted may have slept for a moment, which nobody waited for.
        self.qmp.forget_events()
        self.qmp.set("/machine", "vasi-state", "suspending")
        return self.agent.start(f"echo {stream} >/sys/kernel/mobility/migration", alone=True)

    def wait_asleep(self):
        """Wait until nothing runs in the partition any more."""
        self.qmp.wait_event("SUSPEND")

    def carry(self, target):
        """Move the partition, which sleeps, to TARGET, where it wakes up; the machine that it leaves ends."""
        here = self.machine
        # With the return path it is completed when the target says so, not when all has been sent.
        here.qmp.execute("migrate-set-capabilities", capabilities=[{"capability": name, "state": True}
                                                                   for name in ("events", "return-path")])
        # The partition sleeps anyway: no need to send in slices.
        here.qmp.execute("migrate-set-parameters", max_bandwidth=2 ** 40, downtime_limit=2000000)
        here.qmp.execute("migrate", uri=f"unix:{target.incoming}")
        if here.qmp.wait_event("MIGRATION", status=("completed", "failed"))["status"] == "failed":
            raise LabError(f"{self.name}: the migration failed, the partition stays where it is:\n"
                           f"{here.hypervisor.text[-1000:]}\nThe target said:\n{target.hypervisor.text[-1000:]}")
        # Either is ended by close(), should we be stopped in between.
        self.machine, self._target = target, here
        self._console.follow(target.lines["console"])
        self.agent.follow(target.lines["agent"])
        here.quit()
        self._target = None

    def move(self, **changes):
        """Move the partition to another machine; see target(). Returns when it says that it is there."""
        target = self.target(**changes)
        going = self.sleep()
        self.wait_asleep()
        self.carry(target)
        going.check()

    def wait_booted(self, limit=600):
        """Wait until commands can be run; after a kexec, until they can be run again."""
        if not self.agent.wait_ready(limit):
            raise LabError(f"{self.name}: did not boot; the last of {self.console_log.relative_to(TOP)}:\n"
                           f"{self.console.text[-3000:]}")

    def start(self, command):
        """Start COMMAND, a shell command line, in the partition; returns it running."""
        return self.agent.start(command)

    def serve(self, source, command):
        """Start COMMAND, which opens SOURCE; returns it when it holds the source, so that no message is dropped."""
        started = self.start(f"exec {command}")
        self.check(f"until hvpipe status | grep -q '^{source_id(source):#010x} '; do :; done")
        return started

    def run(self, command, limit=LIMIT):
        """Run COMMAND to its end; returns it with status and output."""
        return self.start(command).wait(limit)

    def check(self, command, limit=LIMIT):
        """Run COMMAND, which must succeed; returns its output."""
        return self.run(command, limit).check()

    def put(self, name, data):
        """Write DATA into the partition's file NAME, in requests that fit the buffer of its terminal."""
        where = shlex.quote(name)
        self.check(f": >{where}")
        for start in range(0, len(data), 3000):
            text = base64.b64encode(data[start:start + 3000]).decode()
            self.check(f"base64 -d >>{where} <<.\n{text}\n.")

    def get(self, name):
        """The content of the partition's file NAME."""
        command = self.run(f"cat {shlex.quote(name)}")
        command.check()
        return command.output

    def check_detectors(self):
        """Fail if lockdep tripped, if the kernel has it: a detector that did is off, and would be silent."""
        if self.run("test -e /proc/lockdep_stats").status == 0:
            said = self.check("cat /proc/lockdep_stats")
            if not re.search(r"debug_locks:\s+1\b", said):
                raise LabError(f"{self.name}: lockdep is off:\n{said}")

    def check_leaks(self):
        """Fail if kmemleak, if the kernel has it, finds something in two scans, the second for what was just being
        freed."""
        if self.run(f"test -e {LEAKS}").status == 0:
            # Objects younger than 5 s are never reported.
            said = self.check(f"echo scan >{LEAKS}; sleep 6; echo scan >{LEAKS}; cat {LEAKS}")
            if said:
                raise LabError(f"{self.name}: memory leaked:\n{said[:4000]}")

    def poweroff(self, limit=LIMIT):
        """Ask the partition to power itself off and wait for the hypervisor's end; returns its status."""
        if self.process.poll() is None:
            try:
                self.start("poweroff -f")
                self.process.wait(limit)
            except subprocess.TimeoutExpired:
                raise LabError(f"{self.name}: no power-off within {limit} s:\n{self.console.text[-2000:]}") from None
        self.close()
        return self.process.returncode

    def close(self):
        """End it, whatever state it is in."""
        for one in (self._target, self.machine):
            if one:
                one.close()


class Hmc:
    """A running hvpipe-hmc, for the source at one of ADDRESSES."""

    def __init__(self, addresses, *arguments, name="hmc", state=None, output=None, cwd=None, stdin=False):
        self.name = name
        command = [BUILD / "host/tools/hvpipe-hmc", "-v"]
        for address in addresses:
            command += ["-c", address]
        if state:
            command += ["--state", state]
        command += arguments
        self.command = [str(word) for word in command]
        # With OUTPUT, the name of a file, standard output is added to that file.
        with open(output or os.devnull, "ab") as out:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                                            stdout=out if output else subprocess.PIPE, stderr=subprocess.PIPE,
                                            cwd=cwd)
        self.out = None if output else Stream(self.process.stdout, f"{name}'s output")
        self.err = Stream(self.process.stderr, f"{name}'s errors")

    def write(self, data):
        """Give DATA to its standard input."""
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait(self, limit=LIMIT):
        """Wait for its end; returns its status."""
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.name}: {shlex.join(self.command)} did not end within {limit} s:\n"
                           f"{self.said()[-4000:]}") from None
        self.said()
        return status

    def said(self):
        """All its output; what went to a file is not in it. Waits for the end if it has ended."""
        streams = [stream for stream in (self.out, self.err) if stream]
        if self.process.poll() is not None:
            for stream in streams:
                stream.wait_end()
        return "".join(stream.text for stream in streams)

    def check(self, limit=LIMIT):
        """Wait for its end, which must be a good one; returns its output."""
        status = self.wait(limit)
        if status != 0:
            raise LabError(f"{self.name}: {shlex.join(self.command)} ended with status {status}:\n"
                           f"{self.said()[-4000:]}")
        return self.out.text if self.out else ""

    def signal(self, number):
        """Send it signal NUMBER."""
        self.process.send_signal(number)

    def close(self):
        """End it, whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.said()
        for file in (self.process.stdin, self.process.stdout, self.process.stderr):
            if file:
                try:
                    file.close()
                except OSError:
                    pass    # what was left to write to its input has no reader


class Lab:
    """A place for partitions and HMCs; ends them all when left, also by a signal."""

    def __init__(self):
        # Socket paths may not be longer than 107 bytes: a short directory, whatever TMPDIR says.
        self.directory = Path(tempfile.mkdtemp(prefix="hvpipe-", dir="/tmp"))
        self._running = []
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, self._terminated)

    @staticmethod
    def _terminated(number, frame):
        raise SystemExit(128 + number)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def partition(self, **how):
        """Start a partition; see Partition."""
        return self._keep(Partition(self.directory, **how))

    def hmc(self, partition, source, *arguments, follow=False, **how):
        """Start an HMC on SOURCE of PARTITION and wait until it is connected; see Hmc. FOLLOW: it does so when the
        partition moves."""
        how.setdefault("name", f"HMC {source}")
        addresses = partition.addresses(source) if follow else [partition.sockets[source]]
        hmc = self._keep(Hmc(addresses, *arguments, **how))
        hmc.err.wait_for("connected to")
        return hmc

    def _keep(self, one):
        self._running.append(one)
        return one

    def tidy(self):
        """End the HMCs, and all that still runs in the partitions."""
        for one in self._running:
            if isinstance(one, Hmc):
                one.close()
            else:
                for command in one.agent.running():
                    command.kill()
        self._running = [one for one in self._running if not isinstance(one, Hmc)]

    def scratch(self, name):
        """A fresh directory for files of a test."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))

    def close(self):
        """End everything and remove the directory."""
        while self._running:
            self._running.pop().close()
        shutil.rmtree(self.directory, ignore_errors=True)
