version "$(rsync --version | sed -n '1s/ protocol.*//p' | tr -s ' ')"
rsync -e "$SSH" "$BIG" "$USER_@$ADDR:by-rsync"; same up "$BIG" "$FAR/by-rsync"
rsync -e "$SSH" "$USER_@$ADDR:by-rsync" "$WORK/back"; same down "$BIG" "$WORK/back"
mkdir -p "$WORK/t/x"; i=0; while [ $i -lt 200 ]; do echo $i >"$WORK/t/x/$i"; i=$((i+1)); done; ln -s x "$WORK/t/l"; cp "$BIN" "$WORK/t/bin"
rsync -az --delete -e "$SSH" "$WORK/t/" "$USER_@$ADDR:rsync-t/"; diff -r --no-dereference "$WORK/t" "$FAR/rsync-t" || die 'trees, compressed'; ok 'trees, compressed'
echo more >>"$WORK/t/bin"
rsync -az --stats -e "$SSH" "$WORK/t/" "$USER_@$ADDR:rsync-t/" | grep -q 'regular files transferred: 1$' || die 'only the difference'; same 'only the difference' "$WORK/t/bin" "$FAR/rsync-t/bin"
