package sshd

import (
	"context"
	"time"

	"tssh/session/launch"
)

// loginOpened writes down that a terminal is in use, where the host keeps such records.
func (s *Server) loginOpened(l launch.Login, now time.Time) {
	if s.logins == nil {
		return
	}
	if err := s.logins.Open(l, now); err != nil {
		s.cfg.Log.Warn("login record", "err", err)
	}
	if s.cfg.Databases == nil {
		return
	}
	s.wg.Go(func() { // ends within the time of a program; others can lock a database
		if err := s.cfg.Databases.Opened(context.Background(), l, now); err != nil {
			s.cfg.Log.Warn("login record", "err", err)
		}
	})
}

// loginClosed writes down that it no longer is.
func (s *Server) loginClosed(l launch.Login, since time.Time) {
	if s.logins == nil {
		return
	}
	now := s.cfg.Now()
	if err := s.logins.Close(l, now); err != nil {
		s.cfg.Log.Warn("login record", "err", err)
	}
	if s.cfg.Databases == nil {
		return
	}
	s.wg.Go(func() { // as in loginOpened
		if err := s.cfg.Databases.Closed(context.Background(), l, since, now); err != nil {
			s.cfg.Log.Warn("login record", "err", err)
		}
	})
}

// lastLogin is when and from where the account was last used, in words.
func (s *Server) lastLogin(a launch.Account) string {
	if s.logins == nil {
		return ""
	}
	if s.cfg.Databases != nil {
		if words, kept := s.cfg.Databases.LastOf(context.Background(), a.Name); kept {
			return words
		}
	}
	return s.logins.Last(a.UID)
}
