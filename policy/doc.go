/*
Package policy holds identities, the policy language, and the one function that decides.

	policy file --Parse--> *Policy --+
	                                 +--> Evaluate (logins) --> Decision
	identity of the peer, account ---+--> FilterFor, EvaluateNet (packets)

# Trust boundary

The text of a policy is not trusted: its size and nesting are bounded before the parser
sees it, and what is not understood is an error, never skipped. Identities are trusted
to be what the mesh proved; what an identity's Attributes say is claimed by its node.
Everything after Parse is pure: no I/O, no clock, no look-ups. The zero Decision denies.

# The file

HuJSON (JSON with comments and trailing commas) that reads like a Tailscale policy file.
Keys match without regard to case. Unknown keys, keys given twice (also when they differ
by case only), wrong types and an empty file are errors, all told at once with
FILE:LINE:COL. Keys that start with # inside rules are notes.

	groups            {"group:NAME": [login]}
	hosts             {"NAME": address or prefix}
	ipsets            {"ipset:NAME": ["add X", "remove X"]}, X an address, prefix, range, host, ipset or autogroup:internet
	tagOwners         {"tag:NAME": [who may put it on a device]}
	postures          {"posture:NAME": [assertion]}, and defaultSrcPosture [posture]
	acls              [{action: "accept", src, proto?, dst: ["HOST:PORTS"], srcPosture?}]; users and ports are old names of src and dst
	grants            [{src, dst, ip?, app?, via?, srcPosture?}]
	ssh               [{action: "accept"|"check"|"request", src, dst, users, checkPeriod?, acceptEnv?, recorder?, enforceRecorder?, srcPosture?,
	                    and what its sessions may do, below}]
	autoApprovers     {routes: {PREFIX: [who]}, exitNode: [who], services: ...}
	tests, sshTests   assertions that every change must keep
	sealRecordingsTo  [age1... or ssh-ed25519 public key]: every host seals its recordings to these; none: it does not
	nodeAttrs, derpMap, disableIPv4, OneCGNATRoute, randomizeClientPort, attrConfig   load, with a warning: no effect here

Selectors and where they may stand are the table legal in selector.go. An identity
selector (login, user:*@domain, group, role and member autogroups, tag,
autogroup:tagged) means all addresses of the node and nothing behind it; an address
selector means exactly those addresses. A tagged node has no user. A node of another
mesh (Identity.External) is named by its login, autogroup:shared and "*" alone.

# Network

Rules only add up; acls and grants are one list. With neither of the two sections all
traffic of nodes is allowed, with a loud warning; an empty list allows nothing. "*" as a
source is every node and every approved route, as a destination everything that the
receiving node has. autogroup:internet never makes a packet filter rule; it answers
questions about public addresses only. Without a protocol a rule means TCP, UDP and
ICMP; whatever is allowed any traffic may ping. A rule with via serves routes behind
nodes that carry one of its tags, never a node's own addresses.

# SSH

A login needs an ssh rule and network permission for TCP port 22. All check rules are
asked in file order, then all accept rules, all request rules, all rules with breakGlass;
the first whose src, dst, posture, users and hours match decides, and its other fields
alone count. A rule without the account, or whose hours are closed, is passed over.
Nothing matches: denied.

People reach their own devices and tagged machines, tagged machines reach tagged
machines, nobody reaches another person's device. autogroup:member as a dst is read as
autogroup:self. Root is uid 0 under any name: it needs both "root" and the account's own
name among users, and neither autogroup:nonroot nor localpart: ever means it.

# What sessions may do

These fields of ssh rules are not of the original language; a file that has one does not
load elsewhere. They only take away from what the rule allows without them.

	permit           {pty, shell, exec, agent, x11: true or false; sftp: "none"|"read"|"write";
	                  forwardLocal, forwardRemote: ["HOST:PORTS" or "*"]; forwardUnix: [absolute path, * within a part, or "*"]}
	command          runs whatever is asked for, which it finds in SSH_ORIGINAL_COMMAND
	commands         [command], the only ones that may be run
	sessionLimit     from login to the end, as "8h"
	idleLimit        without a byte either way, as "15m"
	sessionsAtOnce   logins of one person, or one machine, under the rule on one host
	hours            ["Mon-Fri 07:00-19:00 Europe/Oslo"]; until: a time with its zone
	record           "required"|"required-remote"|"best-effort"|"off"; onRecordFailure: "terminate"|"pause"|"refuse"
	                 (former names: "end" and "continue" are terminate and refuse);
	                 recordInput, selfAttested: true or false
	watch, join, end [who may, beside the person whose session it is]
	delete           [who may delete their recordings]: never the person recorded; without it nobody over the mesh
	showWatchers     true: the person and all who watch are told who watches, and who ended a session
	showRecording    true: a terminal says when it opens whether the session is recorded, and what is typed
	loginMessage     one line, shown when a terminal opens
	breakGlass       true: the rule works when recorder or hub are away; audited, and announced at login
	approvers, approvals, approvedFor   of action "request": who says yes, how many of them, for how long

The recorder of a rule, which is of the original language, are tags of nodes in the order in which
they are tried; without it recordings go to the hub, whose own tag is tag:tsshub. enforceRecorder
is record "required-remote". Nodes with such a tag and all others know each other whatever the
network rules say (Recorders).

Without permit a session has what sshd gives by default: terminal, shell, commands, sftp,
forwards to anywhere and of sockets, listening on loopback, the agent, and not X11. With
permit it has what is written there and nothing else. With command and without permit it
has terminal, shell and commands, each of which runs the command; with commands a
terminal and those commands: neither has forwards, sftp or the agent unless permit says so.

Destinations are matched as they are asked for. A name is not resolved here: it matches
a rule's names and *, an address matches addresses, prefixes, names of the hosts section
and *; localhost matches the loopback addresses too. No host, "*" and the unspecified
addresses of a listener are every address of the host, which only * matches.

In commands a * is one word that is not an option, or a part of a word without slashes,
and ... at the end is any number of words; what they stand for has only signs that shells
give no meaning to, or stands in single quotes where * is the whole word.

Hours may pass midnight and belong to the day on which they begin. A session ends when they
close. Without record sessions are recorded as by "required", and on a host whose
recordings are self-attested as well; with it such hosts need selfAttested.

# Postures

An assertion is ATTRIBUTE OPERATOR VALUE, as node:os IN ['linux', 'macos'], with == !=
IN, NOT IN, IS SET, NOT SET, and < <= > >= for numbers and versions. What is not set
matches NOT SET and nothing else. Nodes tell node:... only, and it is their own claim.

# Where an existing file means something else here

In the users of ssh rules whatever has a colon, and "*", is an error, where the original
takes some of them for names of accounts. A localpart: rule gives its own destinations
only. autogroup:member as an ssh dst is a person's own devices. checkPeriod beside
accept, check with a tagged source, and an acl without action are errors. A tag that
owns a tag passes on its own owners. Text of files that the original refuses is told in
the original's words where those are known, with place and rule added.

# Bounds

A file has at most 16 MiB and 64 levels, its tables at most 512 MiB and two million
address ranges, its problems at most 500 of 2000 bytes each.

# How it is compiled

Each end of a request is looked up by what it is: its login, its role, its tags, its
address. Each of these has the set of rules that name it, one bit per rule; the union for
the source, and the union for the destination, are intersected word by word and the
first set bit whose ports match decides. Nodes are not in these tables, so one that
joins or leaves recompiles nothing. Address rules cut the address space into intervals,
each with its set; equal sets are kept once.

# Explaining

Explain and ExplainNet go through the file rule by rule and say of each why it did not
match; tests hold them to the tables on random policies. Who, Diff and Lint ask the tables
about every pair of classes of a Directory: machines that no rule tells apart are one class.
A decision carries no sentence for a login that is denied: Sentence makes it when a person is told.
Accounts that no rule names are asked about once, as AnyOther, which never means root.

# Directory and queries

The JSON of Directory, and the queries and answers of EvalQuery, are those of `tssh
policy eval`; see the fields of Directory and query.
*/
package policy
