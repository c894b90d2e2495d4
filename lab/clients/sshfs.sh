version "$(sshfs --version 2>&1 | sed -n "s/.*\(SSHFS\) version/\1/p")"
[ -e /dev/fuse ] || { echo 'skip no /dev/fuse on this machine'; exit 0; }
mkdir "$WORK/mnt" "$FAR/fs"; chown "$USER_" "$FAR/fs"
sshfs -o ssh_command="$SSH",reconnect "$USER_@$ADDR:fs" "$WORK/mnt" || { echo 'skip FUSE cannot be mounted on this machine'; exit 0; }
trap 'fusermount3 -u "$WORK/mnt"' EXIT
cd "$WORK/mnt"
cp "$BIG" big; same write "$BIG" "$FAR/fs/big"; same read "$BIG" big
mkdir d; mv big d/moved; ln -s d/moved l; same 'links and renames' "$BIG" l
printf 'x' | dd of=d/moved bs=1 seek=100 conv=notrunc 2>/dev/null; is 'write in place' "$(dd if="$FAR/fs/d/moved" bs=1 skip=100 count=1 2>/dev/null)" x
truncate -s 10 d/moved; is truncate "$(stat -c %s "$FAR/fs/d/moved")" 10
chmod 640 d/moved; touch -d @1000000000 d/moved; is attributes "$(stat -c '%a %Y' "$FAR/fs/d/moved")" '640 1000000000'
df . >/dev/null || die statvfs; ok statvfs
sync d/moved || die fsync; ok fsync
mkdir many; i=0; while [ $i -lt 300 ]; do : >many/$i; i=$((i+1)); done; is listing "$(ls many | wc -l)" 300
rm -r many; is remove "$(ls)" "d
l"
cd /
