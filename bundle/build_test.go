// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"bastide.dev/fault"
)

// tiny is a recipe of one C program, which builds at once.
func tiny(name, version string) recipe {
	return recipe{name: name, steps: []step{{Component: "tiny", Version: version, Dir: "src", Package: "tiny.c", Output: bin + "tiny", Links: []string{"one", "two"}}}}
}

func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "src"), 0o755))
	write(t, dir, "int main(void) { return 0; }\n")
	return dir
}

func write(t *testing.T, dir, program string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(dir, "src", "tiny.c"), []byte(program), 0o644))
}

// recorder counts the builds that events tell of.
type recorder struct {
	mu     sync.Mutex // guards builds
	builds int
}

func (r *recorder) event(e Event) {
	if e.Step == "tiny" && e.Done {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.builds++
	}
}

func build(ctx context.Context, r *recorder, source, cache string, what recipe) (*Bundle, error) {
	tools, err := findToolchain(ctx, source)
	if err != nil {
		return nil, err
	}
	b := builder{BuildConfig: BuildConfig{Source: source, Cache: cache, Progress: r.event}, tools: tools}
	return b.build(ctx, what)
}

func TestBuildOnlyWhatChanged(t *testing.T) {
	source, cache, r := checkout(t), t.TempDir(), &recorder{}
	first, err := build(t.Context(), r, source, cache, tiny("tiny", "1"))
	must(t, err)
	must(t, exec.Command(first.Path("one")).Run())
	_, err = build(t.Context(), r, source, cache, tiny("tiny", "1"))
	must(t, err)
	if r.builds != 1 {
		t.Errorf("%d builds of unchanged sources", r.builds)
	}

	write(t, source, "int main(void) { return 7; }\n")
	second, err := build(t.Context(), r, source, cache, tiny("tiny", "1"))
	must(t, err)
	if r.builds != 2 || second.Inputs == first.Inputs {
		t.Errorf("a changed source was not built: %d builds", r.builds)
	}
	now, err := Open(cache, "tiny", "1")
	must(t, err)
	if now.Root() != second.Root() {
		t.Errorf("the current bundle is %s, not the new %s", now.Root(), second.Root())
	}
	must(t, exec.Command(first.Path("one")).Run()) // what runs from the old one goes on

	write(t, source, "int main(void) { return 0; }\n")
	back, err := build(t.Context(), r, source, cache, tiny("tiny", "1"))
	must(t, err)
	if r.builds != 2 || back.Root() != first.Root() {
		t.Errorf("going back built again: %d builds", r.builds)
	}
}

func TestBuildMakesADamagedBundleAgain(t *testing.T) {
	source, cache, r := checkout(t), t.TempDir(), &recorder{}
	first, err := build(t.Context(), r, source, cache, tiny("tiny", "1"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(first.Root(), bin, "tiny"), []byte("broken"), 0o755))
	_, err = build(t.Context(), r, source, cache, tiny("tiny", "1"))
	must(t, err)
	if _, err := Open(cache, "tiny", "1"); err != nil || r.builds != 2 {
		t.Errorf("%d builds, %v", r.builds, err)
	}
}

func TestBuildRefusesUnknownNames(t *testing.T) {
	for _, name := range []string{"nonsense", "etcd@0.1", "kubernetes@1.36"} {
		if _, err := Build(t.Context(), BuildConfig{Source: "..", Cache: t.TempDir()}, name); !fault.Is(err, fault.NotFound) {
			t.Errorf("Build(%q): %v", name, err)
		}
	}
}

func TestTestsAreBuiltOnlyWhenNamed(t *testing.T) {
	name := func(names ...string) (ids []string) {
		chosen, err := choose("..", names)
		must(t, err)
		for _, r := range chosen {
			ids = append(ids, r.name)
		}
		return ids
	}
	if all := name(); slices.Contains(all, "e2e") || len(all) != len(recipes())-1 {
		t.Errorf("without names %v are built", all)
	}
	for _, given := range []string{"e2e", "e2e@" + E2EVersion} {
		if got := name(given); !slices.Equal(got, []string{"e2e"}) {
			t.Errorf("%s builds %v", given, got)
		}
	}
}

func TestConcurrentBuilders(t *testing.T) {
	source, cache, r := checkout(t), t.TempDir(), &recorder{}
	errs := make(chan error, 8)
	for range cap(errs) {
		go func() {
			_, err := build(t.Context(), r, source, cache, tiny("tiny", "1"))
			errs <- err
		}()
	}
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if r.builds != 1 {
		t.Errorf("%d builders built the same bundle", r.builds)
	}
}

