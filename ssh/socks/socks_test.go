package socks

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// pipe gives what the client says and keeps what it gets.
type pipe struct {
	io.Reader
	bytes.Buffer
}

func (p *pipe) Read(b []byte) (int, error) { return p.Reader.Read(b) }

func TestRequest(t *testing.T) {
	hello := "\x05\x01\x00"
	for name, c := range map[string]struct {
		in, host string
		port     uint16
		got      string // what the client reads
		err      string
	}{
		"name":           {hello + "\x05\x01\x00\x03\x03web\x00\x50", "web", 80, "\x05\x00", ""},
		"IPv4":           {hello + "\x05\x01\x00\x01\x64\x40\x00\x07\x01\xbb", "100.64.0.7", 443, "\x05\x00", ""},
		"IPv6":           {hello + "\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x00\x16", "::1", 22, "\x05\x00", ""},
		"two methods":    {"\x05\x02\x02\x00\x05\x01\x00\x03\x01a\x00\x01", "a", 1, "\x05\x00", ""},
		"version 4":      {"\x04\x01\x00\x50\x64\x40\x00\x07\x00", "", 0, "", "only SOCKS 5"},
		"password only":  {"\x05\x01\x02", "", 0, "\x05\xff", "authenticate"},
		"no method":      {"\x05\x00", "", 0, "\x05\xff", "authenticate"},
		"BIND":           {hello + "\x05\x02\x00\x03\x01a\x00\x01", "", 0, "\x05\x00\x05\x07\x00\x01\x00\x00\x00\x00\x00\x00", "CONNECT"},
		"address type":   {hello + "\x05\x01\x00\x09", "", 0, "\x05\x00", "no address"},
		"second version": {hello + "\x04\x01\x00\x03\x01a\x00\x01", "", 0, "\x05\x00", "only SOCKS 5"},
		"cut":            {hello + "\x05\x01\x00\x03\x09web", "", 0, "\x05\x00", "unexpected EOF"},
		"nothing":        {"", "", 0, "", "EOF"},
	} {
		p := &pipe{Reader: strings.NewReader(c.in)}
		host, port, err := Request(p)
		if host != c.host || port != c.port || p.String() != c.got || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q %d %v, wrote %q", name, host, port, err, p.String())
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x03\x03web\x00\x50and more"))
	f.Add([]byte("\x05\x02\x02\x00\x05\x01\x00\x01\x64\x40\x00\x07\x01\xbb"))
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x16"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		p := &pipe{Reader: r}
		host, _, err := Request(p)
		if err == nil && (len(host) > 255 || in[0] != 5) || len(in)-r.Len() > 520 || p.Len() > 12 {
			t.Fatalf("%q: %q %v, read %d, wrote %d", in, host, err, len(in)-r.Len(), p.Len())
		}
	})
}
