# tssh itself.
version "$(tssh version | head -1)"
t="tssh --socket $SOCKET"
to=$USER_@web
cd "$WORK"
is exec "$($t $to 'echo out; echo err >&2' 2>err)" out
is 'standard error apart' "$(cat err)" err
is 'exit status' "$(status $t $to 'exit 7') $(status $t $to 'exit 255') $(status $t $to true)" '7 255 0'
is 'killed by a signal' "$(status $t $to 'kill -TERM $$')" 143
is 'half-close' "$(printf 'b\na\n' | $t $to 'sort; echo done' | tr '\n' ' ')" 'a b done '
$t $to cat <"$BIN" >bin; same 'binary safety' "$BIN" bin
is 'no standard input' "$(echo never | $t -n $to 'cat; echo done') $($t $to 'cat; echo done' <&-)" 'done done'
is 'a reader that goes away' "$({ code=0; $t $to yes || code=$?; echo $code >code; } 2>err | head -1; cat code; cat err)" 'y
141'
out=$(pty "$t -t $to 'stty size; tty'"); echo "$out" | grep -q '^33 111$' || die "pty: $out"; ok pty
is '-T' "$(pty "$t -T $to tty" | head -1)" 'not a tty'
is environment "$(LC_TIME=C.UTF-8 $t -o SetEnv=LC_NAME=x $to 'echo $LC_TIME $LC_NAME')" 'C.UTF-8 x'
# A signal here is one there.
$t $to 'trap "echo got; exit 3" TERM; echo ready; while :; do sleep 0.1; done' >sig & p=$!
i=0; until grep -q ready sig; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die signals; done
kill -TERM $p; code=0; wait $p || code=$?
is signals "$(tail -1 sig) $code" 'got 3'
code=0; out=$($t nobody-here@web true 2>&1) || code=$?
echo "$out" | tail -1 | grep -q '^tssh: error: .* \[denied\]$' || die "refusal: $out"; is 'refusal' "$code" 255
code=0; out=$($t $to@none true 2>&1) || code=$?
echo "$out" | tail -1 | grep -q '^tssh: error: .* \[unreachable\]$' || die "unknown host: $out"; is 'unknown host' "$code" 255
large() { $t $to "cat >large; sha256sum <large" <"$BIG" | cut -d' ' -f1; }
is 'large by standard input' "$(large)" "$(sha256sum <"$BIG" | cut -d' ' -f1)"
$t $to cat large >back; same 'large by standard output' "$BIG" back
$t cp "$BIG" $to:by-tssh; same 'cp up' "$BIG" "$FAR/by-tssh"
$t cp $to:by-tssh back2; same 'cp down' "$BIG" back2
$t cp --channels 4 "$BIG" $to:by-tssh4; cmp "$BIG" "$FAR/by-tssh4"; $t cp --channels 4 $to:by-tssh4 back4; same 'cp through four channels, both ways' "$BIG" back4
mkdir -p tree/sub; cp "$BIN" 'tree/sub/ä b'; : >tree/empty; ln -s sub tree/link; i=0; while [ $i -lt 200 ]; do echo $i >tree/sub/$i; i=$((i+1)); done; printf x >"tree/new
line"; printf y >"tree/$(printf 'bad\377utf8')"; touch -d @1000000000 tree/empty; chmod 640 tree/empty
$t cp -a tree $to:tree-tssh; diff -r --no-dereference tree "$FAR/tree-tssh" || die 'cp -a up'
is 'cp -a up' "$(stat -c '%a %Y' "$FAR/tree-tssh/empty")" '640 1000000000'
$t cp -a $to:tree-tssh tree-back; diff -r --no-dereference tree tree-back || die 'cp -a down'; ok 'cp -a down'
$t cp "$to:tree-tssh/sub/{1,2}*9" .; is 'cp of a pattern' "$(ls | grep -c '^[12].*9$')" 12
$t cp --resume "$BIG" $to:by-resume; same 'cp --resume' "$BIG" "$FAR/by-resume"
code=0; out=$($t cp $to:none $to:none2 2>&1) || code=$?; is 'cp of nothing' "$code $(echo "$out" | tail -1)" "1 tssh: error: $to:none: file does not exist"
out=$(pty "$t cp -r tree/sub $to:by-pty"; pty "$t cp $BIG $to:by-pty2"); echo "$out" | grep -q '^.*201 files, .* KiB, ' && echo "$out" | grep -q 'big 100% .* MiB' || die "cp on a terminal: $out"; ok 'cp on a terminal'
[ -z "$(find "$FAR" -name '*.tssh-*')" ] || die 'cp left something behind'
# Forwards: a server on web that echoes after the half-close, one here.
cat >echo.py <<'IN'
import socket, threading
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(); print(l.getsockname()[1], flush=True)
def one(c):
    f = c.makefile("rwb"); f.write(b"got " + f.read()); f.flush(); c.close()
