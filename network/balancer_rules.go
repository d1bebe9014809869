// SPDX-License-Identifier: Apache-2.0

package network

import (
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/resource"
)

// Azure's bounds on rules.
const (
	lastFrontendPort = 65534
	lastPort         = 65535
	portsPerFrontend = 64000 // that outbound rules can give out
)

func (c *balancerCheck) rule(at string, e *armnetwork.LoadBalancingRule) {
	id, props := c.child(listRules, value(e.Name)), e.Properties
	frontend, ok := c.find(id, at+"frontendIPConfiguration", listFrontends, props.FrontendIPConfiguration, c.frontendNames)
	if props.BackendAddressPool != nil {
		c.find(id, at+"backendAddressPool", listPools, props.BackendAddressPool, c.poolNames)
	}
	if props.Probe != nil {
		c.find(id, at+"probe", listProbes, props.Probe, c.probeNames)
	}
	between(&c.findings, "LoadBalancingRuleInvalidIdleTimeout", at+"idleTimeoutInMinutes", props.IdleTimeoutInMinutes, 4, 100)
	c.ports(at, id, *props.Protocol, *props.FrontendPort, *props.BackendPort, *props.EnableFloatingIP)
	if !ok {
		return
	}
	if *props.Protocol == armnetwork.TransportProtocolAll && c.public(frontend) {
		c.bad("LoadBalancingRuleHAPortsRequireInternalFrontend", at+"protocol",
			"Load balancing rule %s with protocol All and port 0 (HA ports) needs an internal front end.", id)
	}
	c.alone(at+"frontendIPConfiguration", id, frontend)
	c.listen(at, listener{id.String(), frontend, *props.Protocol, *props.FrontendPort})
	if *props.DisableOutboundSnat {
		return
	}
	for _, outbound := range c.lb.OutboundRules {
		for _, named := range outbound.Properties.FrontendIPConfigurations {
			if sameID(named, props.FrontendIPConfiguration) {
				c.bad("LoadBalancingRuleMustDisableSNATSinceSameFrontendIPConfigurationIsReferencedByOutboundRule", at+"disableOutboundSnat",
					"Load balancing rule %s must disable SNAT since same frontend IP configuration %s is referenced by outbound rule %s.", id, subID(named), c.child(listOutbound, value(outbound.Name)))
			}
		}
	}
}

// ports checks a rule's ports by its protocol.
func (c *balancerCheck) ports(at string, id resource.ID, protocol armnetwork.TransportProtocol, front, back int32, floating bool) {
	switch protocol {
	case "":
		c.bad("InvalidRequestFormat", at+"protocol", "Rule %s needs a protocol: Tcp, Udp or All.", id)
	case armnetwork.TransportProtocolAll:
		if front != 0 || back != 0 {
			c.bad("LoadBalancingRuleProtocolAllMustHavePortZero", at+"frontendPort", "Rule %s with protocol All must have frontendPort and backendPort 0.", id)
		}
	default:
		between(&c.findings, "LoadBalancingRuleInvalidFrontendPort", at+"frontendPort", &front, 1, lastFrontendPort)
		between(&c.findings, "LoadBalancingRuleInvalidBackendPort", at+"backendPort", &back, 1, lastPort)
		if floating && front != back {
			c.bad("FloatingIPRequiresSameFrontendAndBackendPort", at+"backendPort",
				"Rule %s has floating IP enabled: packets keep their destination, so that backendPort %d must be frontendPort %d.", id, back, front)
		}
	}
}

// listen refuses a second rule for what one listens on.
func (c *balancerCheck) listen(at string, l listener) {
	for _, other := range c.used {
		all := l.protocol == armnetwork.TransportProtocolAll || other.protocol == armnetwork.TransportProtocolAll
		if l.frontend == other.frontend && (all || l.protocol == other.protocol && l.port == other.port) {
			c.bad("RulesUseSameFrontendPortProtocolAndIPConfig", at+"frontendPort",
				"Load balancing rules %s and %s use the same frontend IP configuration %s with protocol %s and port %d.", other.rule, l.rule, c.child(listFrontends, l.frontend), l.protocol, l.port)
		}
	}
	c.used = append(c.used, l)
}

// sharedBackends: a back end can't tell two rules apart whose packets arrive at the same address and port.
func (c *balancerCheck) sharedBackends() {
	type arrival struct {
		pool, frontend string
		protocol       armnetwork.TransportProtocol
		port           int32
		floating       bool
	}
	seen := map[arrival]resource.ID{}
	for i, e := range c.lb.LoadBalancingRules {
		id, props := c.child(listRules, value(e.Name)), e.Properties
		if props.BackendAddressPool == nil {
			continue
		}
		a := arrival{pool: keyOf(subID(props.BackendAddressPool)), protocol: *props.Protocol, port: *props.BackendPort, floating: *props.EnableFloatingIP}
		code, how := "RulesUseSameBackendPortProtocolAndPool", "disabled"
		if a.floating {
			a.frontend = keyOf(subID(props.FrontendIPConfiguration))
			code, how = "RulesUseSameBackendPortProtocolAndPoolAndFrontendIPWithFloatingIPEnabled", "enabled"
		}
		if other, found := seen[a]; found {
			c.bad(code, part(listRules, i)+".properties.backendPort",
				"Load balancing rules %s and %s with floating IP %s use the same protocol %s and backend port %d, and must not be used with the same backend address pool %s.",
				other, id, how, a.protocol, a.port, subID(props.BackendAddressPool))
		}
		seen[a] = id
	}
}

