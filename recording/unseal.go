package recording

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	gossh "golang.org/x/crypto/ssh"
)

// Keys open sealed recordings. nil has none, and reads what is not sealed.
type Keys struct{ ids []age.Identity }

// ParseKeys reads identities: an age identity file (AGE-SECRET-KEY-..., one a line), or one
// OpenSSH ed25519 private key. ask is called for the passphrase of a key that has one; nil
// refuses those.
func ParseKeys(b []byte, ask func() ([]byte, error)) (*Keys, error) {
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("-----BEGIN")) {
		id, err := sshIdentity(b, ask)
		if err != nil {
			return nil, fmt.Errorf("recording: identity: %w", err)
		}
		return &Keys{[]age.Identity{id}}, nil
	}
	if bytes.HasPrefix(b, []byte("age-encryption.org/")) || bytes.Contains(b, []byte("BEGIN AGE ENCRYPTED FILE")) {
		return nil, errors.New("recording: identity: the file is itself encrypted; decrypt it first with age -d")
	}
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil { // its words may quote the key
		return nil, errors.New("recording: identity: this is neither a file of AGE-SECRET-KEY- lines nor an ssh-ed25519 private key")
	}
	return &Keys{ids}, nil
}

func sshIdentity(b []byte, ask func() ([]byte, error)) (age.Identity, error) {
	key, err := gossh.ParseRawPrivateKey(b)
	var locked *gossh.PassphraseMissingError
	if errors.As(err, &locked) {
		if ask == nil {
			return nil, errors.New("the ssh key has a passphrase, and there is nobody to ask")
		}
		word, err := ask()
		if err != nil {
			return nil, err
		}
		if key, err = gossh.ParseRawPrivateKeyWithPassphrase(b, word); err != nil {
			return nil, errors.New("this is not the passphrase of the ssh key")
		}
	} else if err != nil {
		return nil, errors.New("this is no private key")
	}
	if ed, ok := key.(*ed25519.PrivateKey); ok {
		return agessh.NewEd25519Identity(*ed)
	}
	return nil, errors.New("the ssh key is not of type ed25519")
}

// And gives the keys of both.
func (k *Keys) And(more *Keys) *Keys {
	if k == nil {
		return more
	}
	if more == nil {
		return k
	}
	return &Keys{append(append([]age.Identity(nil), k.ids...), more.ids...)}
}

// SealedError says that a recording is sealed to others.
type SealedError struct{ To []string }

func (e *SealedError) Error() string {
	var to []string
	for _, w := range e.To {
		if strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r > '~' }) || len(w) > 4096 {
			w = "?"
		}
		if len(w) > 80 {
			w = w[:80] + "..."
		}
		to = append(to, w)
	}
	return "recording: this recording is sealed, and opens with an identity of " + strings.Join(to, ", ")
}

// errSealBroken is ciphertext that is not what was written there.
var errSealBroken = errors.New("the seal is broken: this is not what was recorded here")

func parseKeyBlock(payload []byte) (keyBlock, error) {
	var kb keyBlock
	if json.Unmarshal(payload, &kb) != nil || len(kb.To) == 0 || len(kb.To) > MaxRecipients || len(kb.Key) == 0 {
		return keyBlock{}, errors.New("the key block cannot be read")
	}
	return kb, nil
}

// unwrap finds the key of an epoch.
func (k *Keys) unwrap(payload []byte) (key [keyBytes]byte, to []string, err error) {
	kb, err := parseKeyBlock(payload)
	if err != nil {
		return key, nil, err
	}
	if k == nil || len(k.ids) == 0 {
		return key, kb.To, &SealedError{kb.To}
	}
	r, err := age.Decrypt(bytes.NewReader(kb.Key), k.ids...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return key, kb.To, &SealedError{kb.To}
	}
	if err != nil {
		return key, kb.To, errors.New("the key block cannot be opened")
	}
	b, err := io.ReadAll(io.LimitReader(r, keyBytes+1))
	if err != nil || len(b) != keyBytes {
		return key, kb.To, errors.New("the key block cannot be opened")
	}
	return [keyBytes]byte(b), kb.To, nil
}

