// SPDX-License-Identifier: Apache-2.0

package network

import (
	"encoding/json"
	"fmt"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v7"

	"bastide.dev/arm"
)

// The SDK's models read and write JSON through maps of raw messages, which for
// a group of 1,000 rules takes longer than all the rest of a request. What is
// here does the same for rules, whose properties are all flat.

// rulesIn are the rules of a body that has the model's spelling. What has the
// wrong type is none: the front door has named it.
func rulesIn(body map[string]any) []*armnetwork.SecurityRule {
	elements := arm.Elements(body, ruleList)
	rules := make([]*armnetwork.SecurityRule, len(elements))
	for i, e := range elements {
		in, _ := e["properties"].(map[string]any)
		rules[i] = &armnetwork.SecurityRule{Name: textIn[string](e, "name"), Properties: &armnetwork.SecurityRulePropertiesFormat{
			Access:                               textIn[armnetwork.SecurityRuleAccess](in, "access"),
			Direction:                            textIn[armnetwork.SecurityRuleDirection](in, "direction"),
			Protocol:                             textIn[armnetwork.SecurityRuleProtocol](in, "protocol"),
			Priority:                             numberIn(in, "priority"),
			Description:                          textIn[string](in, "description"),
			SourceAddressPrefix:                  textIn[string](in, "sourceAddressPrefix"),
			SourceAddressPrefixes:                textsIn(in, "sourceAddressPrefixes"),
			SourceApplicationSecurityGroups:      groupsIn(in, "sourceApplicationSecurityGroups"),
			SourcePortRange:                      textIn[string](in, "sourcePortRange"),
			SourcePortRanges:                     textsIn(in, "sourcePortRanges"),
			DestinationAddressPrefix:             textIn[string](in, "destinationAddressPrefix"),
			DestinationAddressPrefixes:           textsIn(in, "destinationAddressPrefixes"),
			DestinationApplicationSecurityGroups: groupsIn(in, "destinationApplicationSecurityGroups"),
			DestinationPortRange:                 textIn[string](in, "destinationPortRange"),
			DestinationPortRanges:                textsIn(in, "destinationPortRanges"),
		}}
	}
	return rules
}

func textIn[S ~string](in map[string]any, name string) *S {
	text, ok := in[name].(string)
	if !ok {
		return nil
	}
	return ptr(S(text))
}

func numberIn(in map[string]any, name string) *int32 {
	number, _ := in[name].(json.Number)
	n, err := number.Int64()
	if err != nil || n != int64(int32(n)) {
		return nil
	}
	return ptr(int32(n))
}

func textsIn(in map[string]any, name string) []*string {
	list, _ := in[name].([]any)
	var texts []*string
	for _, v := range list {
		if text, ok := v.(string); ok {
			texts = append(texts, &text)
		}
	}
	return texts
}

func groupsIn(in map[string]any, name string) []*armnetwork.ApplicationSecurityGroup {
	var groups []*armnetwork.ApplicationSecurityGroup
	for _, e := range arm.Elements(in, name) {
		groups = append(groups, &armnetwork.ApplicationSecurityGroup{ID: textIn[string](e, "id")})
	}
	return groups
}

// rulesBody is the body of a group with these rules.
func rulesBody(rules []*armnetwork.SecurityRule) map[string]any {
	list := make([]any, len(rules))
	for i, r := range rules {
		p := r.Properties
		properties := map[string]any{"access": p.Access, "direction": p.Direction, "protocol": p.Protocol, "priority": p.Priority,
			"sourceAddressPrefixes": orNone(p.SourceAddressPrefixes), "sourcePortRanges": orNone(p.SourcePortRanges),
			"destinationAddressPrefixes": orNone(p.DestinationAddressPrefixes), "destinationPortRanges": orNone(p.DestinationPortRanges)}
		for name, text := range map[string]*string{"description": p.Description, "sourceAddressPrefix": p.SourceAddressPrefix,
			"sourcePortRange": p.SourcePortRange, "destinationAddressPrefix": p.DestinationAddressPrefix, "destinationPortRange": p.DestinationPortRange} {
			if text != nil {
				properties[name] = *text
			}
		}
		for name, groups := range map[string][]*armnetwork.ApplicationSecurityGroup{"sourceApplicationSecurityGroups": p.SourceApplicationSecurityGroups,
			"destinationApplicationSecurityGroups": p.DestinationApplicationSecurityGroups} {
			if len(groups) > 0 {
				properties[name] = groups
			}
		}
		list[i] = map[string]any{"name": value(r.Name), "properties": properties}
	}
	return map[string]any{"properties": map[string]any{"securityRules": list}}
}

// orNone is a list that is written as an empty one, not as null.
func orNone(texts []*string) []*string {
	if texts == nil {
		return []*string{}
	}
	return texts
}

// plainRule is the wire form of a rule, without the model's own slow reading:
// field names are found without regard to case.
type plainRule armnetwork.SecurityRulePropertiesFormat

// decodeModel reads a stored body into its wire model.
func decodeModel(raw []byte, model any) error {
	if group, ok := model.(*armnetwork.SecurityGroup); ok {
		return decodeGroup(raw, group)
	}
	return json.Unmarshal(raw, model)
}

// decodeGroup reads the stored body of a security group.
func decodeGroup(raw []byte, group *armnetwork.SecurityGroup) error {
	var stored struct {
		Properties struct {
			SecurityRules []struct {
				Name       *string
				Properties *plainRule
			}
		}
	}
	if err := json.Unmarshal(raw, &stored); err != nil {
		return fmt.Errorf("security group: %w", err)
	}
	group.Properties = &armnetwork.SecurityGroupPropertiesFormat{}
	for _, r := range stored.Properties.SecurityRules {
		group.Properties.SecurityRules = append(group.Properties.SecurityRules,
			&armnetwork.SecurityRule{Name: r.Name, Properties: (*armnetwork.SecurityRulePropertiesFormat)(r.Properties)})
	}
	return nil
}
