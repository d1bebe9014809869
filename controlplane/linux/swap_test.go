// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bastide.dev/cgroup"
	"bastide.dev/controlplane"
)

// load is what a cluster's users do: a hundred requests a second, half of them
// writes, and one watch. Whatever fails is counted, and nothing is tried again.
type load struct {
	t        *testing.T
	stop     context.CancelFunc
	running  sync.WaitGroup
	requests atomic.Int64
	slowest  atomic.Int64

	mu     sync.Mutex // guards what follows
	failed []string
	seen   map[string]bool // values that the watch brought
	wrote  []string
}

const countedObject = "/api/v1/namespaces/default/configmaps/counter"

func newLoad(r *rig, spec controlplane.Spec) *load {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	l := &load{t: r.t, stop: cancel, seen: map[string]bool{}}
	admin := r.admin(spec)
	made := admin.must("POST", "/api/v1/namespaces/default/configmaps", object{"metadata": object{"name": "counter"}, "data": object{"n": "0"}})
	var o struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := json.Unmarshal(made, &o); err != nil {
		r.t.Fatal(err)
	}
	const workers = 4
	for worker := range workers {
		u := r.admin(spec)
		l.running.Go(func() {
			tick := time.NewTicker(workers * 10 * time.Millisecond)
			defer tick.Stop()
			for n := 0; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				if n%2 == 0 {
					l.request(ctx, u, "GET", countedObject, "")
					continue
				}
				value := fmt.Sprintf("%d-%d", worker, n)
				l.request(ctx, u, "PATCH", countedObject, value)
			}
		})
	}
	l.running.Go(func() { l.watch(ctx, r.admin(spec), o.Metadata.ResourceVersion) })
	return l
}

func (l *load) request(ctx context.Context, u *user, method, path, value string) {
	begin := time.Now()
	var body io.Reader
	if value != "" {
		body = bytes.NewReader([]byte(`{"data":{"n":"` + value + `"}}`))
	}
	// A request that was begun is let finish when the load ends.
	request, err := http.NewRequestWithContext(context.WithoutCancel(ctx), method, "https://127.0.0.1"+path, body)
	if err != nil {
		l.fail(err.Error())
		return
	}
	request.Header.Set("Content-Type", "application/merge-patch+json")
	response, err := u.http.Do(request)
	if err != nil {
		l.fail(fmt.Sprintf("%s: %v", method, err))
		return
	}
	answer, err := io.ReadAll(response.Body)
	response.Body.Close()
	l.requests.Add(1)
	if took := int64(time.Since(begin)); took > l.slowest.Load() {
		l.slowest.Store(took)
	}
	if err != nil || response.StatusCode != http.StatusOK {
		l.fail(fmt.Sprintf("%s: %d %v %s", method, response.StatusCode, err, answer))
		return
	}
	if value != "" {
		l.mu.Lock()
		l.wrote = append(l.wrote, value)
		l.mu.Unlock()
	}
}

// watch follows from version to version, as every client does: an API server
// may end a watch, but never lose what comes between.
func (l *load) watch(ctx context.Context, u *user, version string) {
	u.http.Timeout = 0
	for ctx.Err() == nil {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet,
			"https://127.0.0.1/api/v1/namespaces/default/configmaps?watch=1&fieldSelector=metadata.name%3Dcounter&resourceVersion="+version, nil)
		if err != nil {
			l.fail(err.Error())
			return
		}
		response, err := u.http.Do(request)
		if err != nil {
			if ctx.Err() == nil {
				l.fail("watch: " + err.Error())
			}
			return
		}
		for events := json.NewDecoder(response.Body); ; {
			var e struct {
				Type   string
				Object struct {
					Metadata struct{ ResourceVersion string }
					Data     map[string]string
				}
			}
			if events.Decode(&e) != nil {
				break
			}
			if e.Type == "ERROR" {
				l.fail("watch: it can't go on where it was")
				break
			}
			version = e.Object.Metadata.ResourceVersion
			l.mu.Lock()
			l.seen[e.Object.Data["n"]] = true
			l.mu.Unlock()
		}
		response.Body.Close()
	}
}

func (l *load) fail(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed = append(l.failed, time.Now().Format("05.000 ")+what)
}

