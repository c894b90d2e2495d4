package replay

import (
	"errors"
	"net/http"

	"tssh/policy"
	"tssh/recording/store"
)

// whyJSON says what somebody may do with a recording and by what. Who may not is told so, and no more.
type whyJSON struct {
	ID  string   `json:"id"`
	May []mayOne `json:"may"`
}

type mayOne struct {
	What    string `json:"what"` // watch, end, delete
	Yes     bool   `json:"yes"`
	Say     string `json:"say,omitempty"`     // where not
	Because string `json:"because,omitempty"` // where so: a rule, a role, or that it is their own
}

// why answers for whoever asks, with the policy of now; a refusal to watch is audited as one.
func (v *Viewer) why(w http.ResponseWriter, r *http.Request, id policy.Identity) error {
	out := whyJSON{ID: r.PathValue("id"), May: []mayOne{}}
	sum, err := v.allowed(r, id)
	if no := (*refusal)(nil); errors.As(err, &no) && no.status == http.StatusForbidden {
		out.May = append(out.May, mayOne{What: "watch", Say: no.say})
		respond(w, http.StatusOK, out)
		return nil
	}
	if err != nil {
		return err
	}
	if err := v.note("recording.why", id, &sum, 0, nil); err != nil {
		return err
	}
	p := v.cfg.Policy()
	for _, ask := range []struct {
		what string
		ask  policy.Ask
	}{{"watch", policy.AskWatch}, {"end", policy.AskEnd}, {"delete", policy.AskDelete}} {
		d := mayOver(p, ask.ask, id, &sum, v.cfg.Clock())
		one := mayOne{What: ask.what, Yes: d.Verdict == policy.Accept}
		if one.Yes {
			one.Because = d.Reason
		} else {
			one.Say = d.Say
		}
		out.May = append(out.May, one)
	}
	respond(w, http.StatusOK, out)
	return nil
}

// because is why id may watch sum.
func (v *Viewer) because(id policy.Identity, sum *store.Summary) string {
	if d := v.may(v.cfg.Policy(), id, sum); d.Verdict == policy.Accept {
		return d.Reason
	}
	return ""
}
