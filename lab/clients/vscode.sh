# What VS Code's Remote-SSH does, with its own commands' shape: a script on the standard
# input of a shell without a terminal, beside a dynamic forward; a server that it unpacks,
# starts in the background and finds again; an HTTP upgrade through the forward. The
# extension and its server are not run: they come from their maker's site only.
version 'VS Code Remote-SSH, its steps'
cd "$WORK"
to=$USER_@$ADDR
mkdir -p pack/bin
cat >pack/bin/server.py <<'IN'
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("Upgrade") == "websocket" and self.path == "/?token=" + sys.argv[1]:
            self.send_response(101); self.send_header("Upgrade", "websocket"); self.send_header("Connection", "Upgrade"); self.end_headers()
            while b := self.rfile.readline():
                self.wfile.write(b"echo " + b); self.wfile.flush()
            self.close_connection = True
            return
        body = b"%d" % os.getpid()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 0), H)
print("Server bound to 127.0.0.1:%d" % s.server_port, flush=True)
s.serve_forever()
IN
head -c 1000000 "$BIG" >pack/ballast
tar -czf pack.tgz -C pack .
cat >install <<'IN'
set -e
id=$1; token=$2
dir=$HOME/.vscode-like; log=$dir/log; pidfile=$dir/pid
mkdir -p "$dir"
[ -e "$dir/bin/server.py" ] || { tar -xzf "$HOME/pack.tgz" -C "$dir"; }
if [ ! -e "$pidfile" ] || ! kill -0 "$(cat "$pidfile")" 2>/dev/null; then
	: >"$log"
	nohup python3 "$dir/bin/server.py" "$token" >"$log" 2>&1 </dev/null &
	echo $! >"$pidfile"
fi
n=0; while ! grep -q 'bound to' "$log"; do sleep 0.1; n=$((n+1)); [ $n -lt 200 ] || exit 1; done
printf '%s: start\n' "$id"
printf 'listeningOn==%s==\n' "$(sed -n 's/.*bound to 127.0.0.1://p' "$log")"
printf 'osReleaseId==%s==\narch==%s==\nplatform==%s==\n' "$(. /etc/os-release; echo $ID)" "$(uname -m)" "$(uname -s | tr A-Z a-z)"
printf '%s: end\n' "$id"
IN
cat >websocket.py <<'IN'
import socket, sys
socks, port, token = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def dial():
    s = socket.create_connection(("127.0.0.1", socks), 20)
    s.sendall(b"\5\1\0"); assert s.recv(2) == b"\5\0"
    s.sendall(b"\5\1\0\1\x7f\0\0\1" + port.to_bytes(2, "big")); assert s.recv(10)[1] == 0, "refused"
    return s
s = dial(); s.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
out = b""
while b := s.recv(4096): out += b
pid = out.split(b"\r\n\r\n")[1].decode()
all = [dial() for _ in range(8)]  # one for each of its parts: files, terminals, extensions
for s in all: s.sendall(b"GET /?token=" + token.encode() + b" HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
for n, s in enumerate(all):
    f = s.makefile("rb")
    assert b"101" in f.readline()
    while f.readline() != b"\r\n": pass
    s.sendall(b"%d\n" % n); assert f.readline() == b"echo %d\n" % n
print(pid)
IN
# The local server's copy goes up by scp, as where the host cannot download.
scp -q -F none -o BatchMode=yes -o UserKnownHostsFile="$KNOWN" pack.tgz $to:pack.tgz; same 'server copied by scp' pack.tgz "$FAR/pack.tgz"
open_() { # NAME SOCKSPORT: the long connection of a window
	mkfifo "$1.in"; exec 9<>"$1.in"; : >"$1.out"
	$SSH -T -D "$2" -o ConnectTimeout=15 -o RemoteCommand=none $to sh <&9 >"$1.out" 2>"$1.err" & conn=$!
	{ echo "set -- $1 secret"; cat install; } >&9
	i=0; while ! grep -q "^$1: end" "$1.out"; do sleep 0.1; i=$((i+1)); [ $i -lt 300 ] || die "install: $(cat "$1.out" "$1.err")"; done
	port=$(sed -n 's/^listeningOn==\(.*\)==$/\1/p' "$1.out")
}
open_ first 7301
grep -q '^platform==linux==' first.out || die "platform: $(cat first.out)"
ok 'install script on standard input, beside a dynamic forward'
pid=$(python3 websocket.py 7301 "$port" secret) || die 'websocket'
ok 'HTTP and eight upgraded connections through the forward'
kill $conn; wait $conn || true
open_ second 7302
is 'the server is found again after a reconnect' "$(python3 websocket.py 7302 "$port" secret)" "$pid"
kill $conn; wait $conn || true
$SSH $to 'kill $(cat .vscode-like/pid)'
# The newer way: the server of the extension is asked by exec over a unix socket forward.
$SSH $to 'rm -f vs.sock; nohup python3 -c "
import socket
s = socket.socket(socket.AF_UNIX); s.bind(\"vs.sock\"); s.listen()
c, _ = s.accept(); c.sendall(c.recv(100)); c.close()" >/dev/null 2>&1 </dev/null & i=0; while [ ! -e vs.sock ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || exit 1; done'
$SSH -N -o ExitOnForwardFailure=yes -L 7303:"$FAR/vs.sock" $to & conn=$!
trap 'kill $conn 2>/dev/null || true' EXIT
is 'a unix socket of the server through -L' "$(python3 -c '
import socket, time
for _ in range(200):
    try: s = socket.create_connection(("127.0.0.1", 7303), 20); break
    except OSError: time.sleep(0.1)
s.sendall(b"hello"); print(s.recv(100).decode())')" hello