// end stops the load and tells what it met. Every value that was written came by
// the watch, too, unless another came over it before the event was made.
func (l *load) end() {
	l.t.Helper()
	time.Sleep(200 * time.Millisecond) // the load goes on for a moment behind what it was for
	l.mu.Lock()
	last := ""
	if len(l.wrote) > 0 {
		last = l.wrote[len(l.wrote)-1]
	}
	l.mu.Unlock()
	eventually(l.t, "the watch goes on", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.seen[last]
	})
	l.stop()
	l.running.Wait()
	missed := 0
	for _, value := range l.wrote[:max(0, len(l.wrote)-20)] {
		if !l.seen[value] {
			missed++
		}
	}
	if len(l.failed) > 0 || missed > 0 {
		l.t.Errorf("%d of %d requests failed, %d changes missed:\n%s", len(l.failed), l.requests.Load(), missed, strings.Join(l.failed[:min(len(l.failed), 20)], "\n"))
	}
	l.t.Logf("%d requests, the slowest %v", l.requests.Load(), time.Duration(l.slowest.Load()))
}

func version(want string) func(controlplane.Status) bool {
	return func(s controlplane.Status) bool { return ready(s) && s.Version == want }
}

// TestUpgradeUnnoticed goes from one minor version to the next and to another
// definition, with clients that don't notice.
func TestUpgradeUnnoticed(t *testing.T) {
	r := newRig(t)
	spec := r.spec("a-upgrade")
	spec.Version = "1.35.4"
	r.apply(spec)
	r.until(spec.ID, "ready", version("1.35.4"))
	l := newLoad(r, spec)
	begin := time.Now()
	spec.Version = "1.36.3"
	r.apply(spec)
	if s := r.Status(spec.ID); ready(s) {
		t.Errorf("ready before it is what was asked for: %+v", s)
	}
	r.until(spec.ID, "upgraded", version("1.36.3"))
	t.Logf("upgraded in %v", time.Since(begin))
	r.onlyOne(spec.ID, controlplane.SecondSlot)
	eventually(t, "the controllers are the new version's", func() bool {
		now := r.readRunning(spec.ID)
		return strings.Contains(now.Launched[controlplane.ControllerManager].Path, "1.36.3") && pid(r.Status(spec.ID), controlplane.ControllerManager) != 0
	})
	if kept, err := filepath.Glob(r.Plane.dir(spec.ID, backupsDir, upgradeMark+"*")); err != nil || len(kept) != 1 {
		t.Errorf("snapshots %v, %v", kept, err)
	} else {
		r.wholeSnapshot(kept[0])
	}
	begin = time.Now()
	spec.FormerIssuers = []string{"https://former.test"}
	r.apply(spec)
	r.until(spec.ID, "changed", ready)
	t.Logf("changed in %v", time.Since(begin))
	l.end()
	r.onlyOne(spec.ID, controlplane.FirstSlot)
}

// onlyOne waits until one slot has the API server and the other nothing.
func (r *rig) onlyOne(id string, slot controlplane.Slot) {
	r.t.Helper()
	other := slot.Other().Program()
	eventually(r.t, "the other slot is empty", func() bool {
		files, err := os.ReadDir(r.Plane.dir(id, configDir, other))
		_, running := r.supervisor.Status(processName(id, other))
		pids, _ := cgroup.Procs(r.group(id, other))
		return err == nil && len(files) == 0 && !running && len(pids) == 0
	})
	if now := r.readRunning(id); now.Slot != slot || now.Launched[slot.Program()].Path == "" || now.Launched[other].Path != "" || now.Refused != nil || now.Holding {
		r.t.Errorf("runs %+v, want slot %d", now, slot)
	}
}

func (r *rig) wholeSnapshot(path string) {
	r.t.Helper()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		r.t.Fatalf("%v, %v", info, err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		r.t.Fatal(err)
	}
	if size, digest, err := VerifySnapshot(bytes.NewReader(data)); err != nil || size != info.Size() || len(digest) != 64 {
		r.t.Errorf("snapshot of %d bytes: %s, %v", size, digest, err)
	}
	data[len(data)/2] ^= 1
	if _, _, err := VerifySnapshot(bytes.NewReader(data)); err == nil {
		r.t.Error("a bit is another, and nobody sees it")
	}
	if _, _, err := VerifySnapshot(bytes.NewReader(data[:len(data)-100])); err == nil {
		r.t.Error("it is cut off, and nobody sees it")
	}
}

