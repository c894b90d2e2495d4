# make demo   the main job from nothing: a hub, three hosts, a login, a refusal, a replay
# make test   everything; what CI runs
# make cross  the programs for every system they are promised for (part of make test)
# make matrix  every client with large files; writes the table of docs/clients.md
# make regress OpenSSH's own regression tests against tsshd, those that apply (docs/clients.md)
# make bench  benchmarks, as ratios against OpenSSH in the same run (lab/README.md has the table)
# make fuzz   every fuzz target for FUZZTIME (2m) each
# make bench-recording  what recording costs, bytes of an hour, ingest, seek and search (docs/recordings.md)

export CGO_ENABLED = 0
export GOFLAGS = -buildvcs=false

WEB  = recording/replay/web
DIST = recording/replay/dist

.PHONY: all build web demo test matrix regress cross bench bench-recording soak fuzz need clean

all: build

need:
	@sh lab/need.sh build

build: need web
	go build -trimpath -ldflags '-s -w' -o bin/ ./cmd/tssh ./cmd/tsshd ./cmd/tsshub

web: $(DIST)/index.html

$(DIST)/index.html: $(WEB)/package-lock.json $(WEB)/package.json $(wildcard $(WEB)/*.mjs $(WEB)/*.html $(WEB)/src/* $(WEB)/src/*/*)
	cd $(WEB) && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build
	@touch $@

demo: build
	@go run ./lab/demo -bin bin

# The lab's hosts and the browsers each take all of a small machine, so they come last and one after the other.
test:
	@sh lab/need.sh test
	$(MAKE) --no-print-directory build
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'gofmt would change:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	$(MAKE) --no-print-directory cross
	go test -timeout 20m $$(go list ./... | grep -v -e '/lab$$' -e '/replay$$')
	go test -timeout 30m -p 1 ./recording/replay ./lab
	go run ./lab/demo -bin bin </dev/null

# Every computer that a program is promised for can build it; measured on 2 busy cores: 3.5 minutes with an empty cache, 8 s with a full one.
cross:
	@for os in linux darwin windows; do for arch in amd64 arm64; do \
		programs=./cmd/tssh; \
		case $$os in linux|darwin) programs="./cmd/tssh ./cmd/tsshd";; esac; \
		for p in $$programs; do GOOS=$$os GOARCH=$$arch go build -o /dev/null $$p || exit 1; done; \
	done; done

matrix: build
	@sh lab/need.sh test
	TSSH_MATRIX=1 go test -timeout 30m -count 1 -v -run 'TestClients$$' ./lab

regress: build
	@sh lab/need.sh regress
	go build -trimpath -o bin/ ./lab/regress
	bin/regress -bin bin

bench: build
	@sh lab/need.sh test
	go build -trimpath -o bin/ ./lab/wgalone
	go run ./lab/bench -bin bin

# What recording costs and brings: docs/recordings.md has the table.
bench-recording:
	TSSH_BENCH=1 go test -timeout 30m -count 1 -v -run 'TestCostOfRecording|TestBytesOfAnHour' ./sshd | grep -E '_test.go|^(ok|FAIL|---)'
	TSSH_BENCH=1 go test -timeout 30m -count 1 -v -run 'TestIngest$$' ./recording/ship | grep -E '_test.go|^(ok|FAIL|---)'
	TSSH_BENCH_MB=200 go test -timeout 30m -count 1 -v -run 'TestSeekInALongRecording' ./recording/replay | grep -E '_test.go|^(ok|FAIL|---)'
	TSSH_BENCH_RECORDINGS=10000 go test -timeout 30m -count 1 -v -run '^$$' -bench 'Search' ./recording/find
	GOGC=50 TSSH_BENCH_RECORDINGS=100000 go test -timeout 30m -count 1 -v -run 'TestMemoryOfAHub' ./recording/find | grep -E '_test.go|^(ok|FAIL|---)'
	go test -timeout 30m -count 1 -run '^$$' -bench 'Flood|List' ./recording ./recording/store

soak: build
	TSSH_SOAK=1 go test -timeout 2h -run 'Soak|TestRelayAndHubKilled' -v ./...

# Without a bound on it, making one interesting recording smaller takes a minute, and there are two tries in that time.
FUZZTIME = 2m
fuzz:
	@for f in $$(grep -rEo '^func Fuzz[A-Za-z0-9]+' --include='*_test.go' . | sed 's/func //'); do \
		go test -run '^$$' -fuzz "^$${f##*:}$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x -parallel 1 $$(dirname $${f%%:*}) || exit 1; done

clean:
	rm -rf bin $(WEB)/node_modules
	find $(DIST) -type f ! -name .keep -delete
