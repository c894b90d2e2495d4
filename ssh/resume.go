package ssh

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// What a broken copy with Resume leaves is called NAME.tssh-part-XXXXXXXX, where the end is
// of the source's size, time and path: one that has changed begins anew. How much of it is
// without gaps is not written down. Nothing is written more than maxGap beyond the first
// byte that is missing, so the next copy goes back by that much from its end.
const maxGap = 64 << 20

var errNotOurs = errors.New("this is somebody else's file")

func partialName(dst string, s Place, fi fs.FileInfo) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\x00%d\x00%s\x00%s", fi.Size(), fi.ModTime().Unix(), s.Host, s.Path))
	return dst + ".tssh-part-" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:5]))
}

// resumable: it pays, and both ends can be set to an offset.
func (t *transfer) resumable() bool {
	_, ok := t.in.(io.Seeker)
	return ok && t.size > maxGap
}

// goOn opens a partial copy and says how much of it is certain. Only a regular file of our
// own is gone on with: in a folder that is not ours alone, others can guess the name.
func (f *Files) goOn(p string) (io.WriteCloser, int64, error) {
	fi, err := f.lstat(p)
	if err != nil {
		return nil, 0, err
	}
	if !fi.Mode().IsRegular() || !f.mine(fi) {
		return nil, 0, errNotOurs
	}
	out, err := f.reopen(p)
	if err != nil {
		return nil, 0, err
	}
	if _, ok := out.(io.Seeker); !ok {
		out.Close()
		return nil, 0, errNotOurs
	}
	return out, max(0, fi.Size()-maxGap), nil
}