// epoch is a key block and what is known of its key.
type epoch struct {
	off  int64
	seq  uint64
	base [keyBytes]byte
	cur  sealKey
	err  error // for which there is no key
}

// opener opens the sealed frames of one recording.
type opener struct {
	keys   *Keys
	meta   [32]byte
	to     []string // of the last key block
	epochs map[int64]*epoch
	some   *bool // any opens; nil: not known
}

// maxEpochs bounds what an opener remembers; a recording has one for each start of the daemon
// and each change of recipients.
const maxEpochs = 256

func newOpener(keys *Keys, meta [32]byte) *opener {
	return &opener{keys: keys, meta: meta, epochs: map[int64]*epoch{}}
}

// add takes a key block.
func (o *opener) add(off int64, seq uint64, payload []byte) *epoch {
	if e := o.epochs[off]; e != nil {
		return e
	}
	if len(o.epochs) >= maxEpochs {
		clear(o.epochs)
	}
	e := &epoch{off: off, seq: seq}
	var to []string
	e.base, to, e.err = o.keys.unwrap(payload)
	if to != nil {
		o.to = to
	}
	e.cur = sealKey{e.base, seq}
	o.epochs[off] = e
	return e
}

// open gives the payload of the frame h, which stands at off, as it was before it was sealed.
// block reads a block of the file.
func (o *opener) open(h header, off int64, payload []byte, block func(off int64) (header, []byte, error)) ([]byte, error) {
	if len(payload) < sealExtra {
		return nil, errFrame
	}
	keyAt := payload[:sealPrefix]
	at := int64(binary.LittleEndian.Uint64(keyAt))
	if at <= 0 || at >= off {
		return nil, errFrame
	}
	e := o.epochs[at]
	if e == nil {
		kh, kp, err := block(at)
		if err != nil || kh.typ != blockKey {
			return nil, errors.New("its key block cannot be read")
		}
		e = o.add(at, kh.seq, kp)
	}
	if e.err != nil {
		return nil, e.err
	}
	// Every block takes its room in the file: no number may be further than that.
	if h.seq <= e.seq || h.seq-e.seq > uint64(off-at)/headerSize {
		return nil, errFrame
	}
	if h.seq < e.cur.seq {
		e.cur = sealKey{e.base, e.seq}
	}
	e.cur.moveTo(h.seq)
	a, err := e.cur.aead()
	if err != nil {
		return nil, err
	}
	out, err := a.Open(nil, nil, payload[sealPrefix:], sealedTo(o.meta, keyAt, h))
	if err != nil {
		return nil, errSealBroken
	}
	return out, nil
}

// Sealed says whether the recording is sealed, to whom last, and whether what is known of the
// keys opens it, or a part of it, where recipients changed.
func (f *Reader) Sealed() (sealed, open bool, to []string) {
	if !f.sealed {
		return false, true, nil
	}
	open = f.locked() == nil || f.opensSome()
	return true, open, f.opener.to
}

// opensSome says whether any epoch opens.
func (f *Reader) opensSome() bool {
	if f.opener.some == nil {
		some := false
		for _, off := range f.keyBlocks() {
			e := f.opener.epochs[off]
			if h, payload, err := f.block(off); e == nil && err == nil {
				e = f.opener.add(off, h.seq, payload)
			}
			if e != nil && e.err == nil {
				some = true
				break
			}
		}
		f.opener.some = &some
	}
	return *f.opener.some
}

// sealedGap stands for a frame that was sealed to others.
func (f FrameInfo) sealedGap(to *SealedError) Event {
	data, err := json.Marshal(Gap{Why: strings.TrimPrefix(to.Error(), "recording: ")})
	if err != nil || len(data) > MaxEventData {
		data = []byte(`{"why":"sealed to others"}`)
	}
	return Event{At: f.First, Channel: ChannelMonitor, Kind: KindGap, Data: data}
}

