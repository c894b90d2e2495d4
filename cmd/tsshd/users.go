//go:build linux

package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"tssh/policy"
	"tssh/session/launch"
)

// ownerFile is in the state folder: the uid of the account whose computer this is.
const ownerFile = "owner"

// ownerUID is the account whose computer this is: the one that --owner names, or the one
// that was known before, or the one that became root with sudo to start this; -1 when
// nobody is known. save writes it down, once there is a state folder.
func ownerUID(ctx context.Context, state, flag string) (uid int, save func() error, err error) {
	file := filepath.Join(state, ownerFile)
	save = func() error { return nil }
	write := func(uid int) func() error {
		return func() error { return os.WriteFile(file, []byte(strconv.Itoa(uid)+"\n"), 0o600) }
	}
	if os.Getuid() != 0 {
		return os.Getuid(), save, nil
	}
	if flag != "" {
		uid, err := accountUID(ctx, flag)
		return int(uid), write(int(uid)), err
	}
	b, err := os.ReadFile(file)
	if err == nil {
		if uid, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 31); err == nil {
			return int(uid), save, nil
		}
		return -1, save, fail("%s is not a uid", file).hint("say whose computer this is with --owner NAME")
	}
	if !errors.Is(err, os.ErrNotExist) {
		return -1, save, fail("the owner of this computer is not known").because(err)
	}
	if uid, err := strconv.ParseUint(os.Getenv("SUDO_UID"), 10, 31); err == nil && uid != 0 {
		return int(uid), write(int(uid)), nil
	}
	return -1, save, nil
}

func accountUID(ctx context.Context, name string) (uint32, error) {
	if _, err := policy.ParseLocalUser(name); err != nil {
		return 0, fail("%q cannot be the name of an account", name)
	}
	acc, err := launch.Accounts{}.Lookup(ctx, name)
	if err != nil {
		return 0, fail("account %s", name).because(err)
	}
	return acc.UID, nil
}

// localUsers reads --local-users: who on this computer may start connections into the
// mesh. By default that is everybody on a tagged machine, and on a person's the owner and
// root: others there have no part in the person's identity.
func localUsers(ctx context.Context, flag string, owner int, log *slog.Logger) (func(policy.Identity) []uint32, error) {
	owners := []uint32{0}
	if owner > 0 {
		owners = append(owners, uint32(owner))
	}
	switch flag {
	case "any":
		return nil, nil
	case "":
		var once sync.Once
		return func(self policy.Identity) []uint32 {
			if self.User == "" {
				return nil
			}
			if owner < 0 {
				once.Do(func() {
					log.Warn("only root may use the mesh on this computer; say whose it is with --owner NAME, or --local-users any")
				})
			}
			return owners
		}, nil
	case "owner":
		return func(policy.Identity) []uint32 { return owners }, nil
	}
	uids := []uint32{0}
	for _, name := range strings.Split(flag, ",") {
		uid, err := accountUID(ctx, strings.TrimSpace(name))
		if err != nil {
			return nil, err
		}
		uids = append(uids, uid)
	}
	return func(policy.Identity) []uint32 { return uids }, nil
}
