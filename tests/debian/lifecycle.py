"""The package on a machine of its own: installed, serving, upgraded while a client reads, removed and
purged, after which nothing is left.

Run by ./run, as root, in namespaces of its own. ROOT is a minimal Debian, whose service manager is booted
here, so that units and maintainer scripts are what they are in earnest; PACKAGE is the package.
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT, PACKAGE = Path(sys.argv[1]), Path(sys.argv[2])
CONFIGURATION = ROOT / "etc/ssegate/gateway.toml"
# As long as a busy machine may take to boot, or a reconnection time may be.
DEADLINE_SECONDS = 60
# What dpkg, the linker or the service manager change.
NOT_OURS = ("var/lib/dpkg/", "var/log/", "var/cache/", "etc/ld.so.cache", "tmp/systemd-private", "var/tmp/systemd-private")


def run(*command, **options):
    """What a command prints; its failure is ours."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def eventually(what, condition):
    """Waits until it holds."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not (held := condition()):
        assert time.monotonic() < end, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.02)
    return held


def scratch_file():
    """For what a process says."""
    _, name = tempfile.mkstemp()
    return Path(name)


class Machine:
    """ROOT with its service manager running. The loopback network is ours as well."""

    def __init__(self):
        self.console = scratch_file()
        boot = Path(__file__).with_name("boot")
        namespaces = ["--mount", "--pid", "--cgroup", "--uts", "--ipc"]
        self.process = subprocess.Popen(
            ["unshare", *namespaces, "--fork", "--kill-child", boot, ROOT],
            stdin=subprocess.DEVNULL,
            stdout=self.console.open("w"),
            stderr=subprocess.STDOUT,
        )
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        try:
            self.first = eventually("it has a first process", lambda: children.read_text().strip())
            eventually("it has booted", self.has_booted)
        except AssertionError as error:
            raise AssertionError(self.console.read_text()) from error

    def has_booted(self):
        """Whether every unit that starts by itself has started."""
        assert self.process.poll() is None
        return self.ask("systemctl", "is-system-running") in ("running", "degraded")

    def enter(self, *command):
        """The command, as one of the machine's."""
        return ["nsenter", f"--target={self.first}", "--mount", "--pid", "--uts", "--ipc", "--", *command]

    def run(self, *command):
        """What a command on it prints; its failure is ours."""
        path = "/usr/sbin:/usr/bin:/sbin:/bin"
        return run(*self.enter("/usr/bin/env", "-i", f"PATH={path}", "LC_ALL=C", *command))

    def ask(self, *command):
        """What it prints, however it ends."""
        return subprocess.run(self.enter(*command), capture_output=True, text=True).stdout.strip()

    def install(self, package, *options):
        """Without an administrator who could answer questions."""
        copy = ROOT / "root/package.deb"
        copy.write_bytes(package.read_bytes())
        self.run("dpkg", *options, "--install", "/root/package.deb")
        copy.unlink()

    def shows(self, unit, name):
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit)

    def states(self):
        """Of the service, then of the socket: whether it runs, whether it starts by itself."""
        units = ["ssegate.service", "ssegate.socket"]
        return [(self.ask("systemctl", "is-active", unit), self.ask("systemctl", "is-enabled", unit)) for unit in units]


class Client:
    """`ssegate tail`, the program as it was when it began."""

    def __init__(self):
        self.out, self.notes = scratch_file(), scratch_file()
        self.process = subprocess.Popen(
            [ROOT / "usr/bin/ssegate", "tail", "http://127.0.0.1:8080/events/news"],
            stdout=self.out.open("w"),
            stderr=self.notes.open("w"),
        )
        eventually("the client is level with the tail", lambda: "live" in self.notes.read_text())

    def entries(self):
        """The data of its entries."""
        return [line.split(" ", 3)[3] for line in self.out.read_text().splitlines()]

    def has(self, entries):
        """It has got these, in this order, and nothing else."""
        eventually("the client has heard of all", lambda: len(self.entries()) >= len(entries))
        assert self.entries() == entries, self.out.read_text()
        assert "GAP" not in self.notes.read_text(), self.notes.read_text()

    def stop(self):
        """Ends it."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(DEADLINE_SECONDS) == 0


class Writer(threading.Thread):
    """Adds entries to the client's stream until it is stopped."""

    def __init__(self):
        super().__init__(daemon=True)
        self.entries, self.stopped = [], threading.Event()
        self.start()

    def run(self):
        """Twenty a second."""
        while not self.stopped.wait(0.05):
            text = str(len(self.entries))
            run("redis-cli", "XADD", "events:news", "*", "payload", text)
            self.entries.append(text)

    def stop(self):
        """What it has added in all."""
        self.stopped.set()
        self.join()
        return self.entries


def start_redis():
    """Where the shipped configuration looks for one."""
    command = ["redis-server", "--save", "", "--dir", tempfile.mkdtemp()]
    subprocess.Popen(command, stdout=subprocess.DEVNULL)
    ping = ["redis-cli", "ping"]
    eventually("Redis is up", lambda: subprocess.run(ping, capture_output=True).stdout == b"PONG\n")


def files():
    """Every file on the machine but those that others change."""
    found = set()
    for folder, folders, names in os.walk(ROOT):
        for name in folders + names:
            path = os.path.relpath(os.path.join(folder, name), ROOT)
            if not f"{path}/".startswith(NOT_OURS):
                found.add(path)
    return found