func TestFailedBuildLeavesNothing(t *testing.T) {
	source, cache, r := checkout(t), t.TempDir(), &recorder{}
	write(t, source, "int main(void) { return nonsense; }\n")
	_, err := build(t.Context(), r, source, cache, tiny("tiny", "1"))
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("the compiler's reason is missing: %v", err)
	}
	left, err := filepath.Glob(filepath.Join(storeDir(cache), "*"))
	must(t, err)
	if _, err := Open(cache, "tiny", "1"); !fault.Is(err, fault.NotFound) || slices.ContainsFunc(left, func(p string) bool { return !strings.HasSuffix(p, ".lock") }) {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestWaitingBuilderCanLeave(t *testing.T) {
	source, cache := checkout(t), t.TempDir()
	unlock, err := lock(t.Context(), cache, "tiny@1")
	must(t, err)
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := build(ctx, &recorder{}, source, cache, tiny("tiny", "1"))
		done <- err
	}()
	cancel()
	if err := <-done; err == nil {
		t.Error("built beside another builder")
	}
}

// release makes a folder of binaries that say they are of a version.
func release(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range kubernetesNames() {
		program(t, filepath.Join(dir, name), version)
	}
	return dir
}

func program(t *testing.T, path, version string) {
	t.Helper()
	source := filepath.Join(t.TempDir(), "say.c")
	must(t, os.WriteFile(source, fmt.Appendf(nil, "#include <stdio.h>\nint main(void) { puts(\"Kubernetes v%s\"); return 0; }\n", version), 0o644))
	if out, err := exec.Command("gcc", "-o", path, source).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestImport(t *testing.T) {
	cache, dir := t.TempDir(), release(t, "1.2.3")
	b, err := Import(t.Context(), cache, dir)
	must(t, err)
	if b.ID() != "kubernetes@1.2.3" || !b.Imported() || b.Path("kubelet") == "" {
		t.Errorf("imported %+v", b.Manifest)
	}
	r := &recorder{}
	kept, err := build(t.Context(), r, checkout(t), cache, tiny("kubernetes", "1.2.3"))
	must(t, err)
	if r.builds != 0 || kept.Root() != b.Root() {
		t.Error("a build took the place of what was imported")
	}
}

func TestImportReportsEveryProblem(t *testing.T) {
	dir := release(t, "1.2.3")
	must(t, os.Remove(filepath.Join(dir, "kubectl")))
	must(t, os.WriteFile(filepath.Join(dir, "kubelet"), []byte("#!/bin/sh\necho Kubernetes v1.2.3\n"), 0o755))
	must(t, os.Remove(filepath.Join(dir, "kube-proxy")))
	must(t, os.Mkdir(filepath.Join(dir, "kube-proxy"), 0o755))
	program(t, filepath.Join(dir, "kube-scheduler"), "1.2.4")
	cache := t.TempDir()
	_, err := Import(t.Context(), cache, dir)
	f := fault.From(err)
	if f == nil {
		t.Fatal("imported")
	}
	var got []string
	for _, d := range f.Details {
		got = append(got, d.Code+" "+d.Target)
	}
	want := []string{"NotAProgram kubelet", "BinaryUnreadable kube-proxy", "BinaryMissing kubectl", "VersionsDiffer "}
	if !slices.Equal(got, want) {
		t.Errorf("problems %q instead of %q", got, want)
	}
	if list, err := List(cache); err != nil || len(list) != 0 {
		t.Errorf("something was imported: %v, %v", list, err)
	}
}

func TestPinnedVersionsAreThoseOfTheModuleFiles(t *testing.T) {
	available, err := Available("..")
	must(t, err)
	got := map[string]bool{}
	for _, m := range available {
		got[m.ID()] = true
	}
	want := []string{"runtime@" + RuntimeVersion, "etcd@" + EtcdVersion, "coredns@" + CoreDNSVersion,
		"metrics-server@" + MetricsServerVersion, "cloud-controller-manager@" + CloudControllerVersion, "kubelogin@" + KubeloginVersion, "pause@" + PauseVersion, "web@" + WebVersion, "e2e@" + E2EVersion}
	for _, v := range KubernetesVersions() {
		want = append(want, "kubernetes@"+v)
	}
	for _, id := range want {
		if !got[id] {
			t.Errorf("the module files don't make %s", id)
		}
	}
	if len(got) != len(want) {
		t.Errorf("the module files make %v, the constants know %v", got, want)
	}
}

func TestInputsKnowEverySource(t *testing.T) {
	tools := toolchain{goVersion: "go1", ccVersion: "1", libseccompVersion: "1"}
	for _, r := range recipes() {
		m, steps, err := r.resolve("..")
		must(t, err)
		before, err := inputs("..", steps, tools)
		must(t, err)
		other := toolchain{goVersion: "go2", ccVersion: "2", libseccompVersion: "1"}
		after, err := inputs("..", steps, other)
		must(t, err)
		if before == after {
			t.Errorf("%s: another compiler makes the same bundle", m.ID())
		}
		for _, s := range steps {
			files, err := s.sources("..")
			must(t, err)
			if len(files) == 0 {
				t.Errorf("%s: %s is made of nothing", m.ID(), s.Component)
			}
		}
	}
}
