// SPDX-License-Identifier: Apache-2.0

// Package netpolicy compiles Kubernetes' network policies for one node, purely,
// to the tables of a ruleset; its agent (cmd/bastide-netpolicy) keeps a node's
// kernel so.
package netpolicy
