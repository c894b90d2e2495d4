# tssh itself.
version "$(tssh version | head -1)"
t="tssh --socket $SOCKET"
to=$USER_@web
is exec "$($t $to 'echo out; echo err >&2' 2>/dev/null)" out
is 'exit status' "$(status $t $to 'exit 7')" 7
is 'killed by a signal' "$(status $t $to 'kill -TERM $$')" 143
is 'half-close' "$(printf 'b\na\n' | $t $to 'sort; echo done' | tr '\n' ' ')" 'a b done '
$t $to cat <"$BIN" >"$WORK/bin"; same 'binary safety' "$BIN" "$WORK/bin"
out=$(pty "$t -t $to 'stty size; tty'"); echo "$out" | grep -q '^33 111$' || die "pty: $out"; ok pty
$t cp "$BIG" $to:by-tssh; same 'cp up' "$BIG" "$FAR/by-tssh"
$t cp $to:by-tssh "$WORK/back"; same 'cp down' "$BIG" "$WORK/back"
