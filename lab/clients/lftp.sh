version "$(lftp --version | sed -n '1s/.*\(LFTP.*Version [0-9.]*\).*/\1/p' | tr -s ' |' ' ')"
mkdir -p "$WORK/t/x"; cp "$BIN" "$WORK/t/x/bin"; i=0; while [ $i -lt 30 ]; do echo $i >"$WORK/t/$i"; i=$((i+1)); done
export LFTP_HOME=$WORK/lftp
lftp -f /dev/stdin >"$WORK/out" <<-IN
	set net:max-retries 1
	set cmd:fail-exit yes
	set sftp:auto-confirm yes
	set sftp:connect-program "$SSH -a -x"
	open -u $USER_,any sftp://$ADDR
	put $BIG -o by-lftp
	get by-lftp -o $WORK/back
	mirror -R $WORK/t lftp-t
	mirror lftp-t $WORK/t-back
	cls -l lftp-t
IN
same up "$BIG" "$FAR/by-lftp"; same down "$BIG" "$WORK/back"
diff -r "$WORK/t" "$FAR/lftp-t" || die 'mirror up'; ok 'mirror up'; diff -r "$WORK/t" "$WORK/t-back" || die 'mirror down'; ok 'mirror down'