// locked is the error for which the first epoch cannot be opened, nil where it can.
func (f *Reader) locked() error {
	h, payload, err := f.block(f.first)
	if err != nil || h.typ != blockKey {
		return errors.New("recording: its key block cannot be read")
	}
	return f.opener.add(f.first, h.seq, payload).err
}

func (f *Reader) block(off int64) (header, []byte, error) { return readBlock(f.r, off, f.size) }

// keyBlock takes an epoch's key.
func (v *Verifier) keyBlock(h header, payload []byte) error {
	v.keyless = false
	if !v.sealed {
		return v.problem("block %d is a key in a recording that is not sealed", h.seq)
	}
	kb, err := parseKeyBlock(payload)
	if err != nil {
		return v.problem("block %d: %v", h.seq, err)
	}
	v.sealedTo = kb.To
	if !v.lenient {
		return nil
	}
	if v.opener == nil {
		v.opener = newOpener(v.keys, v.metaSum)
	}
	e := v.opener.add(v.off, h.seq, payload)
	var to *SealedError
	if e.err != nil && !errors.As(e.err, &to) {
		return v.problem("block %d: %v", h.seq, e.err)
	}
	return nil
}

// SealedTo says whether the recording is a sealed one, and whom its last key block names: nobody
// before the first. Whether the key in it is theirs only they can know.
func (v *Verifier) SealedTo() (sealed bool, to []string) { return v.sealed, v.sealedTo }

func (v *Verifier) outline(h header, payload []byte) error {
	events, err := outlineEvents(payload)
	if err != nil || !v.sealed {
		return v.problem("block %d (up to %s) cannot be read", h.seq, Clock(h.lastAt()))
	}
	for _, ev := range events {
		v.ended = v.ended || ev.Kind == KindEnd
	}
	return nil
}

// openFrame opens a sealed frame; nil where there is no key for it.
func (v *Verifier) openFrame(h header, payload []byte) ([]byte, error) {
	if v.opener == nil {
		v.unopen = true
		return nil, nil
	}
	out, err := v.opener.open(h, v.off, payload, func(int64) (header, []byte, error) { return header{}, nil, errFrame })
	var to *SealedError
	if errors.As(err, &to) {
		v.unopen = true
		return nil, nil
	}
	if err != nil {
		v.unopen = true
		return nil, v.problem("block %d (up to %s): %v", h.seq, Clock(h.lastAt()), err)
	}
	return out, nil
}

// Outline calls fn with what of the events of a sealed recording is in the clear: which
// channels were opened, as what, how they ended. It begins at the block at from (0: the first)
// and gives the place where it ended, to go on there when there is more.
func (f *Reader) Outline(from int64, fn func(Event) error) (next int64, err error) {
	at := max(from, f.first)
	if !f.sealed {
		return at, nil
	}
	for at < f.end {
		h, err := readHeader(f.r, at, f.size)
		if err == io.EOF || errors.Is(err, errHeader) {
			return at, nil
		}
		if err != nil {
			return at, fmt.Errorf("recording: outline: %w", err)
		}
		if h.typ == blockOutline {
			payload := make([]byte, h.stored)
			if _, err := f.r.ReadAt(payload, at+headerSize); err != nil {
				return at, fmt.Errorf("recording: outline: %w", err)
			}
			if crc32.Checksum(payload, castagnoli) != h.sum {
				return at, errors.New("recording: outline: the bytes do not sum up")
			}
			events, err := outlineEvents(payload)
			if err != nil {
				return at, fmt.Errorf("recording: outline: %w", err)
			}
			for _, ev := range events {
				if err := fn(ev); err != nil {
					return at, err
				}
			}
		}
		at += headerSize + int64(h.stored)
	}
	return at, nil
}
