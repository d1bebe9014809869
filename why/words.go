// SPDX-License-Identifier: Apache-2.0

package why

import "strings"

// reasons are the sentences for what the platform itself decides.
func reasons(rule string) string {
	return map[string]string{
		"platform/apiServer":              "an API server's packets to its own network pass without regard to security groups",
		"platform/dns":                    "every network has a name server at 168.63.129.16",
		"platform/frontDoor":              "the instance's own services can be reached",
		"platform/gateway":                "the subnet's router answers echo requests",
		"platform/invalid":                "the packet is part of no connection, and begins none",
		"platform/loop":                   "the packet goes round in circles",
		"platform/machine":                "of the machine itself only the front door's port 443 can be reached",
		"platform/metadata":               "every network has the metadata address 169.254.169.254, for its machines",
		"platform/podLinkLocalAccess":     "the cluster closes the metadata address to pods (networkProfile.podLinkLocalAccess is None)",
		"platform/noListener":             "nothing has that port of the public address: no load-balancing rule, no inbound NAT rule, no API server",
		"platform/noNetworkSecurityGroup": "an interface without a network security group is closed to the Internet",
		"platform/noOutbound":             "the sender has no way out to the Internet: no outbound rule, NAT gateway or public address of its own",
		"platform/notOwnSource":           "only an interface's own addresses leave to the Internet, and this source isn't one",
		"platform/notPublic":              "the address isn't one that can be reached from outside",
		"platform/privateDestination":     "the address is private, and no network that the sender is connected to has it",
		"platform/router":                 "a subnet's router offers nothing but names, the metadata address and echo",
		"platform/spoofedSource":          "the sender doesn't own the source address",
		"platform/unknownInterface":       "the packet comes from an interface that the network doesn't know",
		"platform/unroutedDestination":    "the address isn't one of this instance's public ones: it can't be reached from outside",
		"system":                          "nothing in the virtual network has the address",
		"unusedPublicAddress":             "nobody has that public address",
		"node/noPod":                      "the node gives out that address, and no pod has it now",
		"node/noListener":                 "the packet gets to the node, where nothing answers for that address",
		"node/noInterface":                "the node is in no virtual network now",
		"pod/notRunning":                  "the pod isn't running",
		"services/unallocatedAddress":     "no Service has that cluster address",
		"networkpolicy/unknown-pod":       "the node gave the address to no pod that it knows",
		"networkpolicy/invalid":           "the packet is part of no connection, and begins none",
		"networkpolicy/itself":            "a pod always reaches itself",
	}[rule]
}

// parts are what the ends of rules' names mean.
func parts(rule string) string {
	for ending, text := range map[string]string{
		"/authorizedIPRanges":       "the API server's authorised IP ranges don't have the source",
		"/forwardedTraffic":         "the peering doesn't let in what the other network forwards",
		"/noForwarding":             "the route leads to an interface that doesn't forward (IP forwarding is off)",
		"/noHealthyBackend":         "no back end of the load balancer is healthy: its probe finds none",
		"/notTransitive":            "peerings aren't transitive: they lead no further",
		"/virtualNetworkAccess":     "the peering doesn't allow access",
		"/noEndpoints":              "the Service has no endpoint that is ready",
		"/noSuchPort":               "the Service has no such port",
		"/loadBalancerSourceRanges": "the Service's loadBalancerSourceRanges don't have the source",
		"/internalTrafficPolicy":    "the Service's internalTrafficPolicy is Local, and the node has no endpoint",
		"/externalTrafficPolicy":    "the Service's externalTrafficPolicy is Local, and the node has no endpoint",
	} {
		if strings.HasSuffix(rule, ending) {
			return text + " (" + strings.TrimSuffix(rule, ending) + ")"
		}
	}
	return ""
}

// sentence says what a rule did.
func sentence(rule, what string, open bool) string {
	if open && rule == "" {
		return "Nothing on the way refuses it."
	}
	text := reasons(rule)
	if text == "" && !open {
		text = parts(rule)
	}
	kind, rest, _ := strings.Cut(rule, "/")
	switch {
	case text != "":
	case kind == "nsg":
		text = groupRule(rest, open)
	case kind == "networkpolicy":
		text = policyRule(rest, open)
	case kind == "clusternetworkpolicy":
		text = verb("rule "+rest+" of the cluster's network policies", open)
	case strings.Contains(rule, "routeTables/") && !open:
		text = "the route " + rule + " leads nowhere"
	case rule == "":
		text = what
	case open:
		text = rule + " leads there"
	default:
		text = strings.TrimSuffix(what, ".") + " (" + rule + ")"
	}
	if strings.HasPrefix(what, "no way back") && !open {
		text = "the answer doesn't find back: " + text
	}
	return strings.ToUpper(text[:min(1, len(text))]) + text[min(1, len(text)):] + "."
}

func verb(who string, open bool) string {
	if open {
		return who + " allows it"
	}
	return who + " denies it"
}

// groupRule is of "group/name/rule".
func groupRule(rest string, open bool) string {
	at := strings.LastIndex(rest, "/")
	if at < 0 {
		return verb("network security group "+rest, open)
	}
	return verb("rule "+rest[at+1:]+" of network security group "+rest[:at], open)
}

// policyRule is of "namespace/policy/direction/number", or of what isolates.
func policyRule(rest string, open bool) string {
	if before, after, ok := strings.Cut(rest, "/default-deny (isolated by "); ok {
		return "no rule allows it, and in namespace " + before + " the pod is isolated by " + strings.TrimSuffix(after, ")")
	}
	p := strings.Split(rest, "/")
	if len(p) == 4 {
		return verb("network policy "+p[0]+"/"+p[1]+" ("+p[2]+" rule "+p[3]+")", open)
	}
	return verb("network policy "+rest, open)
}
