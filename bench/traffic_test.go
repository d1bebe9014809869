// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"time"
)

const (
	rounds      = 8 // each without rules and with them
	roundTrips  = 3_000
	connections = 500
	streamPort  = 5201
	echoPort    = 5202
	// What stands in the way.
	mostRules    = 1_000
	manyPolicies = 500
)

// path is a way that traffic takes, and what it reaches without rules and with.
type path struct {
	name   string
	from   string // network namespace
	to     netip.Addr
	rates  [2][]float64 // Gbit/s
	trips  [2][]float64 // p99 of round trips, µs
	starts [2][]float64 // p99 of new connections, µs
}

// benchTraffic shows what traffic pays for a thousand rules and five hundred
// policies, none of which is about it.
func (s *scene) benchTraffic() (err error) {
	stop, err := s.serveTraffic()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	front, err := s.expose("traffic", "far", true, map[string]int{"web": webPort, "stream": streamPort, "echo": echoPort})
	if err != nil {
		return err
	}
	if err := reach(s.terminal, netip.AddrPortFrom(front, 80)); err != nil {
		return err
	}
	if err := s.benchGroup("NSG rule", netip.AddrPortFrom(front, 80)); err != nil {
		return err
	}
	pod, err := netip.ParseAddr(s.far.ip)
	if err != nil {
		return err
	}
	paths := []*path{{name: "pod to pod across nodes", from: s.near.namespace, to: pod}, {name: "Internet to load balancer to pod", from: s.terminal, to: front}}
	for i := range rounds {
		// The one that came last comes first: so neither always has the other before it.
		for _, with := range [][]int{{0, 1}, {1, 0}}[i%2] {
			if err := s.rules(with == 1); err != nil {
				return err
			}
			for _, p := range paths {
				if err := p.measure(with); err != nil {
					return fmt.Errorf("%s: %w", p.name, err)
				}
				say("traffic %d, %s, with rules: %v: %.2f Gbit/s, p99 of round trips %.0f µs, of connecting %.0f µs",
					i+1, p.name, with == 1, p.rates[with][i], p.trips[with][i], p.starts[with][i])
			}
		}
	}
	for _, p := range paths {
		p.report(s.r)
	}
	return errors.Join(s.rules(false), s.hide("traffic"))
}

// report adds a path's figures: the medians of the rounds' ratios.
func (p *path) report(r *report) {
	ratios := func(samples [2][]float64) []float64 {
		var all []float64
		for i := range samples[1] {
			all = append(all, samples[1][i]/samples[0][i])
		}
		return all
	}
	beside := func(samples [2][]float64, unit string) string {
		return fmt.Sprintf("%s, without %s", number(Median(samples[1]), unit), number(Median(samples[0]), unit))
	}
	const load = "with 1,000 NSG rules and 500 policies ÷ without"
	r.add(NewFigure(p.name+": throughput "+load, "×", ratios(p.rates)).Against(AtLeast, 0.95).With(beside(p.rates, "Gbit/s"), ""))
	r.add(NewFigure(p.name+": p99 of round trips "+load, "×", ratios(p.trips)).Against(AtMost, 1.1).With(beside(p.trips, "µs"), ""))
	r.add(NewFigure(p.name+": p99 of new connections "+load, "×", ratios(p.starts)).With(beside(p.starts, "µs"), ""))
}

// serveTraffic starts what answers in the far pod.
func (s *scene) serveTraffic() (stop func() error, err error) {
	server := exec.Command("iperf3", "-s", "-p", fmt.Sprint(streamPort))
	var echo net.Listener
	err = inside(s.far.namespace, func() error {
		if err := server.Start(); err != nil {
			return fmt.Errorf("iperf3 (make deps): %w", err)
		}
		var err error
		echo, err = net.Listen("tcp", fmt.Sprintf(":%d", echoPort))
		return err
	})
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the client
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return func() error {
		err := errors.Join(echo.Close(), server.Process.Kill())
		<-done
		_ = server.Wait() // killed
		return err
	}, nil
}

// measure takes a path's figures once; with is 1 when the rules are there.
func (p *path) measure(with int) error {
	rate, err := p.stream()
	if err != nil {
		return err
	}
	var trips, starts []float64
	err = inside(p.from, func() error {
		var err error
		if trips, err = p.pingPong(); err != nil {
			return err
		}
		starts, err = p.connect()
		return err
	})
	if err != nil {
		return err
	}
	p.rates[with] = append(p.rates[with], rate)
	p.trips[with] = append(p.trips[with], Percentile(trips, 99))
	p.starts[with] = append(p.starts[with], Percentile(starts, 99))
	return nil
}

