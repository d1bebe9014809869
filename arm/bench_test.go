// SPDX-License-Identifier: Apache-2.0

package arm

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"bastide.dev/store/cache"
	"bastide.dev/store/memory"
)

// benchmark sends a request over TLS from parallel clients, and reports the 99th percentile.
func benchmark(b *testing.B, request func(base string) (*http.Request, error)) {
	t := &testing.T{}
	s := cache.New(memory.New(0), nil)
	go func() { _ = s.Run(b.Context()) }() // ends with the benchmark's context
	f := frontOver(t, s)
	f.do("PUT", rg+core, `{"location":"eastus"}`)
	for i := range 50 {
		f.do("PUT", fmt.Sprintf("%s/t%d%s", things, i, v), `{"location":"eastus","tags":{"a":"b"},"properties":{"size":3,"parts":[{"name":"x"},{"name":"y"}]}}`)
	}
	server := httptest.NewTLSServer(f.h)
	defer server.Close()
	client := server.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	var mu sync.Mutex // guards took
	var took []time.Duration
	b.SetParallelism(8)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(p *testing.PB) {
		var own []time.Duration
		for p.Next() {
			r, err := request(server.URL)
			if err != nil {
				b.Error(err)
				return
			}
			r.Header.Set("Authorization", "Bearer owner")
			start := time.Now()
			answer, err := client.Do(r)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, answer.Body) // a broken read shows as a broken next request
			_ = answer.Body.Close()
			own = append(own, time.Since(start))
			if answer.StatusCode != http.StatusOK {
				b.Errorf("status %d", answer.StatusCode)
				return
			}
		}
		mu.Lock()
		defer mu.Unlock()
		took = append(took, own...)
	})
	b.StopTimer()
	slices.Sort(took)
	if len(took) > 0 {
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
		b.ReportMetric(float64(len(took))/b.Elapsed().Seconds(), "requests/s")
	}
}

func BenchmarkGet(b *testing.B) {
	benchmark(b, func(base string) (*http.Request, error) { return http.NewRequest("GET", base+things+"/t7"+v, nil) })
}

func BenchmarkList(b *testing.B) {
	benchmark(b, func(base string) (*http.Request, error) { return http.NewRequest("GET", base+things+v, nil) })
}
