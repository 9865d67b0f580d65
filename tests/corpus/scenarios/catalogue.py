"""What a freeze can be: every operation of the catalogue, called once, with nothing else in the slice.

None of these takes long. What is judged is that a callback is told of the call, and of its line. (`nntplib.connect` is
left out: Python 3.13 has no such module.)
"""

import fcntl
import ftplib
import glob
import http.client
import imaplib
import os
import pathlib
import poplib
import shutil
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import syslog
import tempfile
import time
import urllib.request

from tests.corpus.scenario import call_at_its_line


class Things:
    """What calls can be made on: a folder with a file, a full and an empty directory, sockets that are connected."""

    def __init__(self):
        self.folder = tempfile.mkdtemp()
        self.file = f"{self.folder}/file"
        self.new = f"{self.folder}/new"
        self.directory = f"{self.folder}/directory"
        self.tree = f"{self.folder}/tree"
        pathlib.Path(self.file).write_bytes(b"x" * 100)
        os.mkdir(self.directory)
        os.mkdir(self.tree)
        os.symlink(self.file, f"{self.folder}/link")
        self.link = f"{self.folder}/link"
        self.status = os.stat(self.file)
        self.opened = open(self.file, "rb+")
        self.left, self.right = socket.socketpair()
        self.left.send(b"xxxx")
        self.right.send(b"xxxx")
        self.datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.datagrams.bind(("127.0.0.1", 0))
        self.datagram_address = self.datagrams.getsockname()
        self.datagrams.sendto(b"x", self.datagram_address)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.client = socket.socket()
        self.closed_port = _closed_port()

    def accepting(self):
        """A listening socket at which somebody waits."""
        self.client.connect(self.listening.getsockname())
        return self.listening

    def tls(self):
        """A TLS socket whose other end says nothing."""
        self.left.settimeout(0.01)
        context = ssl.create_default_context()
        return context.wrap_socket(self.left, server_hostname="localhost", do_handshake_on_connect=False)


class AcceptingThings(Things):
    """With somebody who waits at the listening socket."""

    def __init__(self):
        super().__init__()
        self.accepting()


class TlsThings(Things):
    """With a TLS socket."""

    def __init__(self):
        super().__init__()
        self.secure = self.tls()


