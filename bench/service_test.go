// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bench

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const servicesPath = "/api/v1/namespaces/default/services"

func addressOf(name string, port uint16) (netip.AddrPort, error) {
	found, err := net.LookupHost(name)
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, err := netip.ParseAddr(found[0])
	return netip.AddrPortFrom(a, port), err
}

// expose makes a Service of type LoadBalancer before a pod, and returns its address.
func (s *scene) expose(name, app string, local bool, ports map[string]int) (netip.Addr, error) {
	policy := map[bool]string{true: "Local", false: "Cluster"}[local]
	var list []any
	for name, port := range ports {
		number := port
		if port == webPort {
			number = 80
		}
		list = append(list, map[string]any{"name": name, "port": number, "targetPort": port})
	}
	err := s.post(servicesPath, map[string]any{"metadata": map[string]any{"name": name},
		"spec": map[string]any{"type": "LoadBalancer", "externalTrafficPolicy": policy, "selector": map[string]any{"app": app}, "ports": list}})
	if err != nil {
		return netip.Addr{}, err
	}
	var state struct {
		Status struct {
			LoadBalancer struct{ Ingress []struct{ IP string } }
		}
	}
	err = s.await(servicesPath+"/"+name, &state, func() bool { return len(state.Status.LoadBalancer.Ingress) > 0 })
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(state.Status.LoadBalancer.Ingress[0].IP)
}

// hide deletes a Service and waits until it is gone.
func (s *scene) hide(name string) error {
	if err := s.delete(servicesPath + "/" + name); err != nil {
		return err
	}
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(5 * time.Millisecond) {
		if _, err := s.kube.send(http.MethodGet, servicesPath+"/"+name, nil); err != nil && strings.Contains(err.Error(), "404") {
			return nil
		}
	}
	return fmt.Errorf("the Service %s isn't gone after a minute", name)
}

// reach connects from a namespace as soon as that is possible, and asks for a
// page over the first connection that stands.
func reach(namespace string, target netip.AddrPort) error {
	return inside(namespace, func() error {
		p := &prober{target: &unix.SockaddrInet4{Addr: target.Addr().As4(), Port: int(target.Port())}, since: time.Now(), keep: true}
		defer p.close()
		for p.kept == nil {
			if err := p.step(); err != nil {
				return err
			}
			if time.Since(p.since) > probeLimit {
				return fmt.Errorf("%s doesn't answer after %s", target, probeLimit)
			}
		}
		defer p.kept.Close()
		return get(p.kept)
	})
}

// get asks for a page over a connection.
func get(c *os.File) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.Contains(line, " 200 ") {
		return fmt.Errorf("%s answered %q", c.Name(), line)
	}
	return nil
}

// benchServices makes Services and waits for their pages, and removes them.
func (s *scene) benchServices() error {
	var pages, addresses, gone []float64
	for i := range services {
		name := fmt.Sprintf("page%d", i)
		begin := time.Now()
		address, err := s.expose(name, "near", false, map[string]int{"web": webPort})
		if err != nil {
			return err
		}
		addresses = append(addresses, time.Since(begin).Seconds())
		if err := reach(s.terminal, netip.AddrPortFrom(address, 80)); err != nil {
			return err
		}
		pages = append(pages, time.Since(begin).Seconds())
		begin = time.Now()
		if err := s.hide(name); err != nil {
			return err
		}
		gone = append(gone, time.Since(begin).Seconds())
		say("service %d: address after %.2f s, page after %.2f s; deleted in %.2f s", i+1, addresses[i], pages[i], gone[i])
	}
	s.r.add(NewFigure("Service type LoadBalancer, created to HTTP answer from the Internet", "s", pages).Against(AtMost, 1.5).
		With(fmt.Sprintf("address in its status after %.2f s, deletion %.2f s", Median(addresses), Median(gone)), ""))
	return nil
}