// stream is the rate of one TCP connection, in Gbit/s.
func (p *path) stream() (float64, error) {
	var out bytes.Buffer
	cmd := exec.Command("iperf3", "-c", p.to.String(), "-p", fmt.Sprint(streamPort), "-t", "1", "-J")
	cmd.Stdout = &out
	err := inside(p.from, cmd.Run)
	var result struct {
		Error string
		End   struct {
			Received struct {
				Rate float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if unread := json.Unmarshal(out.Bytes(), &result); unread != nil || err != nil || result.End.Received.Rate == 0 {
		return 0, fmt.Errorf("iperf3: %w %s", errors.Join(err, unread), result.Error)
	}
	return result.End.Received.Rate / 1e9, nil
}

// pingPong sends a request and awaits its answer, one after another, and
// returns each one's microseconds.
func (p *path) pingPong() ([]float64, error) {
	c, err := net.DialTimeout("tcp", netip.AddrPortFrom(p.to, echoPort).String(), 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	buffer := make([]byte, 64)
	var took []float64
	for range roundTrips {
		begin := time.Now()
		if _, err := c.Write(buffer); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, buffer); err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin).Seconds()*1e6)
	}
	return took, nil
}

// connect makes connections, one after another, and returns each one's
// microseconds: their first packets are those that rules are asked about.
func (p *path) connect() ([]float64, error) {
	var took []float64
	for range connections {
		begin := time.Now()
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(p.to, echoPort).String(), 5*time.Second)
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(begin).Seconds()*1e6)
		if err := errors.Join(c.(*net.TCPConn).SetLinger(0), c.Close()); err != nil {
			return nil, err
		}
	}
	return took, nil
}

// rules puts a thousand rules in the cluster's security group, beside those that
// Services have, and five hundred policies around the pods; or takes them away.
func (s *scene) rules(with bool) error {
	if with == s.ruled {
		return nil
	}
	s.ruled = with
	var group struct {
		Location   string `json:"location"`
		Properties struct {
			Rules []map[string]any `json:"securityRules"`
		} `json:"properties"`
	}
	address := s.base() + s.nsg + "?api-version=" + networkVersion
	if err := s.read(address, &group); err != nil {
		return err
	}
	var kept []map[string]any
	for _, r := range group.Properties.Rules {
		if name, _ := r["name"].(string); len(name) < 5 || name[:5] != "bench" {
			kept = append(kept, map[string]any{"name": name, "properties": r["properties"]})
		}
	}
	group.Properties.Rules = kept
	for i := 0; with && len(group.Properties.Rules) < mostRules; i++ {
		group.Properties.Rules = append(group.Properties.Rules, foreignRule(i))
	}
	if _, err := s.changeAt(http.MethodPut, address, group); err != nil {
		return err
	}
	if !with {
		if err := s.delete(policiesPath); err != nil {
			return err
		}
	} else if err := parallel(manyPolicies, func(i int) error { return s.post(policiesPath, foreignPolicy(i)) }); err != nil {
		return err
	}
	time.Sleep(500 * time.Millisecond) // the agents and the controllers come to rest
	return nil
}

// foreignRule is a rule about others: the first 390 are asked before those of
// Services.
func foreignRule(i int) map[string]any {
	direction, priority := "Inbound", 100+i
	if i >= 390 {
		direction, priority = map[int]string{0: "Inbound", 1: "Outbound"}[i%2], 1000+i
	}
	return map[string]any{"name": fmt.Sprintf("bench%d", i), "properties": map[string]any{"priority": priority, "direction": direction,
		"access": map[int]string{0: "Allow", 1: "Deny"}[i/2%2], "protocol": "Tcp", "sourceAddressPrefix": fmt.Sprintf("20.%d.%d.0/24", i/200, i%200),
		"sourcePortRange": "*", "destinationAddressPrefix": "*", "destinationPortRange": fmt.Sprintf("%d-%d", 1000+10*i, 1005+10*i)}}
}

const policiesPath = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"

// foreignPolicy selects the pods and allows something else; the last allows all.
func foreignPolicy(i int) map[string]any {
	port := []any{map[string]any{"protocol": "TCP", "port": 10_000 + i}}
	peer := []any{map[string]any{"ipBlock": map[string]any{"cidr": fmt.Sprintf("20.%d.%d.0/24", i/200, i%200)}}}
	if i%2 == 1 {
		peer = []any{map[string]any{"podSelector": map[string]any{"matchLabels": map[string]any{"app": fmt.Sprintf("app%d", i)}}}}
	}
	in, out := map[string]any{"from": peer, "ports": port}, map[string]any{"to": peer, "ports": port}
	if i == manyPolicies-1 {
		in, out = map[string]any{}, map[string]any{}
	}
	return policy(fmt.Sprintf("foreign%d", i), map[string]any{}, []string{"Ingress", "Egress"}, []any{in}, []any{out})
}

func policy(name string, pods map[string]any, types []string, in, out []any) map[string]any {
	return map[string]any{"metadata": map[string]any{"name": name}, "spec": map[string]any{"podSelector": pods, "policyTypes": types, "ingress": in, "egress": out}}
}
