package coord

import (
	"context"
	"fmt"
	"time"

	"tssh/recording/audit"
)

// BackupInfo says what a copy of the database is of.
type BackupInfo struct {
	Mesh     string    `json:"mesh"`
	MeshID   string    `json:"mesh_id"`
	Epoch    string    `json:"epoch"`
	Revision int64     `json:"revision"`
	Pin      string    `json:"pin"`
	Time     time.Time `json:"time"`
}

// Backup writes a consistent copy of the database to file, which must not be there yet.
// Changes wait meanwhile. The hub's key is not in the database.
func (s *Server) Backup(ctx context.Context, who, file string) (BackupInfo, error) {
	var info BackupInfo
	err := s.change(ctx, func(c *change) error {
		return c.audit(audit.Entry{Kind: "hub.backup", Who: who})
	})
	if err != nil {
		return info, err
	}
	s.drainAudit(ctx)
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.failure != nil {
		return info, errFailed
	}
	if _, err := s.c.DB.ExecContext(ctx, `VACUUM INTO ?`, file); err != nil {
		return info, fmt.Errorf("coord: backup: %w", err)
	}
	st := s.Status()
	return BackupInfo{Mesh: st.Mesh, MeshID: st.MeshID, Epoch: st.Epoch, Revision: st.Revision, Pin: st.Pin, Time: s.c.Clock().UTC()}, nil
}

// Caller names the administrator that a request on AdminServer's socket comes from; false
// for anybody else.
func Caller(ctx context.Context) (string, bool) {
	uid, ok := ctx.Value(callerKey{}).(uint32)
	if !ok || !administrates(uid) {
		return "", false
	}
	return uidName(uid), true
}
