package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"tssh/netnode/coord"
	"tssh/policy"
)

func (c *cli) policyGet() error {
	var p coord.PolicyInfo
	if err := c.get(coord.AdminPolicyGet, &p); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(p)
	}
	for _, w := range p.Warnings {
		fmt.Fprintln(c.err, printable(w))
	}
	_, err := io.WriteString(c.out, p.Text)
	return err
}

// policyFile reads what is to be the policy; - is standard input.
func (c *cli) policyFile(name string) (coord.PolicyRequest, error) {
	var b []byte
	var err error
	if name == "-" {
		name = "stdin"
		b, err = io.ReadAll(io.LimitReader(c.in, 1<<20))
	} else {
		b, err = os.ReadFile(name)
	}
	if err != nil {
		return coord.PolicyRequest{}, errFile("the policy", name, err)
	}
	return coord.PolicyRequest{Name: name, Text: string(b), Editor: editor()}, nil
}

func (c *cli) policyTry(path, name string, ifMatch int64) (coord.CheckResult, error) {
	req, err := c.policyFile(name)
	if err != nil {
		return coord.CheckResult{}, err
	}
	req.IfMatch = ifMatch
	return c.policyPut(path, req)
}

func (c *cli) policyPut(path string, req coord.PolicyRequest) (coord.CheckResult, error) {
	var r coord.CheckResult
	if err := c.post(path, req, &r); err != nil {
		return r, err
	}
	if c.json {
		if err := c.printJSON(r); err != nil {
			return r, err
		}
	}
	for _, w := range r.Warnings {
		fmt.Fprintln(c.err, printable(w))
	}
	if !r.OK {
		return r, problems(r.Problems)
	}
	return r, nil
}

func (c *cli) policySet(name string, ifMatch int64) error {
	r, err := c.policyTry(coord.AdminPolicySet, name, ifMatch)
	return c.policyDone(r, err)
}

func (c *cli) policyDone(r coord.CheckResult, err error) error {
	if err != nil || c.json {
		return err
	}
	_, err = fmt.Fprintf(c.out, "the policy is in force, revision %d\n", r.Rev)
	return err
}

func (c *cli) policyCheck(name string) error {
	_, err := c.policyTry(coord.AdminPolicyTry, name, 0)
	return err
}

func (c *cli) policyLog() error {
	var log []coord.PolicyVersion
	if err := c.get(coord.AdminPolicyLog, &log); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(log)
	}
	var rows [][]string
	for _, v := range log {
		when := ""
		if !v.Time.IsZero() {
			when = v.Time.Local().Format(time.DateTime)
		}
		rows = append(rows, []string{strconv.FormatInt(v.Rev, 10), when, v.Who, fmt.Sprint(v.Bytes), v.Name})
	}
	return c.table("REVISION WHEN WHO BYTES FROM", rows)
}

// policyAt fetches a former policy by its revision.
func (c *cli) policyAt(rev string) (v coord.PolicyVersion, err error) {
	n, err := strconv.ParseInt(rev, 10, 64)
	if err != nil || n <= 0 {
		return v, errRevision(rev)
	}
	return v, c.post(coord.AdminPolicyAt, coord.RevRequest{Rev: n}, &v)
}

func (c *cli) policyShow(rev string) error {
	v, err := c.policyAt(rev)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(v)
	}
	_, err = io.WriteString(c.out, v.Text)
	return err
}

// policyRevert puts a former policy in force again. It is checked like any other: who it
// names may be gone.
func (c *cli) policyRevert(rev string) error {
	v, err := c.policyAt(rev)
	if err != nil {
		return err
	}
	r, err := c.policyPut(coord.AdminPolicySet, coord.PolicyRequest{Name: "revision-" + rev, Text: v.Text, Editor: editor()})
	return c.policyDone(r, err)
}

func (c *cli) policyDiff(name string) error {
	req, err := c.policyFile(name)
	if err != nil {
		return err
	}
	var changes []policy.Change
	if err := c.post(coord.AdminPolicyDiff, req, &changes); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(changes)
	}
	if len(changes) == 0 {
		fmt.Fprintln(c.out, "nobody gains or loses anything")
	}
	for _, ch := range changes {
		fmt.Fprintln(c.out, printable(ch.String()))
	}
	return nil
}

func (c *cli) policyDirectory() error {
	var d policy.Directory
	if err := c.post(coord.AdminDirectory, struct{}{}, &d); err != nil {
		return err
	}
	return c.printJSON(&d)
}