def _closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Each lambda stands in a line of its own: that line is the culprit.
# fmt: off
TABLE = {
    "builtins.input": lambda t: input(),
    "fcntl.flock": lambda t: fcntl.flock(t.opened, fcntl.LOCK_EX),
    "fcntl.lockf": lambda t: fcntl.lockf(t.opened, fcntl.LOCK_EX),
    "ftplib.connect": lambda t: ftplib.FTP().connect("127.0.0.1", t.closed_port),
    "glob.glob": lambda t: glob.glob(f"{t.folder}/*"),
    "http.client.connect": lambda t: http.client.HTTPConnection("127.0.0.1", t.closed_port).connect(),
    "imaplib.open": lambda t: imaplib.IMAP4("127.0.0.1", t.closed_port),
    "import": lambda t: __import__("this_is_not_there"),
    "open": lambda t: open(t.file),
    "os.access": lambda t: os.access(t.file, os.R_OK),
    "os.exec": lambda t: os.execv("/does/not/exist", ["x"]),
    "os.fork": lambda t: os.fork() or os._exit(0),
    "os.fwalk": lambda t: list(os.fwalk(t.folder)),
    "os.getcwd": lambda t: os.getcwd(),
    "os.kill": lambda t: os.kill(os.getpid(), 0),
    "os.link": lambda t: os.link(t.file, t.new),
    "os.listdir": lambda t: os.listdir(t.folder),
    "os.mkdir": lambda t: os.mkdir(t.new),
    "os.path.abspath": lambda t: os.path.abspath("x"),
    "os.path.islink": lambda t: os.path.islink(t.link),
    "os.path.ismount": lambda t: os.path.ismount(t.folder),
    "os.path.sameopenfile": lambda t: os.path.sameopenfile(t.opened.fileno(), t.opened.fileno()),
    "os.path.samestat": lambda t: os.path.samestat(t.status, t.status),
    "os.posix_spawn": lambda t: os.posix_spawn("/bin/true", ["true"], {}),
    "os.readlink": lambda t: os.readlink(t.link),
    "os.remove": lambda t: os.remove(t.file),
    "os.rename": lambda t: os.rename(t.file, t.new),
    "os.replace": lambda t: os.replace(t.file, t.new),
    "os.rmdir": lambda t: os.rmdir(t.directory),
    "os.scandir": lambda t: os.scandir(t.folder).close(),
    "os.sendfile": lambda t: os.sendfile(t.left.fileno(), t.opened.fileno(), 0, 10),
    "os.spawn": lambda t: os.spawnv(os.P_WAIT, "/bin/true", ["true"]),
    "os.stat": lambda t: os.stat(t.file),
    "os.lstat": lambda t: os.lstat(t.file),
    "os.statvfs": lambda t: os.statvfs(t.folder),
    "os.symlink": lambda t: os.symlink(t.file, t.new),
    "os.system": lambda t: os.system("true"),
    "os.truncate": lambda t: os.truncate(t.file, 1),
    "os.walk": lambda t: list(os.walk(t.folder)),
    "os.read": lambda t: os.read(t.opened.fileno(), 1),
    "os.write": lambda t: os.write(t.opened.fileno(), b"x"),
    "os.fsync": lambda t: os.fsync(t.opened.fileno()),
    "os.fdatasync": lambda t: os.fdatasync(t.opened.fileno()),
    "pathlib.Path.glob": lambda t: list(pathlib.Path(t.folder).glob("*")),
    "pathlib.Path.rglob": lambda t: list(pathlib.Path(t.folder).rglob("*")),
    "poplib.connect": lambda t: poplib.POP3("127.0.0.1", t.closed_port),
    "shutil.copyfile": lambda t: shutil.copyfile(t.file, t.new),
    "shutil.copymode": lambda t: shutil.copymode(t.file, t.link),
    "shutil.copystat": lambda t: shutil.copystat(t.file, t.link),
    "shutil.copytree": lambda t: shutil.copytree(t.tree, t.new),
    "shutil.move": lambda t: shutil.move(t.file, t.new),
    "shutil.rmtree": lambda t: shutil.rmtree(t.tree),
    "smtplib.connect": lambda t: smtplib.SMTP("127.0.0.1", t.closed_port),
    "socket.getaddrinfo": lambda t: socket.getaddrinfo("127.0.0.1", 80),
    "socket.gethostbyaddr": lambda t: socket.gethostbyaddr("127.0.0.1"),
    "socket.gethostbyname": lambda t: socket.gethostbyname("127.0.0.1"),
    "socket.getnameinfo": lambda t: socket.getnameinfo(("127.0.0.1", 80), 0),
    "socket.socket.bind": lambda t: t.client.bind(("127.0.0.1", 0)),
    "socket.socket.connect": lambda t: t.client.connect(t.listening.getsockname()),
    "socket.socket.connect_ex": lambda t: t.client.connect_ex(t.listening.getsockname()),
    "socket.socket.recv": lambda t: t.left.recv(1),
    "socket.socket.recv_into": lambda t: t.left.recv_into(bytearray(1)),
    "socket.socket.recvfrom": lambda t: t.datagrams.recvfrom(1),
    "socket.socket.recvfrom_into": lambda t: t.datagrams.recvfrom_into(bytearray(1)),
    "socket.socket.recvmsg": lambda t: t.left.recvmsg(1),
    "socket.socket.send": lambda t: t.left.send(b"x"),
    "socket.socket.sendall": lambda t: t.left.sendall(b"x"),
    "socket.socket.sendmsg": lambda t: t.left.sendmsg([b"x"]),
    "socket.socket.sendto": lambda t: t.datagrams.sendto(b"x", t.datagram_address),
    "sqlite3.connect": lambda t: sqlite3.connect(t.new),
    "subprocess.Popen": lambda t: subprocess.Popen(["true"]),
    "syslog.openlog": lambda t: syslog.openlog("corpus"),
    "syslog.syslog": lambda t: syslog.syslog("a line"),
    "tempfile.mkdtemp": lambda t: tempfile.mkdtemp(),
    "tempfile.mkstemp": lambda t: tempfile.mkstemp(),
    "time.sleep": lambda t: time.sleep(0.001),
    "urllib.Request": lambda t: urllib.request.urlopen(f"http://127.0.0.1:{t.closed_port}/"),
}
ACCEPTING = {
    "socket.socket.accept": lambda t: t.listening.accept(),
}
TLS = {
    "ssl.SSLSocket.read": lambda t: t.secure.read(1),
    "ssl.SSLSocket.write": lambda t: t.secure.write(b"x"),
    "ssl.SSLSocket.do_handshake": lambda t: t.secure.do_handshake(),
}
# fmt: on

for table, prepare in ((TABLE, Things), (ACCEPTING, AcceptingThings), (TLS, TlsThings)):
    for operation, call in table.items():
        call_at_its_line(operation, call, prepare)