def next_version():
    """The package as its next version might be: with another configuration."""
    folder = Path(tempfile.mkdtemp())
    run("dpkg-deb", "--raw-extract", PACKAGE, folder / "package")
    control = folder / "package/DEBIAN/control"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+next", control.read_text()))
    with open(folder / "package/etc/ssegate/gateway.toml", "a") as configuration:
        configuration.write("# Of the next version.\n")
    run("dpkg-deb", "-Zgzip", "--root-owner-group", "--build", folder / "package", folder / "next.deb")
    return folder / "next.deb"


def edit(key, value):
    """As the administrator would; the whole file as it is then."""
    before = CONFIGURATION.read_text()
    edited = re.sub(rf"(?m)^{key}( *)= [^ ]*", rf"{key}\1= {value}", before, count=1)
    assert edited != before, key
    CONFIGURATION.write_text(edited)
    return edited


def it_is_whole(machine, version):
    """Installed, started, and as the package says."""
    told = machine.run("dpkg-query", "--show", "--showformat=${Status} ${Version}", "ssegate")
    assert told == f"install ok installed {version}", told
    conffiles = machine.run("dpkg-query", "--show", "--showformat=${Conffiles}", "ssegate").split()
    assert conffiles[::2] == ["/etc/ssegate/gateway.toml"], conffiles
    assert machine.states() == [("active", "enabled"), ("inactive", "disabled")], machine.states()
    assert machine.shows("ssegate.service", "NRestarts") == "0"
    told = machine.run("systemd-analyze", "verify", "--man=no", "ssegate.service", "ssegate.socket")
    assert told == "", told
    number = version.split("-")[0]
    assert machine.run("ssegate", "--version").startswith(f"ssegate {number} (")
    machine.run("ssegate", "check")
    for section, page in (("8", "ssegate"), ("5", "gateway.toml")):
        run("man", "-M", ROOT / "usr/share/man", "--where", section, page)


def an_upgrade_under_load_loses_nothing_and_keeps_what_was_edited(machine, version):
    """The first lifecycle."""
    machine.install(PACKAGE)
    it_is_whole(machine, version)
    edited = edit("drain", '"1s"')
    machine.run("systemctl", "restart", "ssegate")
    old = machine.shows("ssegate.service", "MainPID")
    client, writer = Client(), Writer()
    eventually("the client hears of something", client.entries)
    machine.install(next_version(), "--force-confdef", "--force-confold")
    it_is_whole(machine, f"{version}+next")
    assert machine.shows("ssegate.service", "MainPID") != old, "the old program still runs"
    assert CONFIGURATION.read_text() == edited
    client.has(writer.stop())
    client.stop()


def a_removal_and_a_purge_leave_nothing(machine, before):
    """Removed, it leaves what its administrator wrote; purged, nothing."""
    edited = CONFIGURATION.read_text()
    machine.run("dpkg", "--remove", "ssegate")
    assert CONFIGURATION.read_text() == edited
    assert [active for active, _ in machine.states()] == ["inactive", "inactive"]
    program = {path for path in files() - before if path.startswith("usr/")}
    assert not program, program
    machine.run("dpkg", "--purge", "ssegate")
    assert not files() - before, files() - before
    assert [enabled for _, enabled in machine.states()] == ["", ""], machine.states()


def a_socket_holds_its_listeners_through_an_upgrade(machine):
    """The second lifecycle: with a configuration that was edited before the start, with the socket."""
    machine.install(PACKAGE)
    machine.run("systemctl", "stop", "ssegate")
    edit("listen", '["systemd:public"]')
    machine.run("systemctl", "enable", "--now", "ssegate.socket")
    machine.run("systemctl", "start", "ssegate")
    since = machine.shows("ssegate.socket", "ActiveEnterTimestampMonotonic")
    machine.install(PACKAGE)
    assert machine.states() == [("active", "enabled")] * 2, machine.states()
    assert machine.shows("ssegate.socket", "ActiveEnterTimestampMonotonic") == since
    machine.run("dpkg", "--purge", "ssegate")


def an_unedited_configuration_is_upgraded_and_a_disabled_service_stays_disabled(machine):
    """The third lifecycle."""
    machine.install(PACKAGE)
    shipped = CONFIGURATION.read_text()
    machine.run("systemctl", "disable", "--now", "ssegate")
    machine.install(next_version())
    assert CONFIGURATION.read_text() == shipped + "# Of the next version.\n"
    assert machine.states()[0] == ("inactive", "disabled"), machine.states()
    machine.run("dpkg", "--purge", "ssegate")


def main():
    """All lifecycles."""
    run("ip", "link", "set", "lo", "up")
    start_redis()
    machine = Machine()
    before = files()
    version = run("dpkg-deb", "--field", PACKAGE, "Version")
    an_upgrade_under_load_loses_nothing_and_keeps_what_was_edited(machine, version)
    a_removal_and_a_purge_leave_nothing(machine, before)
    a_socket_holds_its_listeners_through_an_upgrade(machine)
    an_unedited_configuration_is_upgraded_and_a_disabled_service_stays_disabled(machine)
    assert not files() - before, files() - before
    print("the package was installed, started, upgraded, removed and purged")


main()
