// SPDX-License-Identifier: Apache-2.0

// Package testcloud boots a whole instance of Bastide, as a user would with
// `bastide up`, for tests that drive it with az, the Azure SDKs and kubectl.
// Nothing in it is special to tests: it is the real binary, the real store,
// real machines. Only tests and benchmarks import it.
package testcloud

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Cloud is a running instance.
type Cloud struct {
	Name     string
	StateDir string
	Binary   string            // bin/bastide
	Env      map[string]string // what `bastide env` says
	Up       string            // what the first `bastide up` printed
}

// binary builds bastide and its agents once per test process; the build cache makes it quick.
var binary = sync.OnceValues(func() (string, error) {
	dir := builds()
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "bastide.dev/cmd/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return filepath.Join(dir, "bastide"), nil
})

// builds is where this test process keeps the programs it built.
func builds() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("bastide-testcloud-%d", os.Getpid()))
}

// Main runs a package's tests and removes the programs that were built for
// them. It is what a TestMain calls.
func Main(m *testing.M) int {
	code := m.Run()
	if err := os.RemoveAll(builds()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Start boots an instance called name and removes it, and all that it left,
// when the test ends.
func Start(t testing.TB, name string, flags ...string) *Cloud {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	c := &Cloud{Name: name, StateDir: filepath.Join("/var/lib/bastide", name), Binary: path}
	c.clean(t) // what a killed run may have left
	t.Cleanup(func() {
		if t.Failed() {
			c.logs(t)
		}
		c.clean(t)
	})
	c.Up = c.Must(t, append([]string{"up"}, flags...)...)
	c.ReadEnv(t)
	c.named(t)
	return c
}

// named waits until this process knows the instance's names: Go keeps what it
// read in the hosts file for five seconds.
func (c *Cloud) named(t testing.TB) {
	t.Helper()
	var err error
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(50 * time.Millisecond) {
		if _, err = net.DefaultResolver.LookupHost(t.Context(), "login."+c.Env["BASTIDE_DOMAIN"]); err == nil {
			return
		}
	}
	t.Fatal(err)
}

func (c *Cloud) clean(t testing.TB) {
	t.Helper()
	if out, err := c.Bastide(context.Background(), "clean", "--yes"); err != nil {
		t.Errorf("bastide clean: %v\n%s", err, out)
	}
}

// logs shows the end of each daemon's log when a test failed.
func (c *Cloud) logs(t testing.TB) {
	files, _ := filepath.Glob(filepath.Join(c.StateDir, "logs", "*.log"))
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil {
			t.Logf("--- %s\n%s", f, tail(text, 6000))
		}
	}
}

func tail(text []byte, n int) []byte { return text[max(0, len(text)-n):] }

// Bastide runs the binary against the instance and returns all it printed.
func (c *Cloud) Bastide(ctx context.Context, args ...string) (string, error) {
	args = append([]string{"--instance", c.Name, "--state-dir", c.StateDir}, args...)
	out, err := exec.CommandContext(ctx, c.Binary, args...).CombinedOutput()
	return string(out), err
}

// Must is Bastide where failure ends the test.
func (c *Cloud) Must(t testing.TB, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := c.Bastide(ctx, args...)
	if err != nil {
		t.Fatalf("bastide %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// ReadEnv reads what `bastide env` says.
func (c *Cloud) ReadEnv(t testing.TB) {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(c.Binary, "--instance", c.Name, "--state-dir", c.StateDir, "env", "--output", "json")
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("bastide env: %v\n%s", err, &stderr)
	}
	c.Env = map[string]string{}
	if err := json.Unmarshal(out, &c.Env); err != nil {
		t.Fatalf("bastide env: %v\n%s", err, out)
	}
}

// Run runs a client of the instance (az, kubectl, …) in the environment that
// `bastide env` gives, and returns what it printed to standard output.
func (c *Cloud) Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, stderr, err := c.Try(t.Context(), name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr)
	}
	return out
}

// Try is Run for calls that may fail.
func (c *Cloud) Try(ctx context.Context, name string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	env := os.Environ()
	for k, v := range c.Env {
		env = append(env, k+"="+v)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, c.find(name), args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// find looks a client up in the instance's own PATH first: kubectl is ours.
func (c *Cloud) find(name string) string {
	for _, dir := range filepath.SplitList(c.Env["PATH"]) {
		if path := filepath.Join(dir, name); isExecutable(path) {
			return path
		}
	}
	return name
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// JSON runs a client and reads its answer.
func JSON[T any](t testing.TB, c *Cloud, name string, args ...string) T {
	t.Helper()
	var v T
	out := c.Run(t, name, args...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return v
}
