// SPDX-License-Identifier: Apache-2.0

package linux

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"bastide.dev/dataplane"
)

const (
	dnsPort = 53
	// nameTTL is that of names without one. It is short: what a name stands for
	// changes with one Apply.
	nameTTL = 5
	// maxForwards bounds the questions of one network that wait for the
	// machine's resolvers, so that no network uses up the process's sockets.
	maxForwards = 256
)

// zone is a set of names ready to be looked up.
type zone struct {
	exact map[string][]named
	wild  map[string][]named // by the part after "*."
}

// named is an address that a name stands for, and for how many seconds.
type named struct {
	netip.Addr
	ttl uint32
}

func newZone(names []dataplane.Name) *zone {
	z := &zone{exact: map[string][]named{}, wild: map[string][]named{}}
	for _, n := range names {
		name, into := strings.ToLower(n.Name), z.exact
		if rest, wild := strings.CutPrefix(name, "*."); wild {
			name, into = rest, z.wild
		}
		for _, a := range n.Addresses {
			into[name] = append(into[name], named{a, cmp.Or(n.TTL, nameTTL)})
		}
	}
	return z
}

// lookup finds a name: itself first, then the nearest wildcard above it.
func (z *zone) lookup(name string) ([]named, bool) {
	if z == nil {
		return nil, false
	}
	if found, ok := z.exact[name]; ok {
		return found, true
	}
	for {
		_, rest, more := strings.Cut(name, ".")
		if !more {
			return nil, false
		}
		if found, ok := z.wild[rest]; ok {
			return found, true
		}
		name = rest
	}
}

// edgeNames are the instance's names, shared by all name servers.
type edgeNames struct{ zone atomic.Pointer[zone] }

func (e *edgeNames) set(names []dataplane.Name) { e.zone.Store(newZone(names)) }

// nameServer answers DNS questions in one virtual network: from the network's
// names, from the edge's, else through the machine's own resolvers, which it
// asks from the machine's namespace.
type nameServer struct {
	own      atomic.Pointer[zone]
	edge     *edgeNames
	upstream *upstreams
	waiting  chan struct{} // a token per question under way
	servers  []*dns.Server
	ctx      context.Context // ends questions under way when the server closes
	cancel   context.CancelFunc
	ended    sync.WaitGroup
}

// startNames listens in a router's namespace.
func (p *Plane) startNames(ns *os.File) (*nameServer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &nameServer{edge: &p.names, upstream: p.upstream, waiting: make(chan struct{}, maxForwards), ctx: ctx, cancel: cancel}
	at := net.JoinHostPort(dataplane.WireServer.String(), strconv.Itoa(dnsPort))
	var packets net.PacketConn
	var listener net.Listener
	err := within(ns, func() (err error) {
		if packets, err = net.ListenPacket("udp4", at); err != nil {
			return err
		}
		if listener, err = net.Listen("tcp4", at); err != nil {
			return errors.Join(err, packets.Close())
		}
		return nil
	})
	if err != nil {
		cancel()
		return nil, err
	}
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: listener, Handler: s}} {
		if err := s.start(server); err != nil {
			return nil, errors.Join(err, s.close(), packets.Close(), listener.Close())
		}
	}
	return s, nil
}

// start runs a server and returns when it answers; only then can it be shut down.
func (s *nameServer) start(server *dns.Server) error {
	started, ended := make(chan struct{}), make(chan error, 1)
	server.NotifyStartedFunc = func() { close(started) }
	s.ended.Go(func() { ended <- server.ActivateAndServe() })
	select {
	case err := <-ended:
		return fmt.Errorf("serve names: %w", err)
	case <-started:
		s.servers = append(s.servers, server)
		return nil
	}
}

func (s *nameServer) set(names []dataplane.Name) { s.own.Store(newZone(names)) }

func (s *nameServer) close() error {
	s.cancel()
	var failed []error
	for _, server := range s.servers {
		if err := server.Shutdown(); err != nil {
			failed = append(failed, fmt.Errorf("name server: %w", err))
		}
	}
	s.ended.Wait()
	return errors.Join(failed...)
}

