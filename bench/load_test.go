// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	readers  = 32
	reads    = 10_000
	pace     = 2000 // reads a second
	noops    = 200
	clusters = 20
)

// benchReads loads the front door of an instance with one cluster.
func benchReads(t *testing.T, r *report, o *outsider) {
	if _, err := o.create("read"); err != nil {
		r.problem(err)
		return
	}
	address := o.address(o.clusterPath("read"))
	var rates, full, paced []float64
	for i := range runs {
		rate, latencies, err := o.load(load{http.MethodGet, address, nil, readers, reads, 0})
		if err != nil {
			r.problem(fmt.Errorf("reads: %w", err))
			return
		}
		_, calm, err := o.load(load{http.MethodGet, address, nil, readers, reads, pace})
		if err != nil {
			r.problem(fmt.Errorf("reads: %w", err))
			return
		}
		rates, full, paced = append(rates, rate), append(full, Percentile(latencies, 99)), append(paced, Percentile(calm, 99))
		say("reads %d: %.0f /s with p99 %.1f ms; at %d /s p50 %.1f ms, p99 %.1f ms", i+1, rate, full[i], pace, Median(calm), paced[i])
	}
	beside := fmt.Sprintf("%d connections, TLS, client on the same cores", readers)
	r.add(NewFigure("ARM reads of a cluster, as many as go", "/s", rates).Against(AtLeast, pace).With(beside, ""))
	r.add(NewFigure("their p99 at 2,000 /s", "ms", paced).Against(AtMost, 20).With("", "from when each was due to be sent"))
	r.add(NewFigure("their p99 when as many go as can", "ms", full).With("both cores busy", ""))

	body, err := json.Marshal(oneNode("read"))
	if err != nil {
		t.Fatal(err)
	}
	var tails []float64
	for i := range runs {
		_, latencies, err := o.load(load{http.MethodPut, address, body, 1, noops, 0})
		if err != nil {
			r.problem(fmt.Errorf("no-op PUT: %w", err))
			return
		}
		tails = append(tails, Percentile(latencies, 99))
		say("no-op PUTs %d: p50 %.1f ms, p99 %.1f ms", i+1, Median(latencies), Percentile(latencies, 99))
	}
	r.add(NewFigure("no-op PUT of a cluster, p99", "ms", tails).Against(AtMost, 50))
	if _, err := o.remove("read"); err != nil {
		r.problem(err)
	}
}

// load is count requests over as many connections as there are workers; rate
// requests a second, or as many as go when it is 0.
type load struct {
	method, address string
	body            []byte
	workers, count  int
	rate            int
}

// load sends requests and returns the rate and each one's milliseconds, counted
// from when it was due. Each answer is read and must show a cluster that has Succeeded.
func (o *outsider) load(l load) (float64, []float64, error) {
	o.signIn()
	latencies := make([]float64, l.count)
	failed := make(chan error, l.workers)
	var next atomic.Int64
	var group sync.WaitGroup
	begin := time.Now()
	for range l.workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < l.count; i = int(next.Add(1)) - 1 {
				due := time.Now()
				if l.rate > 0 {
					due = begin.Add(time.Duration(i) * time.Second / time.Duration(l.rate))
					time.Sleep(time.Until(due))
				}
				if err := o.one(l.method, l.address, l.body); err != nil {
					failed <- err
					return
				}
				latencies[i] = time.Since(due).Seconds() * 1000
			}
		})
	}
	group.Wait()
	took := time.Since(begin).Seconds()
	close(failed)
	var all []error
	for err := range failed {
		all = append(all, err)
	}
	return float64(l.count) / took, latencies, errors.Join(all...)
}

func (o *outsider) one(method, address string, body []byte) error {
	req, err := o.request(o.t.Context(), method, address, body)
	if err != nil {
		return err
	}
	resp, err := o.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !bytes.Contains(answer, []byte(`"provisioningState":"Succeeded"`)) {
		return fmt.Errorf("%s %s", resp.Status, answer)
	}
	return nil
}

// benchMany makes twenty clusters that all stay, and asks each one.
func benchMany(r *report, o *outsider) {
	var took []float64
	name := func(i int) string { return "many" + strconv.Itoa(i) }
	for i := range clusters {
		seconds, err := o.create(name(i))
		if err != nil {
			r.problem(fmt.Errorf("cluster %d of %d: %w", i+1, clusters, err))
			break
		}
		took = append(took, seconds)
		say("cluster %d of %d: %.2f s", i+1, clusters, seconds)
	}
	answering := 0
	for i := range took {
		if err := o.verify(name(i), 1); err != nil {
			r.problem(err)
			continue
		}
		answering++
	}
	r.add(NewFigure("one-node clusters at once, each answering", "", []float64{float64(answering)}).Against(AtLeast, clusters))
	if len(took) == clusters {
		r.add(NewFigure("time for the first of them", "s", took[:1]).With("", fmt.Sprintf("all, in s: %.2f", took)))
		r.add(NewFigure("time for the 20th", "s", took[clusters-1:]).Against(AtMost, 1.5*took[0]).With(fmt.Sprintf("%.2f × the first's", took[clusters-1]/took[0]), ""))
	}
	time.Sleep(20 * time.Second)
	r.add(NewFigure("CPU that they take while idle", "cores", idleCPU()).With(fmt.Sprintf("of %d", r.Machine.Cores), ""))
	var sum float64
	for _, p := range Processes(instanceName) {
		sum += p.PSS
	}
	r.add(NewFigure("memory of them and the service, pods included, PSS", "MiB", []float64{sum}))
	for i := range clusters {
		if _, err := o.remove(name(i)); err != nil && i < len(took) {
			r.problem(err)
		}
	}
}

// idleCPU takes five looks of five seconds at how many cores the instance keeps busy.
func idleCPU() []float64 {
	used := func() map[int]float64 {
		seconds := map[int]float64{}
		for _, p := range Processes(instanceName) {
			seconds[p.PID] = p.CPU
		}
		return seconds
	}
	var samples []float64
	for range runs {
		before, begin := used(), time.Now()
		time.Sleep(5 * time.Second)
		took := time.Since(begin).Seconds()
		var busy float64
		for pid, seconds := range used() {
			busy += seconds - before[pid]
		}
		samples = append(samples, busy/took)
	}
	return samples
}

func firstArgument(line string) string {
	fields := strings.Fields(line)
	if len(fields) < 2 {
		return ""
	}
	return fields[1]
}
