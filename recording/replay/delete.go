package replay

import (
	"errors"
	"net/http"

	"tssh/policy"
	"tssh/recording/audit"
	"tssh/recording/store"
)

// remove is POST /api/recordings/ID/delete with {"reason":WORDS}: deletes the recording for good,
// where the rule of its session names who asks. The store has it audited before it does, and
// leaves a tombstone with the reason. A refusal of the policy is audited here.
func (v *Viewer) remove(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	reason, err := v.asked(w, r, id)
	if err != nil {
		return err
	}
	reason, ok := cleanReason(reason)
	if !ok {
		return &refusal{http.StatusBadRequest, "say why, in one line of at most 300 bytes: it stays in the tombstone", ""}
	}
	sum, err := v.cfg.Store.Lookup(r.PathValue("id"))
	if err != nil {
		return &refusal{http.StatusNotFound, "there is no recording with this id", ""}
	}
	if d := mayOver(v.cfg.Policy(), policy.AskDelete, id, &sum, v.cfg.Clock()); d.Verdict != policy.Accept {
		if err := v.cfg.Audit(audit.Entry{Time: v.cfg.Clock(), Kind: "recording.delete", Who: id.Who(), Node: id.Name, Host: sum.Meta.Host, LocalUser: sum.Meta.LocalUser,
			Session: sum.Meta.ID, Verdict: d.Verdict.String(), Text: reason, Extra: map[string]string{"person": person(&sum), "reason": d.Reason}}); err != nil {
			return err
		}
		return &refusal{http.StatusForbidden, d.Say, d.Reason}
	}
	_, err = v.cfg.Store.Delete(sum.Meta.ID, id.Who(), reason)
	switch {
	case errors.Is(err, store.ErrHeld):
		return &refusal{http.StatusConflict, "this recording is on hold, so it cannot be deleted", ""}
	case errors.Is(err, store.ErrLive):
		return &refusal{http.StatusConflict, "this session still runs, so its recording cannot be deleted", ""}
	case errors.Is(err, store.ErrNotFound):
		return &refusal{http.StatusNotFound, "there is no recording with this id", ""}
	case err != nil:
		return err
	}
	respond(w, http.StatusOK, map[string]bool{"deleted": true})
	return nil
}

// mayDelete says whether the page offers to.
func (v *Viewer) mayDelete(id policy.Identity, sum *store.Summary) bool {
	return !sum.Live && v.cfg.Store.Held(sum.Meta.ID) == nil && mayOver(v.cfg.Policy(), policy.AskDelete, id, sum, v.cfg.Clock()).Verdict == policy.Accept
}
