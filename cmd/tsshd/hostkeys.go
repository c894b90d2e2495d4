//go:build linux

package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	gossh "golang.org/x/crypto/ssh"
)

// hostKeyKinds are the keys a host has: old clients know only the last ones.
var hostKeyKinds = []struct {
	name string
	make func() (crypto.Signer, error)
}{
	{"ed25519", func() (crypto.Signer, error) { _, k, err := ed25519.GenerateKey(rand.Reader); return k, err }},
	{"ecdsa", func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
	{"rsa", func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) }},
}

// hostKeys are the host's SSH keys. They are made before the node joins, since its record
// names them, and written only after, so that a join that fails leaves nothing behind.
type hostKeys struct {
	signers []gossh.Signer
	unsaved map[string][]byte // file name to PEM
}

// loadHostKeys reads the keys of the state folder and makes those that are missing.
func loadHostKeys(dir string) (*hostKeys, error) {
	k := &hostKeys{unsaved: map[string][]byte{}}
	for _, kind := range hostKeyKinds {
		name := "ssh_host_" + kind.name + "_key"
		text, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case err == nil:
			s, err := gossh.ParsePrivateKey(text)
			if err != nil {
				return nil, fmt.Errorf("host key %s: %w", filepath.Join(dir, name), err)
			}
			k.signers = append(k.signers, s)
			continue
		case !errors.Is(err, os.ErrNotExist):
			return nil, fmt.Errorf("host key: %w", err)
		}
		key, err := kind.make()
		if err != nil {
			return nil, fmt.Errorf("make host key %s: %w", kind.name, err)
		}
		block, err := gossh.MarshalPrivateKey(key, "")
		if err != nil {
			return nil, fmt.Errorf("make host key %s: %w", kind.name, err)
		}
		s, err := gossh.NewSignerFromKey(key)
		if err != nil {
			return nil, fmt.Errorf("make host key %s: %w", kind.name, err)
		}
		k.signers = append(k.signers, s)
		k.unsaved[name] = pem.EncodeToMemory(block)
	}
	return k, nil
}

// save writes the keys that are new, each whole or not at all.
func (k *hostKeys) save(dir string) error {
	for name, text := range k.unsaved {
		tmp, err := os.CreateTemp(dir, "."+name+"-") // 0600
		if err != nil {
			return fmt.Errorf("host key: %w", err)
		}
		_, err = tmp.Write(text)
		if err == nil {
			err = tmp.Sync()
		}
		if e := tmp.Close(); err == nil {
			err = e
		}
		if err == nil {
			err = os.Rename(tmp.Name(), filepath.Join(dir, name))
		}
		if err != nil {
			os.Remove(tmp.Name())
			return fmt.Errorf("host key: %w", err)
		}
		delete(k.unsaved, name)
	}
	return nil
}

// lines are the public keys as they go into the node's record.
func (k *hostKeys) lines() []string {
	out := make([]string, len(k.signers))
	for i, s := range k.signers {
		out[i] = strings.TrimSpace(string(gossh.MarshalAuthorizedKey(s.PublicKey())))
	}
	return out
}
