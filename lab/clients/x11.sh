# X11 forwarding: an X server on the laptop, X programs of web. The rule for guest allows it.
version "$(ssh -V 2>&1 | cut -d, -f1), X11 forwarding"
cd "$WORK"
export XAUTHORITY=$WORK/xauthority
cookie=$(od -An -tx1 -N16 /dev/urandom | tr -d ' \n')
: >"$XAUTHORITY"
xauth -q add :0 . "$cookie" 2>/dev/null
: >display
Xvfb -displayfd 8 -screen 0 320x200x24 -nolisten tcp -auth "$XAUTHORITY" 8>display 2>xvfb.log & x=$!
trap 'kill $x 2>/dev/null' EXIT
i=0; while [ ! -s display ]; do sleep 0.1; i=$((i+1)); [ $i -lt 300 ] || die "no X server: $(cat xvfb.log)"; done
export DISPLAY=:$(cat display)
xauth -q add "$DISPLAY" . "$cookie"
[ "$(status xdpyinfo)" = 0 ] || die 'the X server does not answer here'
[ "$(env -u XAUTHORITY HOME=/nonexistent xdpyinfo >/dev/null 2>&1; echo $?)" != 0 ] || die 'the X server lets anybody in'
to=guest@$ADDR
out=$($SSH -X $to 'echo $DISPLAY; xdpyinfo' 2>&1) || die "-X: $out"
echo "$out" | grep -q '^localhost:1[0-9]*\.0$' && echo "$out" | grep -q 'dimensions: *320x200 ' || die "-X: $out"
ok '-X, xdpyinfo'
out=$($SSH -X $to 'xauth list "$DISPLAY"') || die "cookie: $out"
case $out in *MIT-MAGIC-COOKIE-1*) ;; *) die "cookie: $out" ;; esac
case $out in *$cookie*) die 'the cookie of the X server left the laptop' ;; esac
ok 'a cookie of its own'
# A window that stays, seen here; it goes with the session.
mkfifo hold; exec 9<>hold
$SSH -Y $to 'xmessage -title from-web hello & read x; kill $!' <&9 >/dev/null 2>xmessage.log & w=$!
i=0; while ! xwininfo -root -tree | grep -q '"from-web"'; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die "no window: $(cat xmessage.log)"; done
ok '-Y, a window'
# Who has no cookie is not let in by the forward.
[ "$($SSH -Y $to 'XAUTHORITY=/dev/null xdpyinfo >/dev/null 2>&1; echo $?')" != 0 ] || die 'X without the cookie'; ok 'refused without the cookie'
echo >&9; wait $w || true
i=0; while xwininfo -root -tree | grep -q '"from-web"'; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die 'the window stays'; done
is 'no DISPLAY without -X' "$($SSH -x $to 'echo "$DISPLAY"')" ''
out=$($SSH -X -o ExitOnForwardFailure=yes $USER_@$ADDR 'echo "[$DISPLAY]"' 2>/dev/null) || true
is 'none where the rule does not allow it' "${out:-[]}" '[]'
