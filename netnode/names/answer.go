package names

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	ttl         = 10   // seconds; the maker of the answer is on the same host
	ttlNegative = 5    // of "no such name"
	udpSize     = 1232 // what we say we take, EDNS0
	maxQuery    = 4096 // bytes of a query
)

// answer makes the reply to one query, nil when none is due: what is no query, or cannot be
// read far enough to be answered. Answers hold the few addresses of one host and fit into
// 512 bytes, so none is ever cut short.
func (t *Table) answer(query []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil || h.Response || len(query) > maxQuery {
		return nil
	}
	r := reply{t: t, head: dnsmessage.Header{ID: h.ID, Response: true, OpCode: h.OpCode, RecursionDesired: h.RecursionDesired}}
	if h.OpCode != 0 {
		r.head.RCode = dnsmessage.RCodeNotImplemented
		return r.pack()
	}
	q, err := p.Question()
	if err == nil {
		_, extra := p.Question()
		if extra != dnsmessage.ErrSectionDone {
			err = dnsmessage.ErrSectionDone
		}
	}
	if err != nil {
		r.head.RCode = dnsmessage.RCodeFormatError
		return r.pack()
	}
	r.question = &q
	version, err := r.options(&p)
	switch {
	case err != nil:
		r.head.RCode = dnsmessage.RCodeFormatError
	case version != 0:
		r.badVersion = true
	default:
		r.resolve()
	}
	return r.pack()
}

// reply is an answer in the making.
type reply struct {
	t          *Table
	head       dnsmessage.Header
	question   *dnsmessage.Question
	edns       bool
	badVersion bool
	addrs      []netip.Addr
	ptr        string
	zone       string // of the SOA; empty: none
	apex       bool   // the zone itself was asked for its SOA or NS
}

// options looks for the OPT record, RFC 6891; everything else that came along is read over.
func (r *reply) options(p *dnsmessage.Parser) (version byte, err error) {
	if err := p.SkipAllAnswers(); err != nil {
		return 0, err
	}
	if err := p.SkipAllAuthorities(); err != nil {
		return 0, err
	}
	for {
		h, err := p.AdditionalHeader()
		if err == dnsmessage.ErrSectionDone {
			return version, nil
		}
		if err != nil {
			return 0, err
		}
		if h.Type == dnsmessage.TypeOPT {
			if r.edns || h.Name.String() != "." {
				return 0, dnsmessage.ErrSectionDone // two of them, or one that belongs to a name
			}
			r.edns = true
			version = byte(h.TTL >> 16)
		}
		if err := p.SkipAdditional(); err != nil {
			return 0, err
		}
	}
}

func (r *reply) resolve() {
	name := strings.TrimSuffix(strings.ToLower(r.question.Name.String()), ".")
	domain := r.t.Domain()
	if domain == "" || r.question.Class != dnsmessage.ClassINET {
		r.head.RCode = dnsmessage.RCodeRefused
		return
	}
	host, under := strings.CutSuffix(name, "."+domain)
	switch {
	case name == domain:
		r.zone, r.apex = domain, true
	case under:
		r.zone = domain
		addrs, ok := r.t.byName[host]
		if !ok {
			r.head.RCode = dnsmessage.RCodeNameError
			break
		}
		for _, a := range addrs {
			want := dnsmessage.TypeA
			if a.Is6() {
				want = dnsmessage.TypeAAAA
			}
			if r.question.Type == want || r.question.Type == dnsmessage.TypeALL {
				r.addrs = append(r.addrs, a)
			}
		}
	default:
		p, ok := fromArpa(name)
		if ok {
			r.zone, ok = r.t.reverseZone(p)
		}
		if !ok {
			r.head.RCode = dnsmessage.RCodeRefused
			return
		}
		r.apex = name == r.zone
		if p.IsSingleIP() {
			full := r.t.Reverse(p.Addr())
			if full == "" {
				r.head.RCode = dnsmessage.RCodeNameError
			} else if r.question.Type == dnsmessage.TypePTR || r.question.Type == dnsmessage.TypeALL {
				r.ptr = full + "."
			}
		}
	}
	r.head.Authoritative = true
}

// pack writes the message. A name that cannot be written ends in no answer.
func (r *reply) pack() []byte {
	b := dnsmessage.NewBuilder(make([]byte, 0, 512), r.head)
	b.EnableCompression()
	fail := func(errs ...error) bool {
		for _, err := range errs {
			if err != nil {
				return true
			}
		}
		return false
	}
	if fail(b.StartQuestions()) || r.question != nil && fail(b.Question(*r.question)) || fail(b.StartAnswers()) {
		return nil
	}
	bad := false
	head := func(ttl uint32) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: r.question.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	}
	for _, a := range r.addrs {
		if a.Is4() {
			bad = bad || fail(b.AResource(head(ttl), dnsmessage.AResource{A: a.As4()}))
		} else {
			bad = bad || fail(b.AAAAResource(head(ttl), dnsmessage.AAAAResource{AAAA: a.As16()}))
		}
	}
	if r.ptr != "" {
		n, err := dnsmessage.NewName(r.ptr)
		bad = bad || fail(err, b.PTRResource(head(ttl), dnsmessage.PTRResource{PTR: n}))
	}
	answered := len(r.addrs) > 0 || r.ptr != ""
	if r.zone != "" {
		zone, err := dnsmessage.NewName(r.zone + ".")
		// There is no host of this name and no secondary; tools want to see the record.
		ns, err2 := dnsmessage.NewName("ns." + r.t.domain + ".")
		mbox, err3 := dnsmessage.NewName("nobody.invalid.")
		if fail(err, err2, err3) {
			return nil
		}
		h := dnsmessage.ResourceHeader{Name: zone, Class: dnsmessage.ClassINET, TTL: ttlNegative}
		soa := dnsmessage.SOAResource{NS: ns, MBox: mbox, Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, MinTTL: ttlNegative}
		all := r.question.Type == dnsmessage.TypeALL
		if r.apex && (all || r.question.Type == dnsmessage.TypeNS) {
			bad, answered = bad || fail(b.NSResource(h, dnsmessage.NSResource{NS: ns})), true
		}
		if r.apex && (all || r.question.Type == dnsmessage.TypeSOA) {
			bad, answered = bad || fail(b.SOAResource(h, soa)), true
		}
		if !answered {
			bad = bad || fail(b.StartAuthorities(), b.SOAResource(h, soa))
		}
	}
	if r.edns {
		var h dnsmessage.ResourceHeader
		rcode := dnsmessage.RCode(0)
		if r.badVersion {
			rcode = 16 // BADVERS
		}
		bad = bad || fail(b.StartAdditionals(), h.SetEDNS0(udpSize, rcode, false), b.OPTResource(h, dnsmessage.OPTResource{}))
	}
	out, err := b.Finish()
	if bad || err != nil {
		return nil
	}
	return out
}
