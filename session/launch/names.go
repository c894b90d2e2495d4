package launch

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// NameOf asks the host's name service for the name of an id; database is "passwd" or
// "group". It needs no root.
func NameOf(ctx context.Context, database string, id uint32) (string, error) {
	getent := Accounts{}.program("getent")
	if getent == "" {
		return "", fmt.Errorf("launch: getent: %w", ErrLookup)
	}
	out, code, err := run(ctx, getent, database, "--", strconv.FormatUint(uint64(id), 10))
	if err != nil {
		return "", fmt.Errorf("launch: getent %s: %w: %w", database, ErrLookup, err)
	}
	f := strings.Split(string(out), ":")
	if code != 0 || len(f) < 3 || f[0] == "" || f[2] != strconv.FormatUint(uint64(id), 10) {
		return "", fmt.Errorf("launch: %s %d: %w", database, id, ErrNoAccount)
	}
	return f[0], nil
}
