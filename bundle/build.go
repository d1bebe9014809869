// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"bastide.dev/fault"
)

// BuildConfig says from what and where to bundles are built.
type BuildConfig struct {
	Source   string      // the checkout; required
	Cache    string      // default DefaultCache
	Progress func(Event) // may be nil; called from the building goroutine
}

// Event tells of a step that starts, or ends when Done.
type Event struct {
	Bundle  string // name@version
	Step    string // what is built, or "wait", "verify"
	Elapsed time.Duration
	Done    bool
}

// Available lists the bundles that the checkout can build, in the order in which
// a first start wants them; what they are made of is not filled in.
func Available(source string) ([]Manifest, error) {
	var list []Manifest
	for _, r := range recipes() {
		m, _, err := r.resolve(source)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// Build makes the bundles named ("name" or "name@version"; none: all that an
// instance can need) current:
// what is there and was made of the same inputs is only verified, what was
// imported is left alone, the rest is built. It can be called by several
// processes at once; one builds a bundle and the others wait for it.
func Build(ctx context.Context, cfg BuildConfig, names ...string) ([]*Bundle, error) {
	if cfg.Cache == "" {
		cfg.Cache = DefaultCache
	}
	chosen, err := choose(cfg.Source, names)
	if err != nil {
		return nil, err
	}
	tools, err := findToolchain(ctx, cfg.Source)
	if err != nil {
		return nil, err
	}
	built := make([]*Bundle, 0, len(chosen))
	for _, r := range chosen {
		b := builder{BuildConfig: cfg, tools: tools}
		done, err := b.build(ctx, r)
		if err != nil {
			return built, err
		}
		built = append(built, done)
	}
	return built, nil
}

func choose(source string, names []string) ([]recipe, error) {
	all := recipes()
	if len(names) == 0 {
		return slices.DeleteFunc(all, func(r recipe) bool { return r.onDemand }), nil
	}
	var chosen []recipe
	for _, name := range names {
		before := len(chosen)
		for _, r := range all {
			m, _, err := r.resolve(source)
			if err != nil {
				return nil, err
			}
			if name == m.Name || name == m.ID() {
				chosen = append(chosen, r)
			}
		}
		if len(chosen) == before {
			return nil, fault.New(fault.NotFound, "BundleNotFound", "No bundle %q can be built from %s.", name, source)
		}
	}
	return chosen, nil
}

type builder struct {
	BuildConfig
	tools toolchain
	id    string
}

func (b *builder) build(ctx context.Context, r recipe) (*Bundle, error) {
	m, steps, err := r.resolve(b.Source)
	if err != nil {
		return nil, err
	}
	b.id = m.ID()
	if m.Inputs, err = inputs(b.Source, steps, b.tools); err != nil {
		return nil, err
	}
	end := b.step("wait")
	unlock, err := lock(ctx, b.Cache, b.id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	end()
	if now, err := readManifest(linkPath(b.Cache, m.Name, m.Version)); err == nil && now.Imported() {
		return Open(b.Cache, m.Name, m.Version)
	}
	end = b.step("verify")
	if have, err := openDir(storePath(b.Cache, &m)); err == nil && have.Inputs == m.Inputs {
		end()
		return have, point(b.Cache, &m)
	}
	end()
	return publish(b.Cache, m, func(root string) error {
		for _, s := range steps {
			if err := b.make(ctx, s, root); err != nil {
				return fmt.Errorf("build %s of %s: %w", s.Component, b.id, err)
			}
		}
		return nil
	})
}

// step reports the start of a step, and its end when the result is called.
func (b *builder) step(name string) (end func()) {
	if b.Progress == nil {
		return func() {}
	}
	start := time.Now()
	b.Progress(Event{Bundle: b.id, Step: name})
	return func() { b.Progress(Event{Bundle: b.id, Step: name, Elapsed: time.Since(start), Done: true}) }
}

func (b *builder) make(ctx context.Context, s step, root string) error {
	defer b.step(s.Component)()
	output := filepath.Join(root, s.Output)
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, b.tools.goTool, s.goArgs(output)...)
	if s.compilesC() {
		cmd = exec.CommandContext(ctx, b.tools.cc, s.ccArgs(output)...)
	}
	cmd.Dir = filepath.Join(b.Source, s.Dir)
	cmd.Env = s.environment(os.Environ())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, tail(stderr.String()))
	}
	for _, name := range s.Links {
		if err := os.Symlink(filepath.Base(output), filepath.Join(filepath.Dir(output), name)); err != nil {
			return err
		}
	}
	return nil
}

func (s step) goArgs(output string) []string {
	args := []string{"build"}
	if s.Test {
		args = []string{"test", "-c"}
	}
	args = append(args, "-trimpath", "-buildvcs=false", "-mod=readonly", "-modfile="+s.Modfile,
		"-ldflags", strings.TrimSpace("-s -w "+s.LDFlags))
	if s.Tags != "" {
		args = append(args, "-tags", strings.ReplaceAll(s.Tags, " ", ","))
	}
	return append(args, "-o", output, s.Package)
}

func (s step) ccArgs(output string) []string {
	return []string{"-Os", "-static", "-s", "-Wall", "-Werror", "-Wl,--build-id=none", "-o", output, s.Package}
}

// environment takes from the caller's what finds tools and modules, and nothing
// that would change the result.
func (s step) environment(caller []string) []string {
	env := []string{"GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local", "GOOS=linux", "GOARCH=" + runtime.GOARCH, "CGO_ENABLED=0", "LC_ALL=C"}
	if s.CGO {
		env[5] = "CGO_ENABLED=1"
	}
	if s.NewerGo {
		env[2] = "GOTOOLCHAIN=auto"
	}
	for _, kv := range caller {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "PATH", "HOME", "TMPDIR", "GOPATH", "GOCACHE", "GOMODCACHE", "GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GONOSUMCHECK",
			"GOINSECURE", "GOROOT", "GOENV", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR":
			env = append(env, kv)
		}
	}
	return env
}

// tail keeps the end of a compiler's output, where the reason stands.
func tail(output string) string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return strings.Join(lines[max(0, len(lines)-12):], "\n")
}
