version "$(rsync --version | sed -n '1s/ protocol.*//p' | tr -s ' ')"
rsync -e "$SSH" "$BIG" "$USER_@$ADDR:by-rsync"; same up "$BIG" "$FAR/by-rsync"
rsync -e "$SSH" "$USER_@$ADDR:by-rsync" "$WORK/back"; same down "$BIG" "$WORK/back"
mkdir -p "$WORK/t/x"; i=0; while [ $i -lt 200 ]; do echo $i >"$WORK/t/x/$i"; i=$((i+1)); done; ln -s x "$WORK/t/l"; cp "$BIN" "$WORK/t/bin"
rsync -az --delete -e "$SSH" "$WORK/t/" "$USER_@$ADDR:rsync-t/"; diff -r --no-dereference "$WORK/t" "$FAR/rsync-t" || die 'trees, compressed'; ok 'trees, compressed'
echo more >>"$WORK/t/bin"
rsync -az --stats -e "$SSH" "$WORK/t/" "$USER_@$ADDR:rsync-t/" | grep -q 'regular files transferred: 1$' || die 'only the difference'; same 'only the difference' "$WORK/t/bin" "$FAR/rsync-t/bin"
# Broken off in the middle, and gone on with.
head -c $(($(stat -c %s "$BIG")/2)) "$BIG" >"$FAR/rsync-part"; chmod 666 "$FAR/rsync-part"
rsync --partial --inplace --bwlimit=200 -e "$SSH" "$BIG" "$USER_@$ADDR:rsync-cut" >/dev/null 2>&1 & cut=$!
i=0; until [ -s "$FAR/rsync-cut" ]; do sleep 0.1; i=$((i+1)); [ $i -lt 600 ] || die '--partial: nothing comes'; done
kill $cut; wait $cut && die '--partial: was not broken off' || true
i=0; while pgrep -f 'rsync --server.*rsync-cut' >/dev/null; do sleep 0.1; i=$((i+1)); [ $i -lt 200 ] || die '--partial: the other side goes on'; done
had=$(stat -c %s "$FAR/rsync-cut"); [ "$had" -gt 0 ] || die '--partial: nothing was kept'
sent=$(rsync --partial --append-verify --stats -e "$SSH" "$BIG" "$USER_@$ADDR:rsync-cut" | sed -n 's/^Literal data: \([0-9,]*\).*/\1/p' | tr -d ,)
[ "$sent" -le $(($(stat -c %s "$BIG")-had)) ] || die "--partial: $sent bytes sent again, $had were there"
same '--partial, gone on with' "$BIG" "$FAR/rsync-cut"
truncate -s 50M "$WORK/sparse"; printf x | dd of="$WORK/sparse" bs=1 seek=30000000 conv=notrunc 2>/dev/null
rsync -Sz -e "$SSH" "$WORK/sparse" "$USER_@$ADDR:rsync-sparse"; cmp "$WORK/sparse" "$FAR/rsync-sparse" || die 'sparse'
[ "$(du -k "$FAR/rsync-sparse" | cut -f1)" -lt 2000 ] || die "sparse: $(du -k "$FAR/rsync-sparse")"; ok 'sparse, -z'
