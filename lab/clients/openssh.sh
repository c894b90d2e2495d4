# OpenSSH: ssh, scp in both its modes, sftp, a master connection.
version "$(ssh -V 2>&1 | cut -d, -f1)"
to=$USER_@$ADDR
is exec "$($SSH $to 'echo out; echo err >&2' 2>"$WORK/err")" out
is 'standard error apart' "$(cat "$WORK/err")" err
is 'exit status' "$(status $SSH $to 'exit 7')" 7
is 'killed by a signal' "$(status $SSH $to 'kill -TERM $$')" 255
is 'half-close' "$(printf 'b\na\n' | $SSH $to 'sort; echo done' | tr '\n' ' ')" 'a b done '
$SSH $to cat <"$BIN" >"$WORK/bin"; same 'binary safety' "$BIN" "$WORK/bin"
$SSH -T $to <<-'IN' >"$WORK/shell" 2>/dev/null
	echo "in a shell"
IN
grep -q 'in a shell' "$WORK/shell" || die shell; ok shell
out=$(pty "$SSH -tt $to 'stty size; tty; echo \$SSH_TTY'")
echo "$out" | grep -q '^33 111$' && [ "$(echo "$out" | grep -c /dev/pts/)" = 2 ] || die "pty: $out"
ok pty
is 'environment' "$(LC_TIME=C.UTF-8 $SSH -o SendEnv=LC_TIME $to 'echo $LC_TIME')" C.UTF-8
o="-o BatchMode=yes -o UserKnownHostsFile=$KNOWN -F none -q"
scp $o -p "$BIG" $to:by-scp; same 'scp up' "$BIG" "$FAR/by-scp"
scp $o $to:by-scp "$WORK/back"; same 'scp down' "$BIG" "$WORK/back"
mkdir -p "$WORK/tree/sub"; cp "$BIN" "$WORK/tree/sub/ä b"; : >"$WORK/tree/empty"
scp $o -r "$WORK/tree" $to:tree-sftp; diff -r "$WORK/tree" "$FAR/tree-sftp" || die 'scp -r'; ok 'scp -r'
scp $o -O "$BIG" $to:by-scp-O; same 'scp -O up' "$BIG" "$FAR/by-scp-O"
scp $o -O $to:by-scp-O "$WORK/back-O"; same 'scp -O down' "$BIG" "$WORK/back-O"
scp $o -O -r $to:tree-sftp "$WORK/tree-back"; diff -r "$WORK/tree" "$WORK/tree-back" || die 'scp -O -r'; ok 'scp -O -r'
sftp $o -b - $to >"$WORK/sftp.out" <<-IN
	put -p $BIG by-sftp
	get by-sftp $WORK/back-sftp
	mkdir d
	cd d
	put $BIN a
	ln -s a link
	ln a hard
	rename a b
	chmod 600 b
	ls -la
	df
	cp b copied
	rm hard
	-ls nothing-there
	put -R $WORK/tree
	get -R tree $WORK/tree-sftp
IN
same 'sftp up' "$BIG" "$FAR/by-sftp"; same 'sftp down' "$BIG" "$WORK/back-sftp"
is 'sftp operations' "$(cd "$FAR/d" && ls | tr '\n' ' ')$(stat -c %a "$FAR/d/b")" 'b copied link tree 600'
same 'sftp copy-data' "$BIN" "$FAR/d/copied"
diff -r "$WORK/tree" "$WORK/tree-sftp" || die 'sftp trees'; ok 'sftp trees'
ctl=$WORK/ctl
$SSH -o ControlPath="$ctl" -o ControlPersist=60 -MNf $to
n=20 i=0
while [ $i -lt $n ]; do $SSH -o ControlPath="$ctl" $to "sleep 2; echo $i" >"$WORK/mux.$i" & i=$((i+1)); done
wait
is '20 sessions on a ControlMaster' "$(cat "$WORK"/mux.* | sort -n | tail -1) $(cat "$WORK"/mux.* | wc -l)" '19 20'
$SSH -o ControlPath="$ctl" -O exit $to 2>/dev/null || die 'master ends'; ok 'master ends'
$SSH -o RekeyLimit=1M $to "cat >/dev/null; cat by-scp" <"$BIG" | cmp - "$BIG" || die 'rekeying'; ok 'rekeying'
