package main

import (
	"context"
	"fmt"
)

// whyWatch is `tssh why --watch ID`: what you may do with a recording, and by which rule or role.
func (a *app) whyWatch(ctx context.Context, id string, asJSON bool) error {
	if !recordingID.MatchString(id) {
		return usage("%q is not the id of a recording", id).withHint("tssh sessions")
	}
	at, err := a.placeOf(ctx, id)
	if err != nil {
		return err
	}
	var y struct {
		ID  string `json:"id"`
		May []struct {
			What    string `json:"what"`
			Yes     bool   `json:"yes"`
			Say     string `json:"say,omitempty"`
			Because string `json:"because,omitempty"`
		} `json:"may"`
	}
	if err := at.json(ctx, "/api/recordings/"+id+"/why", &y); err != nil {
		return err
	}
	if asJSON {
		err = a.printJSON(y)
	} else {
		for _, m := range y.May {
			if m.Yes {
				fmt.Fprintf(a.out, "yes: you may %s it. because: %s\n", oneLine(m.What), oneLine(m.Because))
			} else {
				fmt.Fprintf(a.out, "no: %s\n", oneLine(m.Say))
			}
		}
	}
	if err == nil && (len(y.May) == 0 || !y.May[0].Yes) {
		return &mistake{status: statusFailed} // said above
	}
	return err
}
