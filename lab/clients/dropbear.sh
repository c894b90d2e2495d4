version "$(dbclient -V 2>&1)"
db="dbclient -y -y -T -l $USER_"
is exec "$($db $ADDR 'echo out; echo err >&2' 2>/dev/null)" out
is 'exit status' "$(status $db $ADDR 'exit 7')" 7
is 'half-close' "$(printf 'b\na\n' | $db $ADDR 'sort; echo done' 2>/dev/null | tr '\n' ' ')" 'a b done '
$db $ADDR cat <"$BIN" >"$WORK/bin" 2>/dev/null; same 'binary safety' "$BIN" "$WORK/bin"
out=$(pty "dbclient -y -y -t -l $USER_ $ADDR 'stty size; tty'"); echo "$out" | grep -q '^33 111$' || die "pty: $out"; ok pty
$db $ADDR 'cat >by-dbclient' <"$BIG" 2>/dev/null; same up "$BIG" "$FAR/by-dbclient"
$db $ADDR 'cat by-dbclient' >"$WORK/back" 2>/dev/null; same down "$BIG" "$WORK/back"
