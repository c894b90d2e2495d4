version "$(curl -V | sed -n '1s/.*\(libssh2[^ ]*\).*/curl, \1/p')"
c="curl -sSk -u $USER_:any"
for kind in sftp scp; do
	$c -T "$BIG" "$kind://$ADDR$FAR/by-curl-$kind"; same "$kind up" "$BIG" "$FAR/by-curl-$kind"
	$c -o "$WORK/back" "$kind://$ADDR$FAR/by-curl-$kind"; same "$kind down" "$BIG" "$WORK/back"
done
$c "sftp://$ADDR/~/" | grep -q by-curl-sftp || die 'sftp listing'; ok 'sftp listing'
$c -Q 'rename by-curl-sftp by-curl-renamed' "sftp://$ADDR/~/" >/dev/null || $c -Q "rename $FAR/by-curl-sftp $FAR/by-curl-renamed" "sftp://$ADDR/~/" >/dev/null
same 'sftp rename' "$BIG" "$FAR/by-curl-renamed"
