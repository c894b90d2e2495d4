package recording

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
)

// Recipients are whom recordings are sealed to.
type Recipients struct {
	words []string
	age   []age.Recipient
}

// MaxRecipients bounds how many there may be, and so the block that has their keys.
const MaxRecipients = 32

// ParseRecipients reads recipients, one a line: age1... or an ssh-ed25519 public key. Empty
// lines and those that begin with # are passed over. None at all is an error.
func ParseRecipients(text string) (*Recipients, error) {
	r := &Recipients{}
	in := bufio.NewScanner(strings.NewReader(text))
	for n := 1; in.Scan(); n++ {
		line := strings.TrimSpace(in.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if len(r.age) == MaxRecipients {
			return nil, fmt.Errorf("recording: recipients: there are more than %d", MaxRecipients)
		}
		one, word, err := parseRecipient(line)
		if err != nil {
			return nil, fmt.Errorf("recording: recipients: line %d: %w", n, err)
		}
		if slices.Contains(r.words, word) {
			continue
		}
		r.age, r.words = append(r.age, one), append(r.words, word)
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("recording: recipients: %w", err)
	}
	if len(r.age) == 0 {
		return nil, errors.New("recording: recipients: there is none")
	}
	// Some kinds do not go together, and that is to be said now.
	if _, err := r.wrap(make([]byte, keyBytes)); err != nil {
		return nil, fmt.Errorf("recording: recipients: %w", err)
	}
	return r, nil
}

// parseRecipient gives a recipient and its word, which has no comment.
func parseRecipient(line string) (age.Recipient, string, error) {
	fields := strings.Fields(line)
	switch word := fields[0]; {
	case word == "ssh-ed25519" && len(fields) > 1:
		key := word + " " + fields[1]
		one, err := agessh.ParseRecipient(key)
		return one, key, err
	case strings.HasPrefix(word, "AGE-SECRET-KEY-"):
		return nil, "", errors.New("this is an identity, which must not be here: a recipient begins with age1")
	case strings.HasPrefix(word, "age1"):
		some, err := age.ParseRecipients(strings.NewReader(word))
		if err != nil {
			return nil, "", errors.New("this is no age recipient")
		}
		return some[0], word, nil
	}
	return nil, "", errors.New("a recipient is age1... or an ssh-ed25519 public key")
}

// Words are the recipients as text, without comments.
func (r *Recipients) Words() []string { return slices.Clone(r.words) }

func (r *Recipients) same(words []string) bool { return slices.Equal(r.words, words) }

// wrap encrypts a key to all of them.
func (r *Recipients) wrap(key []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r.age...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(key); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

const (
	keyBytes = 32
	// sealPrefix is before the nonce in a sealed payload: where its key block is.
	sealPrefix = 8
	sealExtra  = sealPrefix + 12 + 16
)

// keyBlock is the payload of a block that begins an epoch.
type keyBlock struct {
	To  []string `json:"to"`
	Key []byte   `json:"key"` // an age file of keyBytes
}

// sealKey is the key of one block of an epoch. It moves forward, one step a block.
type sealKey struct {
	key [keyBytes]byte
	seq uint64 // of the block that it is for
}

func (k *sealKey) moveTo(seq uint64) {
	for ; k.seq < seq; k.seq++ {
		k.key = sha256.Sum256(append([]byte("tssh recording seal ratchet\x00"), k.key[:]...))
	}
}

func (k *sealKey) aead() (cipher.AEAD, error) {
	sum := sha256.Sum256(append([]byte("tssh recording seal block\x00"), k.key[:]...))
	c, err := aes.NewCipher(sum[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(c)
}

// sealedTo binds a payload to its recording, its key block and its place: the header but for
// what the ciphertext itself decides.
func sealedTo(meta [32]byte, keyAt []byte, h header) []byte {
	h.stored, h.sum = 0, 0
	head := h.encode()
	b := append([]byte("tssh recording seal\x00"), meta[:]...)
	b = append(b, keyAt...)
	return append(b, head[:signedSize]...)
}

// sealer seals the frames of one recording. Owned by its writer.
type sealer struct {
	meta  [32]byte // SHA-256 of the meta payload
	to    []string
	keyAt [sealPrefix]byte // offset of the key block in force
	key   sealKey
}

// newEpoch puts a key block into the file and seals with its key from there on. The key is
// nowhere but in this process.
func (w *writer) newEpoch(meta [32]byte, r *Recipients) error {
	s := &sealer{meta: meta, to: r.words}
	rand.Read(s.key.key[:]) // never fails
	s.key.seq = w.seq
	binary.LittleEndian.PutUint64(s.keyAt[:], uint64(w.off))
	wrapped, err := r.wrap(s.key.key[:])
	if err != nil {
		return err
	}
	payload, err := json.Marshal(keyBlock{To: r.words, Key: wrapped})
	if err != nil {
		return err
	}
	if len(payload) > maxMeta {
		return fmt.Errorf("the keys of %d recipients are too long", len(r.words))
	}
	if err := w.put(header{typ: blockKey}, payload); err != nil {
		return err
	}
	if w.seal != nil {
		clear(w.seal.key.key[:])
	}
	w.seal = s
	return nil
}

// seal makes a sealed payload for the block of h, which is complete but for the payload.
func (s *sealer) seal(h header, payload []byte) ([]byte, error) {
	s.key.moveTo(h.seq)
	a, err := s.key.aead()
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, len(payload)+sealExtra), s.keyAt[:]...)
	return a.Seal(out, nil, payload, sealedTo(s.meta, s.keyAt[:], h)), nil
}

// maxOutline bounds an outline block; what is more of one frame is only in the frame.
const maxOutline = 60 << 10

// outline gives what of an event is not sealed; nil for nothing. It is what a list needs.
func outline(ev Event) []byte {
	var v any
	switch ev.Kind {
	case KindOpen:
		var o Open
		if json.Unmarshal(ev.Data, &o) != nil {
			return nil
		}
		v = Open{Type: shortWord(o.Type), PTY: o.PTY, Cols: o.Cols, Rows: o.Rows}
	case KindExit:
		var x Exit
		if json.Unmarshal(ev.Data, &x) != nil {
			return nil
		}
		v = Exit{Status: x.Status, Signal: shortWord(x.Signal), Core: x.Core}
	case KindEnd:
		var e End
		if json.Unmarshal(ev.Data, &e) != nil {
			return nil
		}
		v = End{Cause: shortWord(e.Cause)}
	case KindClose:
		return []byte{}
	default:
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return b
}

// shortWord lets nothing longer than a word into the clear.
func shortWord(s string) string {
	if len(s) > 32 || strings.ContainsAny(s, " \t\n") {
		return "?"
	}
	return s
}

// outlineEvents takes an outline block's payload apart.
func outlineEvents(b []byte) ([]Event, error) {
	r := frameReader{b}
	var out []Event
	var at uint64
	for len(r.b) > 0 {
		dt, err := r.uvarint(uint64(maxAt / time.Microsecond))
		if err != nil {
			return nil, err
		}
		ch, err := r.uvarint(0xffffffff)
		if err != nil {
			return nil, err
		}
		if len(r.b) == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		k := Kind(r.b[0])
		r.b = r.b[1:]
		data, err := r.bytes(maxOutline)
		if err != nil {
			return nil, err
		}
		if at += dt; at > uint64(maxAt/time.Microsecond) {
			return nil, errFrame
		}
		if k != KindOpen && k != KindExit && k != KindClose && k != KindEnd {
			return nil, errFrame
		}
		out = append(out, Event{At: time.Duration(at) * time.Microsecond, Channel: uint32(ch), Kind: k, Data: data})
	}
	return out, nil
}
