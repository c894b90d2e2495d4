"""paramiko: every way it has to authenticate, commands, a terminal, signals' ends, sftp."""
import os, socket, sys, filecmp, paramiko

addr, user, work, big, bin_ = (os.environ[k] for k in ("ADDR", "USER_", "WORK", "BIG", "BIN"))


def check(what, ok, *got):
    if not ok:
        sys.exit("not ok %s: %r" % (what, got))
    print("ok", what)


def client(**kw):
    c = paramiko.SSHClient()
    c.load_host_keys(os.environ["KNOWN"])
    c.connect(addr, username=user, allow_agent=False, look_for_keys=False, timeout=30, **kw)
    return c


t = paramiko.Transport((addr, 22))
t.connect()
t.auth_none(user)
check("auth none", t.is_authenticated())
t.close()
check("auth publickey", client(pkey=paramiko.RSAKey.generate(2048)).exec_command("echo in")[1].read() == b"in\n")
t = paramiko.Transport((addr, 22))
t.connect()
t.auth_interactive(user, lambda title, words, prompts: ["" for _ in prompts])
check("auth keyboard-interactive", t.is_authenticated())
t.close()

c = client(password="any")
check("auth password", True)
i, o, e = c.exec_command("echo out; echo err >&2; exit 7")
got = o.read(), e.read(), o.channel.recv_exit_status()
check("exec, standard error, exit status", got == (b"out\n", b"err\n", 7), got)
i, o, e = c.exec_command("sort; echo done")
i.write("b\na\n")
i.channel.shutdown_write()
check("half-close", o.read() == b"a\nb\ndone\n")
i, o, e = c.exec_command("cat")
i.write(open(bin_, "rb").read())
i.channel.shutdown_write()
check("binary safety", o.read() == open(bin_, "rb").read())
ch = c.get_transport().open_session()
ch.get_pty("xterm", 111, 33)
ch.resize_pty(120, 40)
ch.exec_command("stty size")
out = b""
while True:
    b = ch.recv(1024)
    if not b:
        break
    out += b
check("pty and resize", out.strip() == b"40 120", out)
s = c.open_sftp()
s.put(big, "by-paramiko")
s.get("by-paramiko", work + "/back")
check("sftp both ways", filecmp.cmp(big, work + "/back", shallow=False))
s.mkdir("paramiko-d")
s.chdir("paramiko-d")
with s.open("f", "w+") as f:
    f.write("hello world")
    f.seek(6)
    check("sftp read and write", f.read(5) == b"world")
s.posix_rename("f", "g")
s.symlink("g", "l")
s.truncate("g", 5)
s.chmod("g", 0o600)
s.utime("g", (1000000000, 1000000000))
st = s.stat("g")
check("sftp operations", (st.st_size, st.st_mode & 0o777, st.st_mtime, s.readlink("l"), sorted(s.listdir())) == (5, 0o600, 1000000000, "g", ["g", "l"]), st)
try:
    s.open("/etc/shadow")
    check("sftp as the user", False)
except PermissionError:
    check("sftp as the user", True)
try:
    s.stat("none")
    check("sftp errors", False)
except FileNotFoundError:
    check("sftp errors", True)
c.close()
