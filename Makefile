# make demo   the main job from nothing: a hub, three hosts, a login, a refusal, a replay
# make test   everything; what CI runs
# make bench  benchmarks, as ratios against OpenSSH in the same run (lab/README.md has the table)

export CGO_ENABLED = 0
export GOFLAGS = -buildvcs=false

WEB  = recording/replay/web
DIST = recording/replay/dist

.PHONY: all build web demo test bench soak need clean

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

test:
	@sh lab/need.sh test
	$(MAKE) --no-print-directory build
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo 'gofmt would change:'; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	GOOS=darwin go build -o /dev/null ./cmd/tssh
	go test -timeout 20m ./...
	go run ./lab/demo -bin bin </dev/null

bench: build
	@sh lab/need.sh test
	go build -trimpath -o bin/ ./lab/wgalone
	go run ./lab/bench -bin bin

soak: build
	TSSH_SOAK=1 go test -timeout 2h -run Soak -v ./...

clean:
	rm -rf bin $(WEB)/node_modules
	find $(DIST) -type f ! -name .keep -delete