while True: threading.Thread(target=one, args=(l.accept()[0],)).start()
IN
cat >ask.py <<'IN'
import socket, sys
where, words = sys.argv[1], sys.argv[2].encode()
if where.startswith("socks:"):
    _, socks, port = where.split(":")
    s = socket.create_connection(("127.0.0.1", int(socks)), 20)
    s.sendall(b"\5\1\0"); s.recv(2)
    s.sendall(b"\5\1\0\3\x09localhost" + int(port).to_bytes(2, "big"))
    assert s.recv(10)[1] == 0, "refused"
elif where.isdigit(): s = socket.create_connection(("127.0.0.1", int(where)), 20)
else: s = socket.socket(socket.AF_UNIX); s.connect(where)
s.sendall(words); s.shutdown(socket.SHUT_WR)
print(b"".join(iter(lambda: s.recv(65536), b"")).decode())
IN
$t $to 'cat >tssh-echo.py' <echo.py
mkfifo hold; exec 9<>hold; : >port
$t $to 'python3 tssh-echo.py & read x; kill $!' <&9 >port &
python3 echo.py >here.port & here=$!
trap 'kill $here 2>/dev/null || true' EXIT
i=0; while [ ! -s port ] || [ ! -s here.port ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die "no server: $(cat port)"; done
port=$(cat port)
is '-W, half-close' "$(printf hello | $t -W localhost:$port $to)" 'got hello'
# In the background when all listens: nothing has to be waited for.
out=$($t -fN -L 7401:localhost:$port -L "$WORK/t.sock:localhost:$port" -D 7402 -R "$FAR/tr.sock:localhost:$(cat here.port)" -o ExitOnForwardFailure=yes $to 2>&1) || die "-f: $out"
is '-fN with -L, -L of a unix socket, -D' "$(python3 ask.py 7401 one) $(python3 ask.py "$WORK/t.sock" two) $(python3 ask.py socks:7402:$port three)" 'got one got two got three'
is '-R of a unix socket' "$($t $to "python3 - $FAR/tr.sock four" <ask.py)" 'got four'
bg=$(pgrep -f -- "$WORK/t.sock:localhost:$port"); [ "$(echo "$bg" | wc -l)" = 1 ] || die "-f: [$bg]"
code=0; out=$($t -fN -L 7401:localhost:$port -o ExitOnForwardFailure=yes $to 2>&1) || code=$?
is '-f fails where a forward does' "$code $out" '255 tssh: error: port 7401 is taken by another program [limit]'
kill $bg; i=0; while kill -0 $bg 2>/dev/null; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die '-f: does not end'; done
[ "$(status python3 ask.py 7401 five)" != 0 ] || die '-f ended, and listens'; ok '-f ended: nothing listens'
$t -f $to 'sleep 1; echo late >by-f' || die '-f'
i=0; while [ ! -s "$FAR/by-f" ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die '-f with a command'; done; ok '-f with a command'
eval "$(ssh-agent -s)" >/dev/null; trap 'kill $here $SSH_AGENT_PID 2>/dev/null || true' EXIT
ssh-keygen -q -t ed25519 -N '' -f key -C of-the-agent; ssh-add -q key 2>/dev/null
is '-A' "$($t -A $to 'ssh-add -L' | awk '{print $3}') [$($t -a $to 'echo "$SSH_AUTH_SOCK"')]" 'of-the-agent []'
echo >&9
# Others with tssh in the place of ssh.
rsync -a -e "$t" tree/sub/ $to:by-rsync-tssh/; diff -r tree/sub "$FAR/by-rsync-tssh" || die 'rsync -e tssh'; ok 'rsync -e tssh'
printf '#!/bin/sh\nexec %s "$@"\n' "$t" >as-ssh; chmod 755 as-ssh
printf 'put %s by-sftp-tssh\nget by-sftp-tssh back-sftp\n' "$BIN" | sftp -q -b - -S "$PWD/as-ssh" $to >/dev/null || die 'sftp -S tssh'
same 'sftp -S tssh' "$BIN" back-sftp
scp -q -S "$PWD/as-ssh" "$BIN" $to:by-scp-tssh || die 'scp -S tssh'; scp -q -S "$PWD/as-ssh" $to:by-scp-tssh back-scp; same 'scp -S tssh' "$BIN" back-scp
$t $to git init -q --bare by-tssh.git; git init -q g; cp "$BIN" g/bin; git -C g add bin; git -C g -c user.name=t -c user.email=t@example.com commit -qm one
GIT_SSH_COMMAND="$t" git -C g push -q $to:by-tssh.git HEAD:main; GIT_SSH_COMMAND="$t" git clone -q -b main $to:by-tssh.git g2; same 'git over tssh' "$BIN" g2/bin