func (c *balancerCheck) probe(at string, e *armnetwork.Probe) {
	id, props := c.child(listProbes, value(e.Name)), e.Properties
	between(&c.findings, "ProbeInvalidPort", at+"port", props.Port, 1, lastPort)
	between(&c.findings, "ProbeInvalidInterval", at+"intervalInSeconds", props.IntervalInSeconds, 5, 2147483646)
	between(&c.findings, "ProbeInvalidNumberOfProbes", at+"numberOfProbes", props.NumberOfProbes, 1, 100)
	between(&c.findings, "ProbeInvalidThreshold", at+"probeThreshold", props.ProbeThreshold, 1, 100)
	path := value(props.RequestPath)
	switch {
	case *props.Protocol == "":
		c.bad("InvalidRequestFormat", at+"protocol", "Probe %s needs a protocol: Tcp, Http or Https.", id)
	case *props.Protocol == armnetwork.ProbeProtocolTCP && path != "":
		c.bad("ProbeRequestPathNotAllowed", at+"requestPath", "Probe %s with protocol Tcp can't have a request path.", id)
	case *props.Protocol != armnetwork.ProbeProtocolTCP && path == "":
		c.bad("ProbeRequestPathRequired", at+"requestPath", "Probe %s with protocol %s needs a request path.", id, *props.Protocol)
	}
}

func (c *balancerCheck) nat(at string, e *armnetwork.InboundNatRule) {
	id, props := c.child(listNAT, value(e.Name)), e.Properties
	frontend, ok := c.find(id, at+"frontendIPConfiguration", listFrontends, props.FrontendIPConfiguration, c.frontendNames)
	between(&c.findings, "LoadBalancingRuleInvalidIdleTimeout", at+"idleTimeoutInMinutes", props.IdleTimeoutInMinutes, 4, 100)
	c.ports(at, id, *props.Protocol, *props.FrontendPort, *props.BackendPort, *props.EnableFloatingIP)
	if ok {
		c.alone(at+"frontendIPConfiguration", id, frontend)
		c.listen(at, listener{id.String(), frontend, *props.Protocol, *props.FrontendPort})
	}
}

func (c *balancerCheck) outbound(at string, index int, e *armnetwork.OutboundRule) {
	id, props := c.child(listOutbound, value(e.Name)), e.Properties
	pool, hasPool := c.find(id, at+"backendAddressPool", listPools, props.BackendAddressPool, c.poolNames)
	if len(props.FrontendIPConfigurations) == 0 {
		c.bad("OutboundRuleMustHaveFrontendIPConfiguration", at+listFrontends, "Outbound rule %s needs a frontend IP configuration.", id)
	}
	for _, ref := range props.FrontendIPConfigurations {
		if frontend, ok := c.find(id, at+listFrontends, listFrontends, ref, c.frontendNames); ok && !c.public(frontend) {
			c.bad("OutboundRuleCannotBeUsedWithInternalFrontend", at+listFrontends, "Outbound rule %s needs public frontend IP configurations; %s is internal.", id, subID(ref))
		}
	}
	between(&c.findings, "OutboundRuleInvalidIdleTimeout", at+"idleTimeoutInMinutes", props.IdleTimeoutInMinutes, 4, 120)
	if *props.Protocol == "" {
		c.bad("InvalidRequestFormat", at+"protocol", "Outbound rule %s needs a protocol: All.", id)
	}
	for _, other := range c.lb.OutboundRules[:index] {
		if hasPool && sameID(other.Properties.BackendAddressPool, props.BackendAddressPool) {
			c.bad("OutboundRulesUseSameProtocolAndPool", at+"backendAddressPool", "Outbound rules %s and %s use the same backend address pool %s.", c.child(listOutbound, value(other.Name)), id, subID(props.BackendAddressPool))
		}
	}
	if hasPool {
		c.outboundPorts(at+"allocatedOutboundPorts", id, pool, props)
	}
}

// outboundPorts: what each member is given must be there.
func (c *balancerCheck) outboundPorts(target string, id resource.ID, pool string, props *armnetwork.OutboundRulePropertiesFormat) {
	const code = "SpecifiedAllocatedOutboundPortsForOutboundRule"
	ports := *props.AllocatedOutboundPorts
	available := portsPerFrontend * c.addresses(props.FrontendIPConfigurations)
	members := len(c.members[c.child(listPools, pool).Key()])
	for _, e := range c.lb.BackendAddressPools {
		if strings.EqualFold(value(e.Name), pool) {
			members += len(e.Properties.LoadBalancerBackendAddresses)
		}
	}
	switch {
	case ports < 0 || ports%8 != 0:
		c.bad(code+"IsNotAMultipleOfEight", target, "Specified allocated outbound ports %d for outbound rule %s is not a multiple of 8.", ports, id)
	case ports > portsPerFrontend:
		c.bad(code+"ExceedsTotalNumberOfAllowedPortsPerRule", target, "Specified allocated outbound ports %d for outbound rule %s exceeds the total number of allowed ports per rule %d.", ports, id, portsPerFrontend)
	case int(ports)*members > available:
		c.bad(code+"ExceedsTotalNumberOfAvailablePorts", target,
			"Specified allocated outbound ports %d for outbound rule %s exceeds the number of available ports per backend instance: %d instances share %d ports. Reduce allocated ports or increase the number of IP addresses for the outbound rule.", ports, id, members, available)
	}
}
