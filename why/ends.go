// SPDX-License-Identifier: Apache-2.0

package why

import (
	"net/netip"
	"strconv"
	"strings"

	"bastide.dev/fault"
	"bastide.dev/ruleset"
)

// end is one end of a question, parsed.
type end struct {
	kind      string // pod, service, vm, node, terminal, internet, apiserver, address, name
	namespace string // of pods and Services; the resource group of others, when it was said
	name      string
	cluster   string
	address   netip.Addr
	port      string // a number, or a Service port's name
}

const (
	kindPod       = "pod"
	kindService   = "service"
	kindVM        = "vm"
	kindNode      = "node"
	kindTerminal  = "terminal"
	kindInternet  = "internet"
	kindAPIServer = "apiserver"
	kindAddress   = "address"
	kindName      = "name"
)

// someClient is where "internet" is, unless an address is given: any public
// address that isn't one of an instance's.
var someClient = netip.AddrFrom4([4]byte{8, 8, 8, 8})

func wrongEnd(target, text string) *fault.Error {
	return fault.New(fault.Invalid, "InvalidEnd", "%q isn't an end of a connection: use pod/NAMESPACE/NAME, service/NAMESPACE/NAME, node/NAME, vm/NAME, "+
		"terminal/NAME, apiserver/CLUSTER, internet, an address or a DNS name, with @CLUSTER behind when there are several clusters.", text).At(target)
}

// parseEnd reads an end; target says which, in errors.
func parseEnd(target, text string) (end, error) {
	text = strings.TrimSpace(text)
	if e, ok := plainAddress(text); ok {
		return e, nil
	}
	kind, rest, named := strings.Cut(text, "/")
	switch {
	case text == kindInternet || strings.HasPrefix(text, kindInternet+":"):
		return parseInternet(target, text)
	case !named:
		return parseName(target, text)
	}
	rest, cluster, port := cutTail(rest)
	e := end{kind: kind, cluster: cluster, port: port}
	parts := strings.Split(rest, "/")
	if len(parts) == 1 && kind != kindPod && kind != kindService {
		parts = []string{"", parts[0]}
	}
	if len(parts) != 2 || parts[1] == "" {
		return end{}, wrongEnd(target, text)
	}
	e.namespace, e.name = parts[0], parts[1]
	switch kind {
	case "svc":
		e.kind = kindService
	case kindPod, kindService, kindVM, kindNode, kindTerminal, kindAPIServer:
	default:
		return end{}, wrongEnd(target, text)
	}
	if (e.kind == kindPod || e.kind == kindService) && e.namespace == "" {
		return end{}, wrongEnd(target, text)
	}
	return e, nil
}

// plainAddress reads an address, with or without a port.
func plainAddress(text string) (end, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		return end{kind: kindAddress, address: a.Unmap()}, true
	}
	if ap, err := netip.ParseAddrPort(text); err == nil {
		return end{kind: kindAddress, address: ap.Addr().Unmap(), port: strconv.Itoa(int(ap.Port()))}, true
	}
	return end{}, false
}

// parseInternet reads internet, internet:ADDRESS, internet:PORT and internet:ADDRESS:PORT.
func parseInternet(target, text string) (end, error) {
	_, rest, more := strings.Cut(text, ":")
	e := end{kind: kindInternet, address: someClient}
	if !more {
		return e, nil
	}
	if _, err := strconv.ParseUint(rest, 10, 16); err == nil {
		e.port = rest
		return e, nil
	}
	given, ok := plainAddress(rest)
	if !ok {
		return end{}, wrongEnd(target, text)
	}
	e.address, e.port = given.address, given.port
	return e, nil
}

func parseName(target, text string) (end, error) {
	name, cluster, port := cutTail(text)
	if !strings.Contains(name, ".") || cluster != "" || strings.ContainsAny(name, " \t@:") {
		return end{}, wrongEnd(target, text)
	}
	return end{kind: kindName, name: name, port: port}, nil
}

// cutTail takes :port and @cluster from the end, in either order.
func cutTail(text string) (rest, cluster, port string) {
	for {
		i := strings.LastIndexAny(text, ":@")
		switch {
		case i < 0:
			return text, cluster, port
		case text[i] == '@' && cluster == "":
			cluster = text[i+1:]
		case text[i] == ':' && port == "":
			port = text[i+1:]
		default:
			return text, cluster, port
		}
		text = text[:i]
	}
}

// protocolOf is a protocol's number; 0: not one that is known. TCP when empty.
func protocolOf(name string) uint8 {
	switch strings.ToUpper(name) {
	case "", "TCP":
		return ruleset.TCP
	case "UDP":
		return ruleset.UDP
	case "ICMP":
		return ruleset.ICMP
	case "SCTP":
		return ruleset.SCTP
	}
	return 0
}

func protocolName(n uint8) string {
	switch n {
	case ruleset.UDP:
		return "UDP"
	case ruleset.ICMP:
		return "ICMP"
	case ruleset.SCTP:
		return "SCTP"
	}
	return "TCP"
}
