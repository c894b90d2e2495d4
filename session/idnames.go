package session

import (
	"context"
	"os/user"
	"strconv"
	"time"

	"tssh/session/launch"
)

// idNames remembers the names of ids for listings, of a bounded number: first those of the
// account files, then those the host's name service knows.
type idNames struct {
	users, groups map[uint32]string
	asked         int // questions to the name service, each a program
}

func newIDNames() idNames { return idNames{users: map[uint32]string{}, groups: map[uint32]string{}} }

// Bounds for one channel: names remembered, programs started for them, and their time.
const (
	maxIDNames = 1024
	maxIDAsked = 64
	idAskTime  = 2 * time.Second
)

func (n *idNames) user(id uint32) string {
	return n.name(n.users, id, "passwd", func(s string) (string, error) {
		u, err := user.LookupId(s)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func (n *idNames) group(id uint32) string {
	return n.name(n.groups, id, "group", func(s string) (string, error) {
		g, err := user.LookupGroupId(s)
		if err != nil {
			return "", err
		}
		return g.Name, nil
	})
}

// name is the number in words where there is no name.
func (n *idNames) name(known map[uint32]string, id uint32, database string, look func(string) (string, error)) string {
	if s, ok := known[id]; ok {
		return s
	}
	word := decimal(id)
	name, err := look(word)
	if err != nil && n.asked < maxIDAsked {
		n.asked++
		ctx, cancel := context.WithTimeout(context.Background(), idAskTime)
		name, err = launch.NameOf(ctx, database, id)
		cancel()
	}
	if err != nil {
		name = word
	}
	if len(known) < maxIDNames {
		known[id] = name
	}
	return name
}

func decimal(id uint32) string { return strconv.FormatUint(uint64(id), 10) }
