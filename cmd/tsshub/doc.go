// Command tsshub runs a mesh's hub, and is how administrators talk to it.
//
//	tsshub serve --state DIR        one process per state folder
//	tsshub user|key|node|policy|audit|status ... --state DIR
//
// serve.go brings up what every role needs (state folder, audit log, database, TLS
// port, administrators' socket); parts.go lists the roles, each of which mounts what it
// answers on the TLS port and returns what it runs. What people read is in words.go.
//
// # State folder
//
//	hub.json    0600: {"format": "tsshub-state/1", "control_private": base64}, the hub's
//	            Ed25519 key, which is its pin and signs all records; "next_private"
//	            while it is being rotated, see rotate.go
//	hub.db      SQLite, see package coord; --db puts it elsewhere
//	audit/      the hub's audit log, see package recording/audit
//	audit-hosts/  copies of the hosts' audit logs, as they send them
//	admin.sock  0600, HTTP and JSON; root and the user that tsshub runs as
//
// The folder is 0700 and locked (flock on the folder itself) while a hub runs on it.
// A start that fails leaves it as it was, and a first one that fails leaves nothing.
//
// # Flags of serve
//
//	--state DIR        default /var/lib/tsshub, without root ~/.local/state/tsshub
//	--listen ADDR      default :8443
//	--url URL          what join tokens say; default: the first address of this computer
//	                   that is not for itself alone, with the port of --listen
//	--mesh NAME        of a new mesh, default "mesh"; hosts are called NODE.NAME.internal
//	--range4 CIDR      IPv4 addresses of a new mesh, default 100.64.0.0/10
//	--policy FILE      the policy, read at the start and at SIGHUP; `tsshub policy set`
//	                   is then refused
//	--db sqlite:FILE   default hub.db in the state folder
//	--recordings URL   file:///DIR, or s3://BUCKET?region=REGION[&endpoint=URL&use_path_style=true]:
//	                   complete recordings go there, with keys from AWS_ACCESS_KEY_ID and
//	                   AWS_SECRET_ACCESS_KEY or whatever else AWS's programs read
//	--recordings-cache MiB   of the bucket that stay in the state folder, default 10240
//	--retention RULE   90d, tag:NAME=365d, tag:NAME=forever; may be repeated: of those that
//	                   match, the longest counts, and what none matches is kept
//	--roles LIST       default: all that this program has; relay or recorder alone, with
//	                   --join-file, is one that stands alone: standalone.go, recorder.go
//	--node-expiry T    how long the nodes of people are members, default 180d; never
//	--ephemeral-grace T  how long an ephemeral node may be away, default 10m
//	--restored         once, after the database was put back from a backup
//	-v                 more in the log
//
// Exit statuses: 0 done, 1 it could not be done, 2 the command line is wrong.
//
// # Trust
//
// The TLS port is open to the world: the number of connections is bounded in all and
// per address, requests are bounded in size and time, and nothing answers but what a
// role mounted. Nothing from the network is printed to a terminal without taking out
// what could act on it.
package main
