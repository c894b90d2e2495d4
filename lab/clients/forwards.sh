# OpenSSH's forwards, over one address and the other way round. The policy of the lab lets
# sessions forward to anywhere.
version "$(ssh -V 2>&1 | cut -d, -f1), forwards"
to=$USER_@$ADDR
cd "$WORK"
# On web, as the user, a server that echoes after it has read to the end: half-close, or nothing.
$SSH $to 'cat >fw-echo.py' <<'IN'
import os, socket, sys, threading
def serve(l):
    while True:
        c, _ = l.accept()
        def one(c=c):
            f = c.makefile("rwb")
            f.write(b"got " + f.read())
            f.flush()
            c.close()
        threading.Thread(target=one).start()
t = socket.socket(); t.bind(("127.0.0.1", 0)); t.listen()
try: os.unlink("fw.sock")
except OSError: pass
u = socket.socket(socket.AF_UNIX); u.bind("fw.sock"); u.listen()
print(t.getsockname()[1], flush=True)
for l in (t, u): threading.Thread(target=serve, args=(l,)).start()
IN
mkfifo hold; exec 9<>hold; : >ports
$SSH $to 'python3 fw-echo.py & echo pid $!; read x; kill $!' <&9 >ports &
i=0; while [ "$(wc -l <ports)" -lt 2 ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die "no server: $(cat ports)"; done
port=$(grep -v pid ports)
cat >ask.py <<'IN'
import socket, sys
where, words = sys.argv[1], sys.argv[2].encode()
if where.startswith("socks:"):
    _, socks, port = where.split(":")
    s = socket.create_connection(("127.0.0.1", int(socks)), 20)
    s.sendall(b"\5\1\0"); s.recv(2)
    s.sendall(b"\5\1\0\3\x09localhost" + int(port).to_bytes(2, "big"))
    assert s.recv(10)[1] == 0, "refused"
elif where.isdigit():
    s = socket.create_connection(("127.0.0.1", int(where)), 20)
else:
    s = socket.socket(socket.AF_UNIX); s.connect(where)
s.sendall(words); s.shutdown(socket.SHUT_WR)
out = b""
while True:
    b = s.recv(65536)
    if not b: break
    out += b
print(out.decode())
IN
is '-W, half-close' "$(printf hello | $SSH -W 127.0.0.1:$port $to)" 'got hello'
ctl=$WORK/ctl
$SSH -o ControlPath="$ctl" -o ExitOnForwardFailure=yes -MNf -L 7001:127.0.0.1:$port -L "$WORK/l.sock:$FAR/fw.sock" -D 7002 $to
is '-L, half-close' "$(python3 ask.py 7001 one)" 'got one'
is '-L of a unix socket' "$(python3 ask.py "$WORK/l.sock" two)" 'got two'
is '-D, half-close' "$(python3 ask.py socks:7002:$port three)" 'got three'
# The other way: a server here, reached from web.
$SSH $to cat fw-echo.py >here.py
python3 here.py >here.port & here=$!
trap 'kill $here 2>/dev/null' EXIT
i=0; while [ ! -s here.port ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die 'no server here'; done
far=$($SSH -o ControlPath="$ctl" -O forward -R 0:127.0.0.1:$(cat here.port) $to)
is '-R with port 0' "$($SSH $to "python3 - $far four" <ask.py)" 'got four'
$SSH -o ControlPath="$ctl" -O cancel -R 0:127.0.0.1:$(cat here.port) $to 2>/dev/null || $SSH -o ControlPath="$ctl" -O cancel -R $far:127.0.0.1:$(cat here.port) $to
[ "$(status $SSH $to "python3 - $far five" <ask.py)" != 0 ] || die '-R goes on after cancel'; ok '-R cancelled'
$SSH -o ControlPath="$ctl" -O forward -R "$FAR/r.sock:127.0.0.1:$(cat here.port)" $to
is '-R of a unix socket' "$($SSH $to "python3 - $FAR/r.sock six" <ask.py)" 'got six'
$SSH -o ControlPath="$ctl" -O exit $to 2>/dev/null || die 'master ends'
# One process for each, as autossh and units of systemd do it.
$SSH -N -o ExitOnForwardFailure=yes -L 7003:127.0.0.1:$port -R "$FAR/n.sock:127.0.0.1:$(cat here.port)" $to & n=$!
i=0; until [ -S "$FAR/n.sock" ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die '-N: no socket there'; done
is '-N with -L and -R' "$(python3 ask.py 7003 seven) $($SSH $to "python3 - $FAR/n.sock eight" <ask.py)" 'got seven got eight'
kill $n; wait $n || true
i=0; while [ -S "$FAR/n.sock" ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die '-N: the socket stays'; done; ok '-N ended: nothing listens'
is '-W to a port on which nobody listens' "$($SSH -W 127.0.0.1:1 $to </dev/null 2>&1 | grep -ci 'open failed: connect failed: connection refused')" 1
# Large, both ways at once.
cat >loop.py <<'IN'
import socket, sys, threading
port, data = int(sys.argv[1]), open(sys.argv[2], "rb").read()
s = socket.create_connection(("127.0.0.1", port), 20)
def send(): s.sendall(data); s.shutdown(socket.SHUT_WR)
t = threading.Thread(target=send); t.start()
out = b"".join(iter(lambda: s.recv(65536), b"")); t.join()
sys.exit(out != b"got " + data)
IN
$SSH -N -o ExitOnForwardFailure=yes -L 7004:127.0.0.1:$port $to & n=$!
i=0; until python3 ask.py 7004 x >/dev/null 2>&1; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die '-L'; done
python3 loop.py 7004 "$BIG" || die '-L, large'; ok '-L, large both ways'
kill $n; wait $n || true
# The agent: what web signs with is here.
eval "$(ssh-agent -s)" >/dev/null; trap 'kill $here $SSH_AGENT_PID 2>/dev/null' EXIT
ssh-keygen -q -t ed25519 -N '' -f key -C of-the-agent; ssh-add -q key 2>/dev/null
is '-A' "$($SSH -A $to 'ssh-add -L' | awk '{print $3}')" of-the-agent
is 'no agent without -A' "$($SSH -a $to 'echo "$SSH_AUTH_SOCK"')" ''
echo >&9
