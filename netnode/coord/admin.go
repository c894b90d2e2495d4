package coord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"time"

	"tssh/netnode/netmap"
	"tssh/recording/audit"
)

// Paths of the administrators' API, on the unix socket in the state folder.
const (
	AdminStatus     = "/v1/status"
	AdminUserList   = "/v1/user/list"
	AdminUserAdd    = "/v1/user/add"
	AdminUserRemove = "/v1/user/remove"
	AdminKeyList    = "/v1/key/list"
	AdminKeyCreate  = "/v1/key/create"
	AdminKeyRevoke  = "/v1/key/revoke"
	AdminNodeList   = "/v1/node/list"
	AdminNodeExpire = "/v1/node/expire"
	AdminNodeRemove = "/v1/node/remove"
	AdminNodeRename = "/v1/node/rename"
	AdminNodeExtend = "/v1/node/extend"
	AdminPolicyGet  = "/v1/policy/get"
	AdminPolicySet  = "/v1/policy/set"
	AdminPolicyTry  = "/v1/policy/check"
	AdminPolicyLog  = "/v1/policy/log"
	AdminPolicyAt   = "/v1/policy/at"
	AdminPolicyDiff = "/v1/policy/diff"
	AdminDirectory  = "/v1/policy/directory"
	AdminRelayList  = "/v1/relay/list"
	AdminRelayAdd   = "/v1/relay/add"
	AdminRelayDrop  = "/v1/relay/remove"
	AdminAudit      = "/v1/audit"
)

// Bodies of the administrators' calls.
type (
	UserRequest struct {
		Login string `json:"login"`
		Role  string `json:"role,omitempty"`
	}
	NameRequest struct {
		Name string `json:"name"`
	}
	PolicyRequest struct {
		Name string `json:"name"` // what problems are told under
		Text string `json:"text"`
		// IfMatch is the revision that the policy in force must have; 0 does not ask.
		IfMatch int64  `json:"if_match,omitempty"`
		Editor  Editor `json:"editor,omitzero"`
	}
	RevRequest struct {
		Rev int64 `json:"rev"`
	}
	// Extended answers an ExtendRequest.
	Extended struct {
		Name  string    `json:"name"`
		Until time.Time `json:"until"`
	}
	UserRemoved struct {
		Login string `json:"login"`
		Nodes int    `json:"nodes"`
	}
	// StatusInfo is the hub in a few numbers.
	StatusInfo struct {
		Mesh     string `json:"mesh"`
		MeshID   string `json:"mesh_id"`
		Host     string `json:"host"`
		Pin      string `json:"pin"`
		Epoch    string `json:"epoch"`
		Revision int64  `json:"revision"`
		Nodes    int    `json:"nodes"`
		Online   int    `json:"online"`
		Users    int    `json:"users"`
		Range4   string `json:"range4"`
		Range6   string `json:"range6"`
	}
)

type callerKey struct{}

// AdminServer is an HTTP server for the administrators' socket. Whoever connects is
// known by the kernel's word; only root and the owner of this process get answers.
func (s *Server) AdminServer() *http.Server {
	return AdminServer(s.Admin(), s.c.Log)
}

// AdminServer serves h as that method does; h asks Caller who it is.
func AdminServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		// The socket's peer is known only here; the handlers read it from the request.
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			uid, err := peerUID(c)
			if err != nil {
				log.Warn("administrator's connection", "err", err)
				return ctx
			}
			return context.WithValue(ctx, callerKey{}, uid)
		},
	}
}