// ServeDNS answers one question.
func (s *nameServer) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	answer := s.answer(question, w.RemoteAddr().Network())
	// A client that is gone needs no answer, and nobody could do anything about it.
	_ = w.WriteMsg(answer)
}

func (s *nameServer) answer(question *dns.Msg, network string) *dns.Msg {
	if question.Opcode != dns.OpcodeQuery || len(question.Question) != 1 {
		return new(dns.Msg).SetRcode(question, dns.RcodeNotImplemented)
	}
	q := question.Question[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if q.Qclass == dns.ClassINET {
		for _, z := range []*zone{s.own.Load(), s.edge.zone.Load()} {
			if addresses, ok := z.lookup(name); ok {
				return fit(records(question, addresses), question, network)
			}
		}
	}
	return fit(s.forward(question, network), question, network)
}

// records answers with the addresses of the family that is asked for; a name
// without one has no data, which isn't the same as no such name.
func records(question *dns.Msg, addresses []named) *dns.Msg {
	answer := new(dns.Msg).SetReply(question)
	answer.Authoritative, answer.RecursionAvailable = true, true
	q := question.Question[0]
	header := dns.RR_Header{Name: q.Name, Class: dns.ClassINET}
	for _, a := range addresses {
		header.Ttl = a.ttl
		switch {
		case a.Is4() && (q.Qtype == dns.TypeA || q.Qtype == dns.TypeANY):
			header.Rrtype = dns.TypeA
			answer.Answer = append(answer.Answer, &dns.A{Hdr: header, A: a.AsSlice()})
		case a.Is6() && (q.Qtype == dns.TypeAAAA || q.Qtype == dns.TypeANY):
			header.Rrtype = dns.TypeAAAA
			answer.Answer = append(answer.Answer, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
	return answer
}

// fit cuts an answer to what the client can take.
func fit(answer, question *dns.Msg, network string) *dns.Msg {
	size := dns.MaxMsgSize
	if network == "udp" {
		size = dns.MinMsgSize
		if opt := question.IsEdns0(); opt != nil {
			size = max(size, int(opt.UDPSize()))
		}
	}
	answer.Truncate(size)
	return answer
}

// forward asks the machine's resolvers, one after another.
func (s *nameServer) forward(question *dns.Msg, network string) *dns.Msg {
	failure := new(dns.Msg).SetRcode(question, dns.RcodeServerFailure)
	select {
	case s.waiting <- struct{}{}:
		defer func() { <-s.waiting }()
	default:
		return failure
	}
	servers, err := s.upstream.list()
	if err != nil {
		return failure
	}
	for _, server := range servers {
		answer, err := exchange(s.ctx, question, server, network)
		if err == nil && answer.Rcode != dns.RcodeServerFailure && answer.Rcode != dns.RcodeRefused {
			answer.Id = question.Id
			return answer
		}
	}
	return failure
}

// upstreamTimeout bounds one question to one resolver: clients ask again after 5 s.
const upstreamTimeout = 2 * time.Second

func exchange(ctx context.Context, question *dns.Msg, server, network string) (*dns.Msg, error) {
	copied := question.Copy()
	copied.Id = dns.Id()
	client := &dns.Client{Net: network, Timeout: upstreamTimeout}
	answer, _, err := client.ExchangeContext(ctx, copied, server)
	if err == nil && answer.Truncated && network == "udp" {
		client.Net = "tcp"
		if whole, _, err := client.ExchangeContext(ctx, copied, server); err == nil {
			return whole, nil
		}
	}
	return answer, err
}

// upstreams are the machine's resolvers, read again when their file changes.
type upstreams struct {
	path string

	mu      sync.Mutex // guards the rest
	read    time.Time
	servers []string
}

func (u *upstreams) list() ([]string, error) {
	info, err := os.Stat(u.path)
	if err != nil {
		return nil, fmt.Errorf("resolvers: %w", err)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.read.Equal(info.ModTime()) {
		return u.servers, nil
	}
	config, err := dns.ClientConfigFromFile(u.path)
	if err != nil {
		return nil, fmt.Errorf("resolvers: %w", err)
	}
	u.read, u.servers = info.ModTime(), nil
	for _, server := range config.Servers {
		u.servers = append(u.servers, net.JoinHostPort(server, config.Port))
	}
	return u.servers, nil
}