// TestRefused asks for what can't become ready.
func TestRefused(t *testing.T) {
	r := newRig(t)
	spec := r.spec("a-refused")
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	before := pid(r.Status(spec.ID), controlplane.APIServer)
	l := newLoad(r, spec)
	good := spec
	spec.Issuer = "https://no host/" // the API server ends at once
	r.apply(spec)
	status := r.until(spec.ID, "refused", func(s controlplane.Status) bool { return s.Refused != "" })
	if !strings.Contains(status.Refused, "ends by itself") || status.Phase != controlplane.Ready || status.Issuer != good.Issuer {
		t.Errorf("%+v", status)
	}
	r.onlyRefused(spec.ID)
	r.apply(spec) // it isn't tried again
	if s := r.Status(spec.ID); s.Refused != status.Refused || !ready(s) {
		t.Errorf("again: %+v", s)
	}
	r.stop()
	r.begin() // nor by the next Plane
	r.apply(spec)
	if s := r.until(spec.ID, "ready", ready); s.Refused != status.Refused || pid(s, controlplane.APIServer) != before {
		t.Errorf("by the next Plane: %+v", s)
	}
	r.apply(good)
	if s := r.until(spec.ID, "ready", ready); s.Refused != "" || pid(s, controlplane.APIServer) != before {
		t.Errorf("taken back: %+v, was pid %d", s, before)
	}

	// One that doesn't become ready in time: it is given up while it is being started.
	r.ReadyWithin = time.Nanosecond
	late := good
	late.FormerIssuers = []string{"https://late.test"}
	r.apply(late)
	status = r.until(spec.ID, "refused", func(s controlplane.Status) bool { return s.Refused != "" })
	if !strings.Contains(status.Refused, "isn't ready within") {
		t.Errorf("%+v", status)
	}
	r.onlyRefused(spec.ID)
	r.ReadyWithin = 0
	late.FormerIssuers = []string{"https://early.test"} // another wish is tried at once
	r.apply(late)
	if s := r.until(spec.ID, "ready", ready); s.Refused != "" || pid(s, controlplane.APIServer) == before {
		t.Errorf("%+v", s)
	}
	l.end()
	r.onlyOne(spec.ID, controlplane.SecondSlot)
}

func (r *rig) onlyRefused(id string) {
	r.t.Helper()
	eventually(r.t, "nothing is left of what was refused", func() bool {
		files, err := os.ReadDir(r.Plane.dir(id, configDir, controlplane.APIServerB))
		_, running := r.supervisor.Status(processName(id, controlplane.APIServerB))
		return err == nil && len(files) == 0 && !running
	})
}

// killedAt begins a change, ends the Plane at a point of it, and begins another.
func (r *rig) killedAt(point string, spec controlplane.Spec) {
	r.t.Helper()
	plane := r.Plane
	there := make(chan struct{})
	var once sync.Once
	plane.reached = func(at string) {
		if at == point {
			once.Do(func() { close(there) })
			<-plane.ctx.Done()
		}
	}
	r.apply(spec)
	select {
	case <-there:
	case <-time.After(2 * time.Minute):
		r.t.Fatalf("%s is never reached: %+v", point, r.Status(spec.ID))
	}
	r.stop()
	r.begin()
	r.apply(spec)
}

// TestKilledInTheMiddle ends the Plane at every step of a swap.
func TestKilledInTheMiddle(t *testing.T) {
	r := newRig(t)
	spec := r.spec("a-killed")
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	l := newLoad(r, spec)
	slot := controlplane.FirstSlot
	for _, point := range []string{"begin", "started", "ready", "written", "led"} {
		spec.FormerIssuers = []string{"https://" + point + ".test"}
		r.killedAt(point, spec)
		status := r.until(spec.ID, "ready after "+point, ready)
		slot = slot.Other()
		r.onlyOne(spec.ID, slot)
		if !strings.Contains(strings.Join(r.readRunning(spec.ID).Launched[slot.Program()].Args, " "), point) || status.Refused != "" {
			t.Errorf("%s: %+v", point, status)
		}
	}
	l.end()
	// And at the worst moment it is taken back.
	taken := spec
	taken.FormerIssuers = []string{"https://taken.test"}
	r.killedAt("ready", taken)
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	r.onlyOne(spec.ID, slot)
	if err := r.Remove(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if left, err := filepath.Glob(filepath.Join(r.RunDir, "controlplanes", "*")); err != nil || len(left) > 0 {
		t.Errorf("records left: %v, %v", left, err)
	}
}

// TestStopsAndGoesInTheMiddle stops and removes a control plane whose API server
// is being changed.
func TestStopsAndGoesInTheMiddle(t *testing.T) {
	r := newRig(t)
	spec := r.spec("a-middle")
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	spec.FormerIssuers = []string{"https://one.test"}
	r.apply(spec)
	spec.Stopped = true
	r.apply(spec)
	if pids, err := cgroup.Procs(r.group(spec.ID)); len(pids) > 0 || err != nil {
		t.Errorf("still there: %v, %v", pids, err)
	}
	spec.Stopped = false
	r.apply(spec)
	r.until(spec.ID, "ready", ready)
	r.onlyOne(spec.ID, controlplane.FirstSlot)
	spec.FormerIssuers = []string{"https://two.test"}
	r.apply(spec)
	if err := r.Remove(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.Plane.dir(spec.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory: %v", err)
	}
}