// Admin answers administrators. It must be served by AdminServer, without which
// nobody is let in.
func (s *Server) Admin() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, fn func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { answer(w, http.StatusOK, fn()) })
	}
	get(AdminStatus, func() any { return s.Status() })
	get(AdminUserList, func() any { return s.Users() })
	get(AdminKeyList, func() any { return s.Keys() })
	get(AdminNodeList, func() any { return s.Nodes() })
	get(AdminPolicyGet, func() any { return s.GetPolicy() })
	post(s, mux, AdminUserAdd, func(ctx context.Context, who string, r UserRequest) (any, error) {
		return s.AddUser(ctx, who, r.Login, r.Role)
	})
	post(s, mux, AdminUserRemove, func(ctx context.Context, who string, r UserRequest) (any, error) {
		n, err := s.RemoveUser(ctx, who, r.Login)
		return UserRemoved{Login: r.Login, Nodes: n}, err
	})
	post(s, mux, AdminKeyCreate, func(ctx context.Context, who string, r KeyRequest) (any, error) {
		return s.CreateKey(ctx, who, r)
	})
	post(s, mux, AdminKeyRevoke, func(ctx context.Context, who string, r NameRequest) (any, error) {
		return r, s.RevokeKey(ctx, who, r.Name)
	})
	post(s, mux, AdminNodeExpire, func(ctx context.Context, who string, r NameRequest) (any, error) {
		return r, s.ExpireNode(ctx, who, r.Name)
	})
	post(s, mux, AdminNodeRename, func(ctx context.Context, who string, r RenameRequest) (any, error) {
		return r, s.RenameNode(ctx, who, r.Name, r.New)
	})
	post(s, mux, AdminNodeExtend, func(ctx context.Context, who string, r ExtendRequest) (any, error) {
		until, err := s.ExtendNode(ctx, who, r.Name, r.For)
		return Extended{Name: r.Name, Until: until}, err
	})
	post(s, mux, AdminNodeRemove, func(ctx context.Context, who string, r NameRequest) (any, error) {
		return r, s.RemoveNode(ctx, who, r.Name)
	})
	post(s, mux, AdminPolicySet, func(ctx context.Context, who string, r PolicyRequest) (any, error) {
		return s.changePolicy(ctx, who, r)
	})
	post(s, mux, AdminPolicyTry, func(_ context.Context, _ string, r PolicyRequest) (any, error) {
		return s.tryPolicy(r), nil
	})
	get(AdminRelayList, func() any { return s.Relays() })
	post(s, mux, AdminRelayAdd, func(ctx context.Context, who string, r netmap.Relay) (any, error) { return s.AddRelay(ctx, who, r) })
	post(s, mux, AdminRelayDrop, func(ctx context.Context, who string, r NameRequest) (any, error) {
		return r, s.RemoveRelay(ctx, who, r.Name)
	})
	get(AdminPolicyLog, func() any { return s.PolicyLog() })
	post(s, mux, AdminPolicyAt, func(ctx context.Context, _ string, r RevRequest) (any, error) { return s.PolicyAt(ctx, r.Rev) })
	post(s, mux, AdminPolicyDiff, func(_ context.Context, _ string, r PolicyRequest) (any, error) {
		return s.DiffPolicy(r.Name, []byte(r.Text))
	})
	post(s, mux, AdminDirectory, func(context.Context, string, struct{}) (any, error) { return s.Directory() })
	mux.HandleFunc("GET "+AdminAudit, s.handleAudit)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		uid, ok := r.Context().Value(callerKey{}).(uint32)
		if !ok || !administrates(uid) {
			answer(w, http.StatusForbidden, netmap.Problem{Code: "forbidden", Say: "only root and the user that tsshub runs as may do this"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// administrates: root, and the user that the hub runs as.
func administrates(uid uint32) bool { return uid == 0 || uid == uint32(os.Geteuid()) }

// post adds a call that changes something; who did it goes into the audit log.
func post[T any](s *Server, mux *http.ServeMux, path string, fn func(context.Context, string, T) (any, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in T
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 4*netmap.MaxPolicy))
		if err == nil {
			err = json.Unmarshal(b, &in)
		}
		if err != nil {
			answer(w, http.StatusBadRequest, netmap.Problem{Code: netmap.CodeBad, Say: "the request cannot be read"})
			return
		}
		uid, _ := r.Context().Value(callerKey{}).(uint32)
		out, err := fn(r.Context(), uidName(uid), in)
		if err != nil {
			s.fail(w, err)
			return
		}
		answer(w, http.StatusOK, out)
	})
}

// uidName is an administrator in the audit log.
func uidName(uid uint32) string {
	name := "uid " + strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
		name += " (" + u.Username + ")"
	}
	return name
}

// Status is the hub in a few numbers.
func (s *Server) Status() StatusInfo {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return StatusInfo{
		Mesh: s.st.mesh.Name, MeshID: s.st.mesh.Header.Mesh, Host: s.c.Host, Pin: s.c.Key.Public().String(), Epoch: s.st.epoch, Revision: s.st.rev,
		Nodes: len(s.st.nodes), Online: len(s.streams), Users: len(s.st.users), Range4: s.st.mesh.Range4.String(), Range6: s.st.mesh.Range6.String(),
	}
}

func (s *Server) handleAudit(w http.ResponseWriter, r *http.Request) {
	if s.c.ReadAudit == nil {
		answer(w, http.StatusNotFound, netmap.Problem{Code: CodeNotFound, Say: "this hub keeps no audit log"})
		return
	}
	WriteAudit(w, r, s.c.ReadAudit, s.c.Log)
}

// WriteAudit answers AdminAudit with what read gives, one JSON record a line. Its end is marked,
// so that one that broke off is not taken for the whole. The caller has asked Caller.
func WriteAudit(w http.ResponseWriter, r *http.Request, read func(audit.Filter, func(audit.Record) error) error, log *slog.Logger) {
	var f audit.Filter
	if v := r.URL.Query().Get("since"); v != "" {
		t, err := time.Parse(time.RFC3339, v)
		if err != nil {
			answer(w, http.StatusBadRequest, netmap.Problem{Code: netmap.CodeBad, Say: fmt.Sprintf("%q is not a time", v)})
			return
		}
		f.Since = t
	}
	f.Host = r.URL.Query().Get("host")
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Trailer", "Audit-End")
	w.WriteHeader(http.StatusOK)
	enc := json.NewEncoder(w)
	err := read(f, func(rec audit.Record) error { return enc.Encode(rec) })
	end := "ok"
	if err != nil {
		end = err.Error()
		var b *audit.Broken
		if !errors.As(err, &b) {
			log.Error("audit", "err", err)
		}
	}
	w.Header().Set("Audit-End", end)
}
