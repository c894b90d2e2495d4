# PuTTY's plink, pscp and psftp.
version "plink $(plink -V | sed -n '1s/plink: Release //p')"
o="-batch -l $USER_"
for k in $(ssh-keygen -lf "$KNOWN" | awk '{print $2}'); do o="$o -hostkey $k"; done
is exec "$(plink $o $ADDR 'echo out; echo err >&2' 2>/dev/null)" out
is 'exit status' "$(status plink $o $ADDR 'exit 7')" 7
is 'half-close' "$(printf 'b\na\n' | plink $o $ADDR 'sort; echo done' | tr '\n' ' ')" 'a b done '
plink $o $ADDR cat <"$BIN" >"$WORK/bin"; same 'binary safety' "$BIN" "$WORK/bin"
out=$(pty "plink $o -t $ADDR 'stty size; tty'"); echo "$out" | grep -q /dev/pts/ || die "pty: $out"; ok pty
pscp $o -q -sftp "$BIG" $ADDR:by-pscp; same 'pscp (sftp) up' "$BIG" "$FAR/by-pscp"
pscp $o -q -sftp $ADDR:by-pscp "$WORK/back"; same 'pscp (sftp) down' "$BIG" "$WORK/back"
pscp $o -q -scp "$BIG" $ADDR:by-pscp1; same 'pscp (scp) up' "$BIG" "$FAR/by-pscp1"
pscp $o -q -scp $ADDR:by-pscp1 "$WORK/back1"; same 'pscp (scp) down' "$BIG" "$WORK/back1"
printf 'put %s by-psftp\nget by-psftp %s\nmkdir psftp-d\nls\nmv by-psftp psftp-d/x\nbye\n' "$BIG" "$WORK/back2" >"$WORK/batch"
psftp $o -b "$WORK/batch" $ADDR >/dev/null; same psftp "$BIG" "$WORK/back2"; same 'psftp mv' "$BIG" "$FAR/psftp-d/x"
$SSH $USER_@$ADDR 'cat >nc.py' <<'IN'
import socket
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(); print(l.getsockname()[1], flush=True)
c, _ = l.accept(); f = c.makefile("rwb"); f.write(b"got " + f.read()); f.flush()
IN
$SSH $USER_@$ADDR 'exec python3 nc.py' >"$WORK/port" & i=0; while [ ! -s "$WORK/port" ]; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die 'no server'; done
is 'plink -nc, half-close' "$(printf hello | plink $o -nc 127.0.0.1:$(cat "$WORK/port") $ADDR)" 'got hello'
