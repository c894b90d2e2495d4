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
[ -z "$(find "$FAR" -name '*.tssh-*')" ] || die 'cp left something behind'
