"""asyncssh: what others do not ask for: signals, exit-signal, break, many resizes, sftp extensions."""
import asyncio, filecmp, os, sys, asyncssh

addr, user, work, big, bin_ = (os.environ[k] for k in ("ADDR", "USER_", "WORK", "BIG", "BIN"))


def check(what, ok, *got):
    if not ok:
        sys.exit("not ok %s: %r" % (what, got))
    print("ok", what, flush=True)


async def main():
    async with asyncssh.connect(addr, username=user, known_hosts=os.environ["KNOWN"], client_keys=None, agent_path=None, config=None, password="any") as c:
        r = await c.run("echo out; echo err >&2; exit 7")
        check("exec, standard error, exit status", (r.stdout, r.stderr, r.exit_status) == ("out\n", "err\n", 7), r)
        r = await c.run("sort; echo done", input="b\na\n")
        check("half-close", r.stdout == "a\nb\ndone\n", r)
        data = open(bin_, "rb").read()
        r = await c.run("cat", input=data, encoding=None)
        check("binary safety", r.stdout == data)
        for sig in ("TERM", "INT", "USR1"):
            p = await c.create_process("echo ready; exec sleep 60")
            await p.stdout.readline()
            p.send_signal(sig)
            r = await p.wait()
            check("signal %s, exit-signal" % sig, r.exit_signal is not None and r.exit_signal[0] == sig, r)
        p = await c.create_process("trap 'stty size; exit' USR1; echo ready; while :; do sleep 0.1; done", term_type="xterm", term_size=(80, 24))
        await p.stdout.readline()
        for n in range(30):
            p.change_terminal_size(80 + n, 24 + n)
        p.send_signal("USR1")
        r = await p.wait()
        check("pty and 30 resizes", "53 109" in r.stdout, r)
        p = await c.create_process("stty -brkint -ignbrk; echo ready; head -c1 | od -An -tx1", term_type="xterm")
        async for line in p.stdout:
            if "ready" in line:
                break
        p.send_break(100)
        r = await asyncio.wait_for(send_line(p), 20)
        check("break on a terminal goes unharmed", r.exit_status == 0, r)
        async with c.start_sftp_client() as s:
            await s.put(big, "by-asyncssh")
            await s.get("by-asyncssh", work + "/back")
            check("sftp both ways", filecmp.cmp(big, work + "/back", shallow=False))
            await s.mkdir("asyncssh-d")
            async with s.open("asyncssh-d/f", "w") as f:
                await f.write("text")
                await f.fsync()
                st = await f.statvfs()
            await s.link("asyncssh-d/f", "asyncssh-d/hard")
            await s.posix_rename("asyncssh-d/f", "asyncssh-d/hard2")
            check("sftp fsync, fstatvfs, hardlink, posix-rename", st.bsize > 0 and sorted(await s.listdir("asyncssh-d")) == [".", "..", "hard", "hard2"])
        await asyncssh.scp(big, (c, "by-asyncssh-scp"))
        await asyncssh.scp((c, "by-asyncssh-scp"), work + "/back-scp")
        check("scp both ways", filecmp.cmp(big, work + "/back-scp", shallow=False))


async def send_line(p):
    p.stdin.write("x\n")
    return await p.wait()


asyncio.run(main())
