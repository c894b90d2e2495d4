package launch

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"time"
)

// lastlog is an array of records by uid: time int32, line [32], host [256].
const lastlogSize = 4 + 32 + 256

// maxLastlogUID keeps the file from growing, in appearance, to terabytes under the uids of
// directory services.
const maxLastlogUID = 1 << 22

type lastlogRecord struct {
	Time int32
	Line [32]byte
	Host [256]byte
}

func (w *Logins) setLast(l Login, now time.Time) error {
	if w.Lastlog == "" || l.UID > maxLastlogUID {
		return nil
	}
	f, err := os.OpenFile(w.Lastlog, os.O_WRONLY, 0)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("launch: lastlog: %w", err)
	}
	defer f.Close()
	if _, err := f.WriteAt(lastlogBytes(l, now), int64(l.UID)*lastlogSize); err != nil {
		return fmt.Errorf("launch: lastlog: %w", err)
	}
	return nil
}

// Last says when and from where an account was last used on a terminal, in the words of
// other servers; "" when that is not known.
func (w *Logins) Last(uid uint32) string {
	if uid > maxLastlogUID {
		return ""
	}
	f, err := os.Open(w.Lastlog)
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, lastlogSize)
	if _, err := f.ReadAt(b, int64(uid)*lastlogSize); err != nil {
		return ""
	}
	var r lastlogRecord
	_ = binary.Read(bytes.NewReader(b), binary.LittleEndian, &r)
	if r.Time == 0 {
		return ""
	}
	host, _, _ := bytes.Cut(r.Host[:], []byte{0})
	return lastWords(time.Unix(int64(r.Time), 0), string(host))
}
